"""docs/python.md is true: its blocks are run as they stand there, from top to bottom, and print what it says."""

import contextlib
import importlib
import io
import pathlib
import re
import subprocess
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/python.md"


class Block(NamedTuple):
    language: str
    library: str  # that it is for, "" for none
    line: int
    text: str
    output: str | None  # as the page has it


def read_blocks():
    page = PAGE.read_text(encoding="utf-8")
    found = list(re.finditer(r"^```(\w+) ?(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    assert page.count("```") == 2 * len(found)
    blocks = []
    for match in found:
        language, library, text = match.groups()
        if language == "text":
            blocks[-1] = blocks[-1]._replace(output=text)
        else:
            blocks.append(Block(language, library, page.count("\n", 0, match.start()) + 2, text, None))
    return blocks


@pytest.mark.parametrize("library", ["", "torch", "jax"])
def test_python(library):
    if library:
        try:
            importlib.import_module(f"fisherd.{library}")
        except ImportError as error:
            pytest.skip(f"no fisherd.{library} here: {error}")
    blocks = [block for block in read_blocks() if block.language == "python" and block.library in ("", library)]
    assert len(blocks) > 5
    assert not library or any(block.library for block in blocks)
    names = {}
    for block in blocks:
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if block.output is not None:
            assert printed.getvalue() == block.output, f"{PAGE}:{block.line}"
        for line in printed.getvalue().splitlines():
            if line.startswith("loss "):
                assert 0 < float(line.split()[1]) < 3


def test_shell():
    blocks = [block.text for block in read_blocks() if block.language == "sh"]
    assert blocks
    done = subprocess.run(["bash", "-euc", "\n".join(blocks)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0 and re.search(
        "No matching distribution|ConnectionError|Could not find a version", done.stderr
    ):
        pytest.skip(f"pip reaches no packages here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    run = [ROOT / "build/try/bin/python", "-c", "import fisherd; print(fisherd.__file__)"]
    where = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "build/try" in where


def test_every_block_is_of_a_kind_that_is_run():
    kinds = {(block.language, block.library) for block in read_blocks()}
    assert kinds <= {("python", ""), ("python", "torch"), ("python", "jax"), ("sh", "")}

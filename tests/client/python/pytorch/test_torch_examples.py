"""The examples run, each in seconds, and end with a table and a picture."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from conftest import ROOT  # noqa: E402


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("natural_gradient", ["fisherd^-1/2", "per step", "Is the served Fisher right?", "times too small"]),
        ("ewc", ["fine-tuning", "exact Fisher", "digits 0-4"]),
        ("pruning", ["magnitude", "stepwise", "can be removed"]),
    ],
)
def test_example(example, words, tmp_path):
    program = ROOT / "client/python/examples" / f"{example}.py"
    picture = tmp_path / "a/picture.svg"
    done = subprocess.run(
        [sys.executable, str(program), "--quick", "--out", str(picture)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout
    assert len(list(ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}path"))) > 3

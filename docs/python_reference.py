"""Writes the API reference from the package's docstrings, as HTML; ./dev docs runs it.

    python_reference.py FOLDER

The package is to be installed. Of its parts those come in whose libraries are there, fisherd.torch and fisherd.jax.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

import pdoc

LIBRARIES = ("torch", "jax")


def to_markdown(docstring: str) -> str:
    """Return a docstring of this package as Markdown: its lists of arguments as lists, its examples as code."""
    text = re.sub(
        r"^(.*)::\n\n((?: {4}.*\n?|\n)+)",
        r"\1\n\n```python\n\2\n```\n",
        docstring + "\n",
        flags=re.MULTILINE,
    )
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):  # what is not code
        parts[index] = re.sub(
            r"^( {4})?(\w+(?:, \w+)*): ",
            r"\n- **\2**: ",
            parts[index],
            flags=re.MULTILINE,
        )
    return "".join(parts)


def main() -> None:
    """Write it to the folder that the command line names."""
    modules = ["fisherd", *(f"fisherd.{name}" for name in LIBRARIES if is_there(name))]
    pdoc.render.configure(docformat="markdown", show_source=False)
    pdoc.render.env.filters["to_markdown"] = lambda docstring, *_: to_markdown(
        docstring
    )
    pdoc.pdoc(*modules, output_directory=pathlib.Path(sys.argv[1]))


def is_there(library: str) -> bool:
    """Return whether a library is installed, and the package's part for it."""
    return all(
        importlib.util.find_spec(name) is not None
        for name in (library, f"fisherd.{library}")
    )


if __name__ == "__main__":
    main()

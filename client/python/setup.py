"""Generates the messages' code from proto/ while the package is built; the rest is in pyproject.toml."""

import os
import pathlib
import subprocess

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BUILD = ROOT / "build/python"


class BuildPy(build_py.build_py):
    """Adds fisherd/v1/*_pb2.py and their types, by protoc 3.21 (Debian 12's): newer runtimes take older code."""

    def run(self) -> None:
        """Build the package, generated modules included."""
        super().run()
        sources = [str(path.relative_to(PROTO)) for path in sorted(PROTO.glob("fisherd/v1/*.proto"))]
        protoc = os.environ.get("PROTOC", "protoc")
        out = [f"--{kind}_out={self.build_lib}" for kind in ("python", "pyi")]
        subprocess.run([protoc, f"-I{PROTO}", *out, *sources], check=True)  # noqa: S603


BUILD.mkdir(parents=True, exist_ok=True)
setuptools.setup(
    cmdclass={"build_py": BuildPy},
    options={"build": {"build_base": str(BUILD / "build")}, "egg_info": {"egg_base": str(BUILD)}},
)

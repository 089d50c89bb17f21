"""The example runs, and says what it measured."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("jax.numpy", reason="JAX is not installed")
pytest.importorskip("optax", reason="optax is not installed")

EXAMPLES = pathlib.Path(__file__).resolve().parents[4] / "client/python/examples"


def test_natural_gradient(server, tmp_path):
    picture = tmp_path / "curves/natural_gradient.svg"
    command = [sys.executable, EXAMPLES / "natural_gradient_jax.py", "--quick", f"--server={server.target}"]
    done = subprocess.run([*command, f"--out={picture}"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    last = next(line for line in lines if line.startswith("3 "))
    accuracies = [float(word) for word in last.replace("%", "").split()[2::2]]
    assert len(accuracies) == 5
    assert min(accuracies) > 85
    checked = [line.split() for line in lines if line.startswith("layer")]
    assert all(float(words[1]) < 1e-5 for words in checked)
    assert len(checked) == 3
    drawn = picture.read_text()
    assert drawn.startswith("<svg")
    assert drawn.count('class="curve"') == 15  # in two panels, and the legend

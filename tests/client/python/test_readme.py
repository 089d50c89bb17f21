"""The README's start works as it is printed."""

import re

import numpy as np

import fisherd
from conftest import ROOT


def test_the_start(server, monkeypatch):
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "client/python/README.md").read_text(), re.DOTALL)
    assert '"localhost:7600"' in code
    names = {
        "inputs": np.array([[1, 2], [3, 4]], np.float32),
        "outputs_grads": np.array([[1, -1], [2, 0.5]], np.float32),
        "gradient": np.ones(6, np.float32),
    }
    exec(code.replace("localhost:7600", server.target), names)
    covariance = np.array([18.5, 1.625, 34, 4, 2.5, 0.625])
    np.testing.assert_allclose(names["natural"], (covariance + 1e-3) ** -0.5, rtol=1e-6)
    names["client"].close()
    assert isinstance(names["updates"].status(), fisherd.CancelledError)

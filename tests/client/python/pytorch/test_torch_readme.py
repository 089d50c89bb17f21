"""The READMEs' start with PyTorch works as it is printed."""

import re

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn import functional  # noqa: E402

from conftest import ROOT  # noqa: E402


@pytest.mark.parametrize("readme", ["README.md", "client/python/README.md"])
def test_the_start(server, readme):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "fisherd.torch" in block)
    assert '"localhost:7600"' in code
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 8), torch.arange(32) % 4
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    before = functional.cross_entropy(model(inputs), labels).item()
    names = {"torch": torch, "model": model, "batches": [(inputs, labels)] * 60}
    exec(code.replace("localhost:7600", server.target), names)
    assert functional.cross_entropy(model(inputs), labels).item() < before / 2
    assert names["fisher"].stats().sent == 60
    names["fisher"].detach()
    names["client"].close()

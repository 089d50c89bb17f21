"""What the tests share: one server of the build, and clients of it."""

import os
import pathlib
import sys

import pytest

import fisherd

sys.path.insert(0, str(pathlib.Path(__file__).parent))
ROOT = pathlib.Path(__file__).resolve().parents[3]
os.environ.setdefault("FISHERD_BINARY", str(ROOT / "build/release/server/fisherd"))

# FISHERD_TORCH_DEVICE=cuda: where the PyTorch tests have their tensors.
if device := os.environ.get("FISHERD_TORCH_DEVICE"):
    import torch

    torch.set_default_device(device)


@pytest.fixture(scope="session")
def server():
    with fisherd.Server(log_level="warning") as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def updates(client):
    with client.open_updates() as updates:
        yield updates


@pytest.fixture
def name(request):
    """Return a name for a factor of this test alone."""
    return f"{request.module.__name__}/{request.node.name}"

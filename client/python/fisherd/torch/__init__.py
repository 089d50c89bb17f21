"""fisherd in a PyTorch training script: capture of what the Linear layers see, and gradients preconditioned by it.

::

    import fisherd, fisherd.torch

    client = fisherd.Client("localhost:7600")
    fisher = fisherd.torch.attach(model, client, loss="mean")
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = fisherd.torch.Preconditioner(sgd, fisher, exponent=-0.5, damping=1e-3)

The training loop stays as it was. `attach` squares the gradients of single examples, whatever the loss's reduction, and
sends them in the background; `Preconditioner.step` multiplies every layer's gradient by (v + λ)^e in one call.
Works with PyTorch from 1.13 on. Under torch.distributed every rank is a tower.
"""

from fisherd.background import WhenFull
from fisherd.torch.attaching import attach
from fisherd.torch.capture import Labels
from fisherd.torch.fisher import Fisher, Loss
from fisherd.torch.layers import Layer
from fisherd.torch.preconditioner import Preconditioner
from fisherd.torch.rows import Rank3
from fisherd.torch.sender import CaptureStats, Ticket

__all__ = [
    "CaptureStats",
    "Fisher",
    "Labels",
    "Layer",
    "Loss",
    "Preconditioner",
    "Rank3",
    "Ticket",
    "WhenFull",
    "attach",
]

"""torch.distributed's ranks as towers."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

from fisherd.torch.sender import Agree


def is_distributed() -> bool:
    """Return whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def make_agree() -> Agree:
    """Return how the ranks agree; every rank calls this, and what it returns, equally often.

    Over a gloo group of its own, so that it can be used beside the trainer's collectives, by another thread.
    """
    group: Any = distributed.new_group(backend="gloo")

    def agree(mine: list[int]) -> list[int]:
        words = torch.tensor(mine, dtype=torch.uint8)
        distributed.all_reduce(words, distributed.ReduceOp.MIN, group=group)
        least: list[int] = words.tolist()
        return least

    return agree


def is_first() -> bool:
    """Return whether this is rank 0, or alone."""
    return not is_distributed() or distributed.get_rank() == 0


def share(tensors: list[torch.Tensor]) -> None:
    """Give every rank rank 0's tensors, in place, over the trainer's own group."""
    for tensor in tensors if is_distributed() else []:
        distributed.broadcast(tensor, 0)

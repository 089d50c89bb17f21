"""What capture costs a training step: training.py FISHERD apart|beside shm|tcp [--quick], figures as JSON.

A 4-layer, 1024-wide MLP; blocks of steps with capture on every step alternate with blocks without any. A block's time
ends when all that it captured has ended at the server, so nothing is left to be paid later.

apart: the server has a core to itself, the last one, and the trainer all others. beside: both have all cores.
shm: batches lie in shared memory. tcp: they travel.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import sys
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

import fisherd
import fisherd.torch

WIDTH, LAYERS = 1024, 4
ROWS = 256


class Step(NamedTuple):
    """Seconds of a step: by the clock, and of this process's CPU time."""

    wall: float
    cpu: float


def make_model() -> nn.Sequential:
    """Return the MLP."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def place(server: fisherd.Server, *, apart: bool) -> None:
    """Give the server the last core and this process the others, or both all."""
    cores = sorted(os.sched_getaffinity(0))
    mine, its = (set(cores[:-1]), {cores[-1]}) if apart else (set(cores), set(cores))
    for process, set_of_cores in ((str(server.pid), its), ("self", mine)):
        for thread in pathlib.Path("/proc", process, "task").iterdir():
            os.sched_setaffinity(int(thread.name), set_of_cores)
    torch.set_num_threads(len(mine))


def block(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, fisher: fisherd.torch.Fisher | None) -> Step:
    """Return what a step took."""
    inputs, labels = torch.randn(ROWS, WIDTH), torch.randint(WIDTH, (ROWS,))
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if fisher is not None:
            fisher.step()
    if fisher is not None:
        fisher.flush()
    return Step((time.perf_counter() - begin) / steps, (time.process_time() - cpu) / steps)


def main() -> None:
    """Measure, in alternation."""
    apart, quick = sys.argv[2] == "apart", "--quick" in sys.argv
    steps, rounds = (8, 3) if quick else (20, 7)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    without, captured = [], []
    memory = 256 << 20 if sys.argv[3] == "shm" else 0
    with (
        fisherd.Server(sys.argv[1]) as server,
        server.client() as client,
        client.open_updates(shared_memory=memory) as updates,
    ):
        place(server, apart=apart)
        for turn in range(-1, rounds):  # the first warms up
            plain = block(model, optimizer, steps, None)
            with fisherd.torch.attach(model, client, updates=updates) as fisher:
                capture = block(model, optimizer, steps, fisher)
            if turn >= 0:
                without.append(plain)
                captured.append(capture)
    pairs = list(zip(without, captured, strict=True))
    figures = {
        "none_ms": 1e3 * statistics.median(step.wall for step in without),
        "captured_ms": 1e3 * statistics.median(step.wall for step in captured),
        "slowed": statistics.median(b.wall / a.wall for a, b in pairs) - 1,
        "cpu": statistics.median(b.cpu / a.cpu for a, b in pairs) - 1,
    }
    print(json.dumps({"server": sys.argv[2], "transport": sys.argv[3], "threads": torch.get_num_threads(), **figures}))


if __name__ == "__main__":
    main()

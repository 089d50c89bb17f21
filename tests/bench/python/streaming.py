"""Streams of batches from Python to a server of its own: streaming.py FISHERD, figures as JSON.

As tests/bench/stream has it for C++: one trainer, one factor of [32, 32], raw, over TCP and by shared memory.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

import fisherd

LAYER = 32
SIZES = {"1MiB": 1 << 20, "16MiB": 16 << 20}
TRANSPORTS = {"tcp": 0, "shm": 256 << 20}  # bytes of shared memory
TURN_BYTES = 128 << 20
ROUNDS = 3


def measure(target: str, transport: str, size: str) -> dict[str, Any]:
    """Return medians over rounds: GB/s of elements, and this process's CPU seconds for one of them."""
    name = f"{transport}/{size}"
    batch_bytes = SIZES[size]
    rows = batch_bytes // (2 * LAYER * 4)
    rng = np.random.default_rng(0)
    inputs, grads = (rng.uniform(-1, 1, (rows, LAYER)).astype("f4") for _ in range(2))
    rates, costs = [], []
    memory = TRANSPORTS[transport]
    with fisherd.Client(target) as client, client.open_updates(form="raw", shared_memory=memory) as updates:
        client.create_factor(name, fisherd.FullyConnectedDiagonal(LAYER, LAYER))
        writer = updates.open(name)
        for turn in range(-1, ROUNDS):  # the first warms up
            pushes = max(2, TURN_BYTES // (1 if turn >= 0 else 4) // batch_bytes)
            begin, cpu = time.perf_counter(), sum(os.times()[:2])
            for _ in range(pushes):
                step = writer.write(inputs, grads, decay=0.95)
            writer.wait(step)
            if turn >= 0:
                gigabytes = pushes * batch_bytes / 1e9
                rates.append(gigabytes / (time.perf_counter() - begin))
                costs.append((sum(os.times()[:2]) - cpu) / gigabytes)
    return {"name": name, "gbps": statistics.median(rates), "cpu_s_per_gb": statistics.median(costs)}


def main() -> None:
    """Measure every size, on one server."""
    with fisherd.Server(sys.argv[1], batch_budget="2GiB") as server:
        print(json.dumps([measure(server.target, transport, size) for transport in TRANSPORTS for size in SIZES]))


if __name__ == "__main__":
    main()

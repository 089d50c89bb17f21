"""The same steps in PyTorch, on the same card: torch_peer.py SHAPES_JSON, milliseconds as JSON.

five_pass: square, square, product, divide, average, as tf.contrib.kfac has it. addmm: squares, and the average in a
product's alpha and beta. Both in float32 without TF32, in place, by CUDA events; medians of interleaved rounds.
"""

import json
import statistics
import sys

import torch

ROUNDS = 7
ROUND_MS = 12.0


def time(work, times):
    """Return milliseconds of one of `times` calls."""
    begin, end = (
        torch.cuda.Event(enable_timing=True),
        torch.cuda.Event(enable_timing=True),
    )
    begin.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / times


def contest(rows, inputs, outputs):
    """Return medians of both ways."""
    a, g = (
        torch.rand(rows, inputs, device="cuda"),
        torch.rand(rows, outputs, device="cuda"),
    )
    state = torch.zeros(inputs, outputs, device="cuda")

    def five_pass():
        product = torch.matmul(torch.square(a).t(), torch.square(g))
        state.mul_(0.95).add_(product / rows, alpha=0.05)

    def addmm():
        state.addmm_(torch.square(a).t(), torch.square(g), beta=0.95, alpha=0.05 / rows)

    ways = {"five_pass": five_pass, "addmm": addmm}
    times = {}
    for name, work in ways.items():
        work()
        times[name] = max(1, min(2000, int(ROUND_MS / time(work, 2))))
    rounds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            rounds[name].append(time(work, times[name]))
    return {name: statistics.median(all_of) for name, all_of in rounds.items()}


def main():
    """Measure every shape."""
    torch.backends.cuda.matmul.allow_tf32 = False
    shapes = json.loads(sys.argv[1])
    print(json.dumps({"x".join(map(str, shape)): contest(*shape) for shape in shapes}))


if __name__ == "__main__":
    main()

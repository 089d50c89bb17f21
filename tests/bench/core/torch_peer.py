"""Times PyTorch's way of one step, in turns with the contenders of core_bench, which starts this.

    usage: torch_peer.py THREADS SETTLE_SECONDS SLICE_SECONDS

Answers its version once it is ready. Then, for each line

    CONTENDER ROWS INPUTS OUTPUTS BIAS SOURCES

takes that contender's step for SLICE_SECONDS, at least once, and answers the seconds per step;
before that, if steps are short, for SETTLE_SECONDS that do not count.
"""

import collections
import sys
import time

import torch

DECAY = 0.95
WEIGHT = 0.05
LONG_STEP_SECONDS = 0.2


class Problem:
    """Tensors whose squares and products are normal numbers, and the state."""

    def __init__(self, rows, inputs, outputs, bias, sources):
        def random(*shape):
            return (torch.rand(shape) + 0.5) * (torch.randint(0, 2, shape) * 2 - 1)

        self.inputs = random(rows, inputs)
        self.grads = [random(rows, outputs) for _ in range(sources)]
        self.state = random(inputs + bias, outputs).abs()
        self.rows = rows
        self.bias = bias

    def torch_five_pass(self):
        """Square, square, product, divide, moving average; a product for each source."""
        inputs = self.inputs
        if self.bias:
            inputs = torch.cat([inputs, torch.ones(self.rows, 1)], dim=1)
        squares = inputs.square().t()
        covariance = squares @ self.grads[0].square()
        for grads in self.grads[1:]:
            covariance += squares @ grads.square()
        covariance /= self.rows
        self.state.mul_(DECAY).add_(covariance, alpha=WEIGHT)

    def torch_addmm(self):
        """Sources' squares summed first, one product with the moving average folded in."""
        grads = self.grads[0].square()
        for more in self.grads[1:]:
            grads.addcmul_(more, more)
        fold = {"beta": DECAY, "alpha": WEIGHT / self.rows}
        weights = self.state[: self.inputs.shape[1]]
        weights.addmm_(self.inputs.square().t(), grads, **fold)
        if self.bias:
            self.state[-1].mul_(DECAY).add_(grads.sum(dim=0), alpha=fold["alpha"])


def time_steps(step, slice_seconds):
    steps = 0
    start = time.perf_counter()
    while True:
        step()
        steps += 1
        elapsed = time.perf_counter() - start
        if elapsed >= slice_seconds:
            return elapsed / steps


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.set_grad_enabled(False)
    settle_seconds, slice_seconds = map(float, sys.argv[2:])
    print("PyTorch", torch.__version__, flush=True)
    sizes = problem = None
    for line in sys.stdin:
        contender, *wanted = line.split()
        if wanted != sizes:
            problem = None  # before the next one, so that both need not fit
            problem = Problem(*map(int, wanted))
            sizes = wanted
            last = collections.defaultdict(float)
        step = getattr(problem, contender)
        if last[contender] < LONG_STEP_SECONDS and settle_seconds > 0:
            time_steps(step, settle_seconds)
        last[contender] = time_steps(step, slice_seconds)
        print(last[contender], flush=True)


if __name__ == "__main__":
    main()

"""Natural gradient on handwritten digits, in PyTorch: two ranks, five optimizers, two of them with fisherd's Fisher.

Run it with a fisherd binary on the PATH, or in a checkout after ./dev build:

    python natural_gradient.py [--quick] [--server HOST:PORT] [--out FILE.svg]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional

import common
import fisherd
import fisherd.torch

WIDTHS = (64, 128, 64, 10)
RANKS = 2
BATCH = 128  # of all ranks together
FISHER_DECAY = 0.95


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer; with an exponent, of gradients that are multiplied by (Fisher + damping)^exponent first."""

    name: str
    optimizer: type[torch.optim.Optimizer]
    settings: dict[str, float]
    exponent: float | None = None
    damping: float = 0.0


# Settings as the C++ demo's, which were tuned by twelve trials for each method.
METHODS = (
    Method("SGD", torch.optim.SGD, {"lr": 0.9}),
    Method("momentum", torch.optim.SGD, {"lr": 0.5, "momentum": 0.9}),
    Method("Adam", torch.optim.Adam, {"lr": 0.03}),
    Method("fisherd^-1", torch.optim.SGD, {"lr": 0.0006, "momentum": 0.9}, -1, 0.0003),
    Method("fisherd^-1/2", torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}, -0.5, 0.001),
)


def make_model() -> nn.Sequential:
    """Return the network; weights of variance 1 / inputs, and biases 0."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(WIDTHS):
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, std=inputs**-0.5)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


# ---- One rank


def train(method: Method, client: fisherd.Client, digits: common.Digits, epochs: int) -> common.Run:
    """Train with one method, and measure."""
    model = nn.parallel.DistributedDataParallel(make_model())
    optimizer = method.optimizer(model.parameters(), **method.settings)  # type: ignore[call-arg]
    run = common.Run(method.name)
    note(run, model, digits)
    with contextlib.ExitStack() as stack:
        fisher = None
        if method.exponent is not None:
            prefix = f"digits/{method.name.replace('/', '|')}/"
            fisher = stack.enter_context(
                fisherd.torch.attach(model, client, prefix=prefix, labels="sampled", decay=FISHER_DECAY, reset=True)
            )
            optimizer = fisherd.torch.Preconditioner(
                optimizer, fisher, exponent=method.exponent, damping=method.damping
            )
        seconds = []
        for epoch in range(epochs):
            for images, labels in batches(digits, epoch):
                begin = time.perf_counter()
                optimizer.zero_grad()
                logits = model(images)
                if fisher is not None:
                    fisher.sample(logits)
                functional.cross_entropy(logits, labels).backward()
                optimizer.step()
                seconds.append(time.perf_counter() - begin)
            note(run, model, digits)
        run.seconds_per_step = float(np.median(seconds))
    return run


def batches(digits: common.Digits, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return this rank's part of an epoch's batches: the same for every method."""
    order = np.random.default_rng(epoch).permutation(len(digits.train_labels))
    for rows in order.reshape(-1, RANKS, BATCH // RANKS)[:, distributed.get_rank()]:
        yield torch.from_numpy(digits.train_images[rows]), torch.from_numpy(digits.train_labels[rows]).long()


@torch.no_grad()
def note(run: common.Run, model: nn.Module, digits: common.Digits) -> None:
    """Measure the training loss and the test accuracy."""
    logits = model(torch.from_numpy(digits.train_images))
    run.losses.append(functional.cross_entropy(logits, torch.from_numpy(digits.train_labels).long()).item())
    answers = model(torch.from_numpy(digits.test_images)).argmax(-1).numpy()
    run.accuracies.append(float((answers == digits.test_labels).mean()))


def check(client: fisherd.Client, digits: common.Digits) -> list[list[str]]:
    """Compare one step's factors with gradients of single examples in 64 bits; return a row for each layer."""
    images = torch.from_numpy(digits.train_images[:BATCH])
    labels = torch.from_numpy(digits.train_labels[:BATCH]).long()
    shares = [slice(0, BATCH // 4), slice(BATCH // 4, BATCH)]  # of unlike sizes
    mine, model = shares[distributed.get_rank()], make_model()
    with fisherd.torch.attach(model, client, prefix="digits/check/", loss="mean", reset=True) as fisher:
        functional.cross_entropy(model(images[mine]), labels[mine]).backward()
        fisher.step()
        fisher.flush()
        served = fisher.read()
    wide = make_model().double()
    grads = [single_gradients(wide, images[row : row + 1].double(), labels[row : row + 1]) for row in range(BATCH)]
    rows = []
    for index, name in enumerate(served):
        each = torch.stack([grad[index] for grad in grads])
        right = sum(each[share].square().mean(0) for share in shares) / RANKS
        mistake = sum(each[share].mean(0).square() for share in shares) / RANKS
        off = (served[name] - right).abs().max() / right.max()
        rows.append([name, f"{off:.1e}", f"{right.sum() / mistake.sum():.0f} times too small"])
    return rows


def single_gradients(model: nn.Module, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return an example's own gradients."""
    loss = functional.cross_entropy(model(image), label)
    return torch.autograd.grad(loss, tuple(model.parameters()))


def rank_main(rank: int, target: str, folder: str, epochs: int, results: Any) -> None:
    """Train with every method, as one of two ranks."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(pathlib.Path(folder) / "store"), RANKS)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    digits = common.load_digits()
    with fisherd.Client(target) as client:
        runs = [train(method, client, digits, epochs) for method in METHODS]
        rows = check(client, digits)
    if rank == 0:
        results.put((runs, rows))
    distributed.barrier()
    distributed.destroy_process_group()


# ---- What is printed


def report(runs: list[common.Run], rows: list[list[str]]) -> None:
    """Print what was measured."""
    common.print_runs(runs)
    print("\nIs the served Fisher right? One step of two ranks, against gradients of single examples in 64 bits\n")
    common.print_table(["", "largest difference / largest entry", "squares of the batch-mean gradient"], rows)


def main() -> None:
    """Start a server and the ranks, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="3 epochs in place of 30")
    parser.add_argument("--server", help="a fisherd that runs; without it, one is started")
    parser.add_argument("--out", default="natural_gradient.svg", help="the picture")
    options = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    epochs = 3 if options.quick else 30
    print(f"64-128-64-10, tanh, two ranks of {BATCH // RANKS} digits a step, {epochs} epochs\n")
    results = multiprocessing.get_context("spawn").SimpleQueue()
    with contextlib.ExitStack() as stack:
        target = options.server or stack.enter_context(fisherd.Server()).target
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ranks = multiprocessing.start_processes(
            rank_main, (target, folder, epochs, results), RANKS, join=False, start_method="spawn"
        )
        while not ranks.join():
            pass
    runs, rows = results.get()
    report(runs, rows)
    common.write_runs_svg(options.out, runs)


if __name__ == "__main__":
    main()

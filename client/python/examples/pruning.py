"""Fisher pruning, in PyTorch: set weights of a network that knows the digits to zero, those that it needs least.

Removed first are, by the loss that removing them is thought to cost,

    magnitude  the smallest |w|
    Fisher     the smallest ½·F·w², F the Fisher's diagonal over the training digits, labels drawn from the model's
               own prediction: fisherd's
    stepwise   the same, with F measured anew at each share, on what is left
    random     any

over all layers together, biases kept, without training afterwards.

    python pruning.py [--quick] [--server HOST:PORT] [--out FILE.svg]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import common
import fisherd
import fisherd.torch

WIDTHS = (64, 128, 64, 10)
BATCH = 64
REMOVED = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975)  # shares of the weights
SHOWN = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
METHODS = ("magnitude", "Fisher", "stepwise", "random")

Tensors = dict[str, torch.Tensor]  # by the parameters' names


def make_model(seed: int) -> nn.Sequential:
    """Return a network with two layers between."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def batches(digits: common.Digits, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return the training digits in random order."""
    order = np.random.default_rng(seed).permutation(len(digits.train_labels))
    for rows in np.array_split(order, len(order) // BATCH):
        yield torch.from_numpy(digits.train_images[rows]), torch.from_numpy(digits.train_labels[rows]).long()


def train(model: nn.Module, digits: common.Digits, epochs: int) -> None:
    """Train by Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for epoch in range(epochs):
        for images, labels in batches(digits, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def fisher_diagonal(model: nn.Module, client: fisherd.Client, digits: common.Digits, draws: int) -> Tensors:
    """Return the Fisher's diagonal over the training digits, the mean over several draws of labels."""
    generator = torch.Generator().manual_seed(0)
    options = {"labels": "sampled", "decay": 1.0, "weight": 1.0, "reset": True}
    with fisherd.torch.attach(model, client, prefix="pruning/", **options) as fisher:  # type: ignore[arg-type]
        for draw in range(draws):
            for images, _ in batches(digits, draw):
                fisher.sample(model(images), generator=generator)
                fisher.step()
        return fisher.read()


def weights_of(model: nn.Module) -> Tensors:
    """Return the weights, without the biases."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.dim() > 1}


def saliency_by_fisher(model: nn.Module, client: fisherd.Client, digits: common.Digits, draws: int) -> Tensors:
    """Return the loss that removing each weight costs, to second order."""
    fisher = fisher_diagonal(model, client, digits, draws)
    return {name: fisher[name] * weight.square() / 2 for name, weight in weights_of(model).items()}


def prune(model: nn.Module, saliency: Tensors, share: float) -> nn.Module:
    """Return the model without the least salient share of its weights."""
    pruned = copy.deepcopy(model)
    values = torch.cat([value.reshape(-1) for value in saliency.values()])
    order = values.argsort()
    kept = torch.ones(len(values))
    kept[order[: round(share * len(values))]] = 0
    masks = kept.split([value.numel() for value in saliency.values()])
    with torch.no_grad():
        for name, mask in zip(saliency, masks, strict=True):
            parameter = pruned.get_parameter(name)
            parameter.mul_(mask.reshape(parameter.shape))
    return pruned


@torch.no_grad()
def accuracy(model: nn.Module, digits: common.Digits) -> float:
    """Return the share of right answers to the test digits."""
    answers = model(torch.from_numpy(digits.test_images)).argmax(-1).numpy()
    return float((answers == digits.test_labels).mean())


def run(client: fisherd.Client, seed: int, epochs: int, draws: int) -> dict[str, list[float]]:
    """Return, by method, the test accuracy at each share of REMOVED."""
    digits, model = common.load_digits(seed), make_model(seed)
    train(model, digits, epochs)
    generator = torch.Generator().manual_seed(seed)
    weights = weights_of(model)
    worth = {
        "magnitude": {name: weight.abs() for name, weight in weights.items()},
        "Fisher": saliency_by_fisher(model, client, digits, draws),
        "random": {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()},
    }
    curves: dict[str, list[float]] = {method: [] for method in METHODS}
    left: nn.Module = model
    for share in REMOVED:
        for method, saliency in worth.items():
            curves[method].append(accuracy(prune(model, saliency, share), digits))
        left = prune(left, saliency_by_fisher(left, client, digits, draws), share)
        curves["stepwise"].append(accuracy(left, digits))
    return curves


def report(means: dict[str, list[float]], seeds: int) -> None:
    """Print the table."""
    print(f"Test accuracy by the share of weights removed, mean of {seeds} seeds\n")
    rows = [
        [f"{100 * share:g} %", *(f"{100 * means[method][REMOVED.index(share)]:.1f} %" for method in METHODS)]
        for share in SHOWN
    ]
    common.print_table(["removed", *METHODS], rows)
    print()
    for method, values in means.items():
        most = max(share for share, value in zip(REMOVED, values, strict=True) if value >= values[0] - 0.01)
        print(f"{method}: {100 * most:g} % can be removed for at most one per cent of accuracy")


def picture(means: dict[str, list[float]], path: str) -> None:
    """Draw the curves."""
    curves = {
        method: [(100 * share, value) for share, value in zip(REMOVED, values, strict=True)]
        for method, values in means.items()
    }
    shares = {method: [(x, 100 * y) for x, y in curve] for method, curve in curves.items()}
    panels = [
        common.Panel("test accuracy (%)", "weights removed (%)", shares),
        common.Panel("the same, log of the rest", "weights removed (%)", curves, "accuracy"),
    ]
    common.write_curves_svg(path, panels)
    print(f"\nThe curves are in {path}")


def main() -> None:
    """Train, prune and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1 seed of 3 epochs in place of 5 of 20")
    parser.add_argument("--server", help="a fisherd that runs; without it, one is started")
    parser.add_argument("--out", default="pruning.svg", help="the picture")
    options = parser.parse_args()
    seeds, epochs, draws = (1, 3, 1) if options.quick else (5, 20, 4)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        target = options.server or stack.enter_context(fisherd.Server()).target
        client = stack.enter_context(fisherd.Client(target))
        runs = [run(client, seed, epochs, draws) for seed in range(seeds)]
    means = {method: [float(value) for value in np.mean([one[method] for one in runs], 0)] for method in METHODS}
    report(means, seeds)
    picture(means, options.out)


if __name__ == "__main__":
    main()

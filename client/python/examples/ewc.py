"""Elastic weight consolidation, in PyTorch: learn the digits 0-4, then 5-9, and keep the first by the Fisher.

The network answers "which of the task's five digits", 0 to 4 for either task, so the second task overwrites the first
unless something holds it. What holds it is a spring on every parameter, ½·strength·F·(θ − θ₁)², whose stiffness F is

    nothing       plain fine-tuning
    mistake       the squared gradient of the batch mean, which is often taken for the Fisher
    exact Fisher  the mean over examples of squared gradients, labels drawn from the model's prediction: fisherd's

The strengths tried are the same powers of ten; reported is each method's best by the mean training accuracy of both
tasks, and as a picture every strength's test accuracies. The mistake is about the Fisher divided by the batch's size,
plus noise: a larger strength makes up for most of it here, but then the right strength depends on the batch.

    python ewc.py [--quick] [--server HOST:PORT] [--out FILE.svg]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import common
import fisherd
import fisherd.torch

WIDTHS = (64, 64, 5)
BATCH = 32
RATE = 0.1
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
METHODS = ("fine-tuning", "mistake", "exact Fisher")

Task = tuple[torch.Tensor, torch.Tensor]  # images [N, 64] and labels [N], 0 to 4
Tensors = dict[str, torch.Tensor]  # by the parameters' names


@dataclasses.dataclass
class Outcome:
    """Shares of right answers after the second task: of the first and of the second one."""

    strength: float
    train: tuple[float, float]
    test: tuple[float, float]


def make_tasks(digits: common.Digits, *, test: bool) -> tuple[Task, Task]:
    """Return the digits 0-4, and 5-9."""
    images, labels = digits[2:] if test else digits[:2]
    first = labels < WIDTHS[-1]

    def task(rows: common.Array) -> Task:
        return torch.from_numpy(images[rows]), torch.from_numpy(labels[rows] % WIDTHS[-1]).long()

    return task(first), task(~first)


def make_model(seed: int) -> nn.Sequential:
    """Return a network with one layer between."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(*WIDTHS[:2]), nn.ReLU(), nn.Linear(*WIDTHS[1:]))


def batches(task: Task, seed: int) -> Iterator[Task]:
    """Return a task's batches in random order."""
    images, labels = task
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    for rows in order.split(BATCH):
        yield images[rows], labels[rows]


def train(model: nn.Module, task: Task, epochs: int, anchor: Tensors, stiffness: Tensors) -> bool:
    """Train by SGD, held by springs; False if it has diverged.

    The springs' part of a step is taken implicitly, θ ← (θ + rate·F·θ₁) / (1 + rate·F), and so stable for any strength.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for epoch in range(epochs):
        for images, labels in batches(task, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in stiffness:
                        pull = RATE * stiffness[name]
                        parameter.copy_((parameter + pull * anchor[name]) / (1 + pull))
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


# ---- Two stiffnesses


def exact_fisher(model: nn.Module, client: fisherd.Client, task: Task) -> Tensors:
    """Return the Fisher's diagonal over a task, in one pass."""
    generator = torch.Generator().manual_seed(0)
    options = {"labels": "sampled", "decay": 1.0, "weight": 1.0, "reset": True}
    with fisherd.torch.attach(model, client, prefix="ewc/", **options) as fisher:  # type: ignore[arg-type]
        for images, _ in batches(task, 0):
            fisher.sample(model(images), generator=generator)
            fisher.step()
        return fisher.read()


def mistaken_fisher(model: nn.Module, task: Task) -> Tensors:
    """Return the mean over batches of the square of the batch-mean gradient."""
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    count = 0
    for images, labels in batches(task, 0):
        loss = functional.cross_entropy(model(images), labels)
        for square, grad in zip(total.values(), torch.autograd.grad(loss, tuple(model.parameters())), strict=True):
            square.add_(grad.square())
        count += 1
    return {name: square / count for name, square in total.items()}


# ---- The experiment


@torch.no_grad()
def accuracy(model: nn.Module, task: Task) -> float:
    """Return the share of right answers."""
    images, labels = task
    return (model(images).argmax(-1) == labels).float().mean().item()


def run(client: fisherd.Client, seed: int, epochs: int) -> tuple[float, dict[str, list[Outcome]]]:
    """Return the first task's test accuracy before the second, and what each method and strength made of it."""
    digits = common.load_digits(seed)
    trained, tested = make_tasks(digits, test=False), make_tasks(digits, test=True)
    first = make_model(seed)
    train(first, trained[0], epochs, {}, {})
    anchor = {name: parameter.detach().clone() for name, parameter in first.named_parameters()}
    springs = {"mistake": mistaken_fisher(first, trained[0]), "exact Fisher": exact_fisher(first, client, trained[0])}
    outcomes: dict[str, list[Outcome]] = {}
    for method in METHODS:
        for strength in STRENGTHS if method in springs else (0.0,):
            model = make_model(seed)
            model.load_state_dict(anchor)
            stiffness = {name: strength * value for name, value in springs.get(method, {}).items()}
            if train(model, trained[1], epochs, anchor, stiffness):
                shares = [tuple(accuracy(model, task) for task in tasks) for tasks in (trained, tested)]
                outcomes.setdefault(method, []).append(Outcome(strength, *shares))  # type: ignore[arg-type]
    return accuracy(first, tested[0]), outcomes


def average(runs: list[dict[str, list[Outcome]]]) -> dict[str, list[Outcome]]:
    """Return the means over seeds."""
    means: dict[str, list[Outcome]] = {}
    for method in METHODS:
        for same in zip(*(outcomes[method] for outcomes in runs), strict=True):
            train_mean = np.mean([outcome.train for outcome in same], 0)
            test_mean = np.mean([outcome.test for outcome in same], 0)
            means.setdefault(method, []).append(Outcome(same[0].strength, tuple(train_mean), tuple(test_mean)))
    return means


def report(before: float, means: dict[str, list[Outcome]], seeds: int) -> None:
    """Print the table."""
    print(f"Test accuracy of the digits 0-4 before the second task: {100 * before:.1f} %, mean of {seeds} seeds\n")
    print("After it, at each method's best strength by training accuracy\n")
    best = {method: max(outcomes, key=lambda one: sum(one.train)) for method, outcomes in means.items()}
    exact = best["exact Fisher"].strength
    same = next((outcome for outcome in means["mistake"] if outcome.strength == exact), None)
    if same is not None and same is not best["mistake"]:
        best["mistake, at the exact one's"] = same
    rows = []
    for method, outcome in best.items():
        shares = [f"{100 * share:.1f} %" for share in (*outcome.test, sum(outcome.test) / 2)]
        rows.append([method, "-" if outcome.strength == 0 else f"{outcome.strength:g}", *shares])
    common.print_table(["", "strength", "digits 0-4", "digits 5-9", "mean"], rows)


def picture(means: dict[str, list[Outcome]], path: str) -> None:
    """Draw both tasks' accuracies by strength."""
    plain = means["fine-tuning"][0]
    panels = []
    for task, title in enumerate(("digits 0-4, learned first: kept (%)", "digits 5-9, learned second (%)")):
        curves = {
            method: [(float(np.log10(outcome.strength)), 100 * outcome.test[task]) for outcome in outcomes]
            for method, outcomes in means.items()
            if method != "fine-tuning"
        }
        ends = (float(np.log10(STRENGTHS[0])), float(np.log10(STRENGTHS[-1])))
        curves = {"fine-tuning": [(end, 100 * plain.test[task]) for end in ends], **curves}
        panels.append(common.Panel(title, "strength, power of ten", curves))
    common.write_curves_svg(path, panels)
    print(f"\nEvery strength is in {path}")


def main() -> None:
    """Run the experiment with some seeds, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1 seed of 5 epochs in place of 5 of 20")
    parser.add_argument("--server", help="a fisherd that runs; without it, one is started")
    parser.add_argument("--out", default="ewc.svg", help="the picture")
    options = parser.parse_args()
    seeds, epochs = (1, 5) if options.quick else (5, 20)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        target = options.server or stack.enter_context(fisherd.Server()).target
        client = stack.enter_context(fisherd.Client(target))
        results = [run(client, seed, epochs) for seed in range(seeds)]
    means = average([outcomes for _, outcomes in results])
    report(float(np.mean([before for before, _ in results])), means, seeds)
    picture(means, options.out)


if __name__ == "__main__":
    main()

"""Natural gradient on handwritten digits, in JAX: five optimizers, two of them with the Fisher that fisherd serves.

Run it with a fisherd binary on the PATH, or in a checkout after ./dev build:

    python natural_gradient_jax.py [--quick] [--server HOST:PORT] [--out FILE.svg]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import common
import fisherd
import fisherd.jax

WIDTHS = (64, 128, 64, 10)
LAYERS = ("layer0", "layer1", "layer2")
BATCH = 128
FISHER_DECAY = 0.95

Parameters = dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer; with an exponent, of gradients that are multiplied by (Fisher + damping)^exponent first."""

    name: str
    optimizer: optax.GradientTransformation
    exponent: float | None = None
    damping: float = 0.0


# Settings as the C++ demo's, which were tuned by twelve trials for each method; SGD and Adam are slower here, because
# from these initial parameters theirs go astray on the way.
METHODS = (
    Method("SGD", optax.sgd(0.5)),
    Method("momentum", optax.sgd(0.5, momentum=0.9)),
    Method("Adam", optax.adam(0.01)),
    Method("fisherd^-1", optax.sgd(0.0006, momentum=0.9), -1, 0.0003),
    Method("fisherd^-1/2", optax.sgd(0.03, momentum=0.9), -0.5, 0.001),
)


# ---- The model: all that fisherd wants of it is dense() in place of x @ w + b


def initial_parameters(seed: int) -> Parameters:
    """Return weights of variance 1 / inputs, and biases 0."""
    keys = jax.random.split(jax.random.key(seed), len(LAYERS))
    sizes = zip(LAYERS, keys, WIDTHS, WIDTHS[1:], strict=False)
    return {
        name: {"w": jax.random.normal(key, (rows, columns)) / rows**0.5, "b": jnp.zeros(columns)}
        for name, key, rows, columns in sizes
    }


def model(parameters: Parameters, images: jax.Array) -> jax.Array:
    """Return logits, [N, 10], of images [N, 64]."""
    x = images
    for name in LAYERS:
        x = fisherd.jax.dense(x, **parameters[name], name=name)
        x = jnp.tanh(x) if name != LAYERS[-1] else x
    return x


def loss(parameters: Parameters, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(model(parameters, images), labels).mean()


def sampled_loss(parameters: Parameters, images: jax.Array, key: jax.Array) -> jax.Array:
    """Return the loss for labels that the model itself gives: its gradients' squares are the Fisher."""
    logits = model(parameters, images)
    labels = fisherd.jax.sample_labels(key, logits)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# ---- Training


def train(method: Method, client: fisherd.Client, digits: common.Digits, epochs: int) -> common.Run:
    """Train with one method, and measure."""
    parameters = initial_parameters(seed=1)
    with contextlib.ExitStack() as stack:
        optimizer, fisher = method.optimizer, None
        if method.exponent is not None:
            prefix = f"digits/{method.name.replace('/', '|')}/"
            fisher = stack.enter_context(
                fisherd.jax.attach(client, prefix=prefix, loss="mean", decay=FISHER_DECAY, reset=True)
            )
            preconditioned = fisherd.jax.precondition(fisher, method.exponent, method.damping)
            optimizer = optax.chain(preconditioned, method.optimizer)

        @jax.jit
        def step(
            parameters: Parameters, state: Any, key: jax.Array, images: Any, labels: Any
        ) -> tuple[Parameters, Any]:
            grads = jax.grad(loss)(parameters, images, labels)
            if fisher is not None:
                fisher.update(fisherd.jax.capture(sampled_loss)(parameters, images, key))
            changes, state = optimizer.update(grads, state, parameters)
            return optax.apply_updates(parameters, changes), state

        state = optimizer.init(parameters)
        run = common.Run(method.name)
        note(run, parameters, digits)
        seconds = []
        for epoch in range(epochs):
            for batch in batches(digits, epoch):
                begin = time.perf_counter()
                parameters, state = jax.block_until_ready(step(parameters, state, *batch))
                seconds.append(time.perf_counter() - begin)
            note(run, parameters, digits)
        run.seconds_per_step = float(np.median(seconds))
        return run


def batches(digits: common.Digits, epoch: int) -> Iterator[tuple[jax.Array, Any, Any]]:
    """Return an epoch's batches, and a key for each: the same for every method."""
    order = np.random.default_rng(epoch).permutation(len(digits.train_labels))
    for number, rows in enumerate(order.reshape(-1, BATCH)):
        key = jax.random.fold_in(jax.random.key(epoch), number)
        yield key, digits.train_images[rows], digits.train_labels[rows]


def note(run: common.Run, parameters: Parameters, digits: common.Digits) -> None:
    """Measure the training loss and the test accuracy."""
    run.losses.append(float(loss(parameters, digits.train_images, digits.train_labels)))
    answers = model(parameters, digits.test_images).argmax(-1)
    run.accuracies.append(float((answers == digits.test_labels).mean()))


# ---- Is the served Fisher right?


def check(client: fisherd.Client, digits: common.Digits) -> list[list[str]]:
    """Compare one batch's factors with per-example gradients in 64 bits; return a row for each layer."""
    parameters, images, labels = initial_parameters(seed=1), digits.train_images[:BATCH], digits.train_labels[:BATCH]
    with fisherd.jax.attach(client, prefix="digits/check/", loss="mean", reset=True) as fisher:
        fisher.update(jax.jit(fisherd.jax.capture(loss))(parameters, images, labels))
        served = fisher.read()
    with jax.enable_x64(True):  # noqa: FBT003 - that is how it is called
        wide = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, jnp.float64), parameters)
        examples = jnp.asarray(images, jnp.float64)[:, None], labels[:, None]
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(wide, *examples)
        rows = []
        for name in LAYERS:
            right = (each[name]["w"] ** 2).mean(0)
            off = np.abs(served[name][0] - right).max() / right.max()
            mistake = (each[name]["w"].mean(0) ** 2).sum()
            rows.append([name, f"{off:.1e}", f"{float(right.sum() / mistake):.0f} times too small"])
    return rows


# ---- What is printed


def main() -> None:
    """Train, check and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="3 epochs in place of 30")
    parser.add_argument("--server", help="a fisherd that runs; without it, one is started")
    parser.add_argument("--out", default="natural_gradient_jax.svg", help="the picture")
    options = parser.parse_args()
    digits = common.load_digits()
    with contextlib.ExitStack() as stack:
        target = options.server or stack.enter_context(fisherd.Server()).target
        client = stack.enter_context(fisherd.Client(target))
        print(f"64-128-64-10, tanh, {len(digits.train_labels)} digits to train and {len(digits.test_labels)} to test\n")
        runs = [train(method, client, digits, 3 if options.quick else 30) for method in METHODS]
        common.print_runs(runs)
        print("\nIs the served Fisher right? One batch, against per-example gradients in 64 bits\n")
        headings = ["", "largest difference / largest entry", "trace of the squared batch-mean gradient"]
        common.print_table(headings, check(client, digits))
    common.write_runs_svg(options.out, runs)


if __name__ == "__main__":
    main()

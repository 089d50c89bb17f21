"""attach(): from a client to the factors of a model."""

from __future__ import annotations

from typing import Any, get_args

import jax

from fisherd.background import WhenFull
from fisherd.client import Client
from fisherd.jax.fisher import Fisher, FisherOptions, Loss, Rank3
from fisherd.update_stream import UpdateStream


def attach(
    client: Client,
    *,
    prefix: str = "model/",
    loss: Loss = "mean",
    rank3: Rank3 | None = None,
    every: int = 1,
    decay: float = 0.95,
    weight: float | None = None,
    queue_size: int = 2,
    when_full: WhenFull = "wait",
    reset: bool = False,
    towers: int | None = None,
    tower: int | None = None,
    updates: UpdateStream | None = None,
    timeout: float = 600.0,
    **factor: Any,
) -> Fisher:
    """Return what feeds and reads the factors of a model's layers; they are made at the first update.

    A layer's factor is [I, O] (+ 1 row, if it has a bias) and named prefix + the layer's name.

    prefix: the beginning of the factors' names; levels end with "/".
    loss: how the loss that is captured sums over examples (or tokens). "mean": gradients are multiplied by the number
        of rows, or by update()'s terms, for the Fisher is the mean of squares of each one's own gradient. "sum": they
        are as they are.
    rank3: what inputs of more than two axes, [B, T, I], are. "tokens": every row is an example of its own. None: such a
        layer is a ValueError.
    every: of every k updates, the first is captured.
    decay, weight: of the moving average, as UpdateWriter.write(). decay=1 with weight=1: the plain mean of all steps.
    queue_size: updates that may wait or be under way; they hold their captures' memory meanwhile.
    when_full: "wait": update() waits for room. "skip": it is left out and counted; for one tower only.
    reset: begin anew, if the factors are there already; else their average goes on. For one tower only.
    towers, tower: how many trainers there are, and which this is; jax.process_count() and jax.process_index() if None.
    updates: a stream to use, for a second model of one client; it is then not closed. A client has one stream: if
        None, a new one is opened, which closes an older one.
    timeout: seconds that update() waits for room, and flush(), multiply() and read() for the server.
    factor: more of Client.create_factor(): dtype, tower_weighting, gather_policy, …

    What is not finite, or whose squares overflow, as under a loss scale that is too high, is left out and counted;
    with several towers, which cannot agree on that, it is an error.

    ValueError: an option that is none.
    """
    for name, value, known in (
        ("loss", loss, get_args(Loss)),
        ("rank3", rank3, (None, *get_args(Rank3))),
        ("when_full", when_full, get_args(WhenFull)),
    ):
        if value not in known:
            message = f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}"
            raise ValueError(message)
    if every < 1:
        message = f"every is {every}; expected at least 1"
        raise ValueError(message)
    count = jax.process_count() if towers is None else towers
    own = jax.process_index() if tower is None else tower
    if count > 1 and (when_full == "skip" or reset):
        message = f"with {count} towers, which cannot agree on it, there is no when_full='skip' and no reset"
        raise ValueError(message)
    options = FisherOptions(
        loss, rank3, prefix, decay, weight, every, queue_size, when_full, reset, timeout, own, count, factor
    )
    return Fisher(client, updates, options)

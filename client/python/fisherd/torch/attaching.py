"""attach(): from a model to its factors on the server, and the hooks that feed them."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import distributed, nn

from fisherd import errors
from fisherd.background import WhenFull
from fisherd.client import Client
from fisherd.torch import sender, towers
from fisherd.torch.capture import Labels
from fisherd.torch.fisher import CaptureOptions, Fisher, Loss
from fisherd.torch.layers import Choice, find_layers
from fisherd.torch.rows import Rank3
from fisherd.torch.sender import Agree, Sender, SendOptions
from fisherd.update_stream import UpdateStream


def attach(
    model: nn.Module,
    client: Client,
    *,
    prefix: str = "model/",
    layers: Choice | None = None,
    loss: Loss = "mean",
    rank3: Rank3 | None = None,
    labels: Labels = "empirical",
    every: int = 1,
    decay: float = 0.95,
    weight: float | None = None,
    scaler: Any = None,
    capture_in_eval: bool = False,
    queue_size: int = 2,
    when_full: WhenFull = "wait",
    reset: bool = False,
    towers: int | None = None,
    tower: int | None = None,
    updates: UpdateStream | None = None,
    timeout: float = 30.0,
    **factor: Any,
) -> Fisher:
    """Make a factor for each Linear layer of a model, and feed it what the layer sees while the model trains.

    A layer's factor is [I, O] (+ 1 row, if it has a bias) and named prefix + its name in the model; of a
    DistributedDataParallel or a compiled model, in the model within. Captured are calls with gradients enabled, of
    modules in training mode, whose weight requires a gradient. Under torch.distributed every rank calls attach() with
    the same arguments and is a tower, and every rank calls step() equally often.

    prefix: the beginning of the factors' names; levels end with "/".
    layers: names of layers, or a function of name and module; all that are trained if None.
    loss: how the loss sums over examples. "mean": each call's gradients are multiplied by its number N of rows (with
        several ranks, their own N). "sum": they are as they are. A number, or a function asked at each step: what the
        loss was divided by, where that is not N: with padding, or k·N where gradients of k batches are accumulated.
    rank3: inputs of more than two axes, [N, …, I], and layers called several times for one loss (two calls within one
        reentrant checkpoint each are taken for two losses). "tokens": every row is an example of its own.
        "sum_then_square": an example's rows belong together: C = Σ_n (Σ_t a_nt g_ntᵀ)² / N, computed in the sending
        thread. None: such a layer is a ValueError.
    labels: "empirical": the gradients of loss.backward(). "sampled": those of Fisher.sample(), labels drawn from the
        model's own prediction, for which the covariance is the Fisher.
    every: capture on every k-th step only, beginning with the first.
    decay, weight: of the moving average, as UpdateWriter.write(). decay=1 with weight=1: the plain mean of all steps.
    scaler: the GradScaler, if there is one (or anything with get_scale()): its scale is taken out again.
    capture_in_eval: capture modules in eval mode, too.
    queue_size: steps that may wait for the sending thread, which holds their inputs and gradients meanwhile.
    when_full: "wait": step() waits for room. "skip": the step is left out, by all ranks, and counted.
    reset: begin anew, if the factors are there already; else their average goes on.
    towers, tower: how many trainers there are, and which this is, if not by torch.distributed.
    updates: a stream to use, for a second model of one client; it is then not closed. A client has one stream: if
        None, a new one is opened, which closes an older one.
    timeout: seconds to wait for the server, here.
    factor: more of Client.create_factor(): dtype, tower_weighting, gather_policy, …

    A batch that is not finite, or whose squares overflow, as under a loss scale that is too high, is left out with its
    step, by all ranks, and counted; training goes on. The ranks agree on what is left out by one reduction over a gloo
    group of their own, in the sending thread. Towers without torch.distributed cannot agree: for them a batch that is
    not finite is an error, and when_full must be "wait".

    ValueError: an option that is none, no layer to capture. AlreadyExistsError (SPEC_DIFFERS), FailedPreconditionError
    (TOWER_CLAIMED), and what Client.create_factor() and UpdateStream.open() raise else.
    """
    _check("loss", loss, ("mean", "sum")) if isinstance(loss, str) else None
    _check("rank3", rank3, (None, *get_args(Rank3)))
    _check("labels", labels, get_args(Labels))
    _check("when_full", when_full, get_args(WhenFull))
    for name, count in (("every", every), ("queue_size", queue_size)):
        if count < 1:
            message = f"{name} is {count}; expected at least 1"
            raise ValueError(message)
    chosen = find_layers(_inner(model), prefix, layers)
    count, own, agree = _place(towers, tower, when_full)
    for layer in chosen:
        client.create_factor(layer.factor, layer.kind, towers=count, **factor)
        if reset and own == 0:
            client.reset(layer.factor)
    agree([sender.WHOLE])  # nobody opens before the factors are there, and new
    stream = updates if updates is not None else client.open_updates()
    writers = [stream.open(layer.factor, own, timeout=timeout) for layer in chosen]
    dtype = torch.float64 if factor.get("dtype") == "float64" else torch.float32
    sending = Sender(chosen, writers, agree, SendOptions(queue_size, when_full, decay, weight, dtype))
    close = stream.close if updates is None else lambda _: None
    return Fisher(client, chosen, sending, close, CaptureOptions(loss, rank3, labels, every, scaler, capture_in_eval))


def _place(count: int | None, tower: int | None, when_full: WhenFull) -> tuple[int, int, Agree]:
    """Return how many towers there are, which this is, and how they agree."""
    if count is None and towers.is_distributed():
        return distributed.get_world_size(), distributed.get_rank(), towers.make_agree()
    if count is None or count == 1:
        return 1, 0, sender.alone
    if tower is None or when_full == "skip":
        message = "several towers without torch.distributed: tower says which this is, and when_full must be 'wait'"
        raise ValueError(message)
    return count, tower, _apart


def _apart(mine: list[int]) -> list[int]:
    if sender.SPOILT in mine:
        message = "a batch is not finite, and the towers have no torch.distributed to agree to leave its step out"
        raise errors.InvalidArgumentError(message, reason="NON_FINITE_INPUT")
    return mine


def _inner(model: nn.Module) -> nn.Module:
    """Return the model within wrappers, those of torch.compile among them."""
    inner: Any = model
    while True:
        if isinstance(inner, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod  # noqa: SLF001 - there is no public name
        else:
            return inner


def _check(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        message = f"{name} is {value!r}; expected one of {', '.join(repr(one) for one in known)}"
        raise ValueError(message)

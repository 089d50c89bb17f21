"""The factors of a model's layers, fed by captures in the background."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import jax
import numpy as np
from jax.experimental import io_callback

from fisherd.background import Background, WhenFull
from fisherd.client import Client
from fisherd.jax import host
from fisherd.jax.capture import Captures
from fisherd.linear_operator import Array
from fisherd.transfer import MultiplyItem
from fisherd.types import FullyConnectedDiagonal, Layout, MinVersion
from fisherd.update_stream import UpdateStream, UpdateWriter
from fisherd.v1 import types_pb2

Loss = Literal["mean", "sum"]
Rank3 = Literal["tokens"]
Gradients = Mapping[str, tuple[Any, Any]]  # by layer: of its weight, and of its bias or None

_MATRIX_AXES = 2


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What a layer is, as its captures tell."""

    kind: FullyConnectedDiagonal
    layout: Layout


@dataclasses.dataclass(frozen=True)
class FisherStats:
    """What became of the calls of Fisher.update().

    written: steps that were streamed. skipped: left out by `every`. dropped: left out because the queue was full.
    """

    written: int = 0
    skipped: int = 0
    dropped: int = 0


@dataclasses.dataclass(frozen=True)
class _Step:
    """One update on its way; tensors in host memory, or JAX's, which do not change."""

    captures: Captures
    scale: float
    row_weights: Any


class Fisher:
    """The factors of a model's layers on the server, of which this process is one tower; made by attach().

    Thread-safe. A context manager that closes it.
    """

    def __init__(
        self,
        client: Client,
        updates: UpdateStream | None,
        *,
        loss: Loss,
        rank3: Rank3 | None,
        prefix: str,
        decay: float,
        every: int,
        queue: int,
        when_full: WhenFull,
        timeout: float,
        tower: int,
        create: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._own_updates = client.open_updates() if updates is None else None
        self._updates = self._own_updates or updates
        self._loss = loss
        self._rank3 = rank3
        self._prefix = prefix
        self._decay = decay
        self._every = every
        self._when_full = when_full
        self._timeout = timeout
        self._tower = tower
        self._create = create
        self._lock = threading.Lock()
        self._kinds: dict[str, LayerKind] = {}
        self._writers: dict[str, UpdateWriter] = {}
        self._newest: dict[str, MinVersion] = {}
        self._calls = 0
        self._stats = FisherStats()
        self._background: Background[_Step] = Background(self._write, queue, "fisherd captures")

    # ---- Feeding

    def update(self, captures: Captures, *, terms: Any = None, loss_scale: Any = 1.0, row_weights: Any = None) -> None:
        """Hand what the layers saw over, to be streamed in the background as each factor's next step.

        The first call makes the factors and waits for the server. Under jax.jit it is done in the program's order, once
        per run, by jax.experimental.io_callback; not under vmap, nor with several devices: call it outside then.

        captures: of value_grad_and_capture() or capture().
        terms: with loss="mean", how many terms the mean is over; if None, the layers' rows, which must then be as many
            in each. To be given where layers differ, as with tokens up to a pooling and examples after it.
        loss_scale: what the loss was multiplied by, against underflow in half precision.
        row_weights: [N], or [B, T] for tokens, 0 or above: for padding. Their sum then stands for N; with
            loss="mean" a loss that is their weighted mean also wants terms, their sum.

        ValueError: the captures cannot be used, with what to do. DeadlineExceededError: the queue had no room within
        attach's timeout. And what an earlier update was refused for, see UpdateWriter.write().
        """
        self._learn(captures)
        payload = {"captures": captures, "terms": terms, "loss_scale": loss_scale, "row_weights": row_weights}
        if host.is_traced(payload):
            io_callback(lambda given: self._update(host.copies(given)), None, payload, ordered=True)
        else:
            self._update(payload)

    @property
    def due(self) -> bool:
        """Whether the next update() will be streamed, by `every`. To choose a training step without capture if not."""
        return self._calls % self._every == 0

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every update so far has been counted, by all towers; `timeout` seconds, or attach's.

        Errors as in update(), and UpdateWriter.wait()'s.
        """
        limit = self._timeout if timeout is None else timeout
        self._background.drain(limit)
        for name, newest in dict(self._newest).items():
            self._writers[name].wait(newest.step, limit)

    def stats(self) -> FisherStats:
        """Return what became of the updates so far."""
        with self._lock:
            return self._stats

    # ---- Reading

    @property
    def layers(self) -> Mapping[str, LayerKind]:
        """The layers that captures have shown, by name."""
        return self._kinds

    def factor(self, layer: str) -> str:
        """Return the name of a layer's factor on the server, for Client.read() and the like."""
        return self._prefix + layer

    def multiply(self, operator: types_pb2.Operator, gradients: Gradients, *, fresh: bool = True) -> Gradients:
        """Multiply an operator of each layer's factor by the layer's gradients, on the server, in one call.

        gradients: by layer, (weight, bias): weight in the layer's layout, bias [O], or None for a layer without one.
        fresh: wait for all updates so far, and use them; else use what there is.

        Returns writable NumPy arrays in the same shapes. RuntimeError if nothing has been captured. Errors as in
        Client.multiply().
        """
        if fresh:
            self._background.drain(self._timeout)
        items = [
            MultiplyItem(
                self.factor(name),
                operator,
                host.array(weight),
                None if bias is None else host.array(bias),
                self._kinds[name].layout,
                self._newest.get(name) if fresh else None,
            )
            for name, (weight, bias) in gradients.items()
        ]
        products = self._client.multiply_all(items, timeout=self._timeout)
        return {name: (product.weight, product.bias) for name, product in zip(gradients, products, strict=True)}

    # ---- The end

    def close(self, timeout: float = 5.0) -> None:
        """Stream what is still queued, within `timeout` seconds, and end. Raises what an update was refused for."""
        self._background.close(timeout)
        if self._own_updates is not None:
            self._own_updates.close(timeout)
            self._background.join(timeout)
        if (error := self._background.take_error()) is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise

    # ---- In the caller's thread

    def _learn(self, captures: Captures) -> None:
        """Note which layers there are; under jit this is known before anything has run."""
        if not captures:
            message = "no captures"
            raise ValueError(message)
        for name, capture in captures.items():
            if capture.inputs.ndim > _MATRIX_AXES and self._rank3 is None:
                message = (
                    f'layer "{name}" has inputs of shape {list(capture.inputs.shape)}; attach(…, rank3="tokens") makes '
                    "each token a row of its own"
                )
                raise ValueError(message)
            sizes = capture.inputs.shape[-1], capture.outputs_grads.shape[-1]
            kind = LayerKind(FullyConnectedDiagonal(*sizes, capture.has_bias), capture.layout)
            known = self._kinds.setdefault(name, kind)
            if known != kind:
                message = f'layer "{name}" is {kind}, but was {known} before'
                raise ValueError(message)

    def _update(self, payload: dict[str, Any]) -> None:
        with self._lock:
            due = self.due
            self._calls += 1
            if not due:
                self._stats = dataclasses.replace(self._stats, skipped=self._stats.skipped + 1)
                return
        captures: Captures = payload["captures"]
        step = _Step(captures, self._scale(payload), payload["row_weights"])
        self._open(captures)
        host.begin_copies(captures)
        if not self._background.put(step, when_full=self._when_full, timeout=self._timeout):
            with self._lock:
                self._stats = dataclasses.replace(self._stats, dropped=self._stats.dropped + 1)

    def _scale(self, payload: dict[str, Any]) -> float:
        """Return what makes the gradients those of each row's own loss."""
        scale = 1 / float(payload["loss_scale"])
        if self._loss == "sum":
            return scale
        if payload["terms"] is not None:
            return scale * float(payload["terms"])
        rows = {name: int(np.prod(each.inputs.shape[:-1])) for name, each in payload["captures"].items()}
        if len(set(rows.values())) > 1:
            message = f"the layers differ in their rows, {rows}; say how many terms the loss is the mean of: terms=…"
            raise ValueError(message)
        return scale * next(iter(rows.values()))

    def _open(self, captures: Captures) -> None:
        assert self._updates is not None  # noqa: S101
        with self._lock:
            for name in captures.keys() - self._writers.keys():
                self._client.create_factor(self.factor(name), self._kinds[name].kind, **self._create)
                self._writers[name] = self._updates.open(self.factor(name), self._tower)

    # ---- In the thread of the queue

    def _write(self, step: _Step) -> None:
        for name in sorted(step.captures):  # each tower in the same order
            capture = step.captures[name]
            runs = float(host.array(capture.runs))
            if runs != 1:
                message = (
                    f'layer "{name}" ran {runs:g} times in one pass, or was not reached by the gradient (0); a capture '
                    "wants one run over the whole batch, not under vmap or scan"
                )
                raise ValueError(message)
            writer = self._writers[name]
            number = writer.write(
                _rows(capture.inputs),
                _rows(capture.outputs_grads),
                decay=self._decay,
                gradient_scale=step.scale,
                row_weights=None if step.row_weights is None else host.array(step.row_weights).reshape(-1),
            )
            self._newest[name] = writer.min_version(number)
        with self._lock:
            self._stats = dataclasses.replace(self._stats, written=self._stats.written + 1)


def attach(
    client: Client,
    *,
    loss: Loss,
    rank3: Rank3 | None = None,
    prefix: str = "",
    decay: float = 0.95,
    every: int = 1,
    queue: int = 2,
    when_full: WhenFull = "wait",
    timeout: float = 600.0,
    updates: UpdateStream | None = None,
    tower: int | None = None,
    towers: int | None = None,
    **create: Any,
) -> Fisher:
    """Return what feeds and reads the factors of a model's layers; they are made at the first update.

    loss: "mean" if the loss that is captured is the mean of the examples' (or tokens') own losses, "sum" if their sum.
        The Fisher is the mean of squares of each one's own gradient, so a mean's gradients are scaled back first.
    rank3: what inputs [B, T, I] are: "tokens", B·T rows with a loss each; None refuses them.
    prefix: of the factors' names, before the layers'.
    decay: of the moving average, per step that is streamed.
    every: of so many updates, the first is streamed.
    queue: updates that may wait or be under way; they keep their captures' memory.
    when_full: "wait" for room, or "drop" the update (with several towers, steps then no longer stand for the same
        training step in each).
    timeout: seconds that update() waits for room, and multiply() for its answer.
    updates: the process's stream of updates, if it has one: a client has one at a time. Else one is opened.
    tower, towers: this replica and how many there are; jax.process_index() and jax.process_count() if None.
    create: Client.create_factor()'s: dtype, tower_weighting, zero_debias, gather_timeout, …
    """
    for name, value, known in (("loss", loss, ("mean", "sum")), ("rank3", rank3, ("tokens", None))):
        if value not in known:
            message = f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}"
            raise ValueError(message)
    if every < 1:
        message = f"every is {every}; expected at least 1"
        raise ValueError(message)
    return Fisher(
        client,
        updates,
        loss=loss,
        rank3=rank3,
        prefix=prefix,
        decay=decay,
        every=every,
        queue=queue,
        when_full=when_full,
        timeout=timeout,
        tower=jax.process_index() if tower is None else tower,
        create={"towers": jax.process_count() if towers is None else towers, **create},
    )


def _rows(tensor: Any) -> Array:
    """Return a tensor's rows: all axes but the last as one."""
    array = host.array(tensor)
    return array.reshape(-1, array.shape[-1])

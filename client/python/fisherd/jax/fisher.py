"""The factors of a model's layers, fed by captures in the background."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from jax.experimental import io_callback

from fisherd.background import Background, WhenFull
from fisherd.client import Client
from fisherd.errors import InvalidArgumentError
from fisherd.jax import host
from fisherd.jax.capture import Captures
from fisherd.linear_operator import Array
from fisherd.operators import covariance
from fisherd.transfer import MultiplyItem
from fisherd.types import FullyConnectedDiagonal, Layout, MinVersion
from fisherd.update_stream import UpdateStream, UpdateWriter
from fisherd.v1 import types_pb2

Loss = Literal["mean", "sum"]
Rank3 = Literal["tokens"]
Gradients = Mapping[str, tuple[Any, Any]]  # by layer: of its weight, and of its bias or None

_MATRIX_AXES = 2
_LARGEST = 3.4e38  # float32


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What a layer is, as its captures tell."""

    kind: FullyConnectedDiagonal
    layout: Layout


@dataclasses.dataclass(frozen=True)
class CaptureStats:
    """What has become of the calls of Fisher.update().

    updates: how many there were.
    captured: of these, one of each `every`; the rest are fields of it.
    sent: written to the server.
    skipped_full: left out because the queue was full (when_full="skip").
    skipped_non_finite: left out because something was not finite, or its squares would not be.
    """

    updates: int = 0
    captured: int = 0
    sent: int = 0
    skipped_full: int = 0
    skipped_non_finite: int = 0


@dataclasses.dataclass(frozen=True)
class FisherOptions:
    """See attach()."""

    loss: Loss
    rank3: Rank3 | None
    prefix: str
    decay: float
    weight: float | None
    every: int
    queue_size: int
    when_full: WhenFull
    reset: bool
    timeout: float
    tower: int
    towers: int
    create: Mapping[str, Any]


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

    def __init__(self, client: Client, updates: UpdateStream | None, options: FisherOptions) -> None:
        self._client = client
        self._own_updates = client.open_updates() if updates is None else None
        self._updates: Any = self._own_updates or updates
        self._options = options
        self._lock = threading.Lock()
        self._kinds: dict[str, LayerKind] = {}
        self._writers: dict[str, UpdateWriter] = {}
        self._newest: dict[str, MinVersion] = {}
        self._waited = False
        self._stats = CaptureStats()
        self._background: Background[_Step] = Background(self._write, options.queue_size, "fisherd captures")

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
            io_callback(lambda given: self._update(given, in_callback=True), None, payload, ordered=True)
        else:
            self._update(payload, in_callback=False)

    @property
    def due(self) -> bool:
        """Whether the next update() will be streamed, by `every`. To choose a training step without capture if not."""
        return self._stats.updates % self._options.every == 0

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every update so far has been counted, by all towers; `timeout` seconds, or attach's.

        Errors as in update(), and UpdateWriter.wait()'s.
        """
        limit = self._options.timeout if timeout is None else timeout
        self._background.drain(limit)
        for name, newest in dict(self._newest).items():
            self._writers[name].wait(newest.step, limit)

    def stats(self) -> CaptureStats:
        """Return what has become of the updates so far."""
        with self._lock:
            return self._stats

    # ---- Reading

    @property
    def layers(self) -> Mapping[str, LayerKind]:
        """The layers that captures have shown, by name."""
        return self._kinds

    def factor(self, layer: str) -> str:
        """Return the name of a layer's factor on the server, for Client.read() and the like."""
        return self._options.prefix + layer

    def multiply(self, operator: types_pb2.Operator, gradients: Gradients, *, fresh: bool = True) -> Gradients:
        """Multiply an operator of each layer's factor by the layer's gradients, on the server, in one call.

        gradients: by layer, (weight, bias): weight in the layer's layout, bias [O], or None for a layer without one.
        fresh: wait for all updates so far, and use them; else use what there is, and wait the first time alone.

        Returns writable NumPy arrays in the same shapes. Errors as in Client.multiply(), and an update's own.
        """
        newest = self._await_newest() if fresh or not self._waited else {}
        items = [
            MultiplyItem(
                self.factor(name),
                operator,
                host.array(weight),
                None if bias is None else host.array(bias),
                self._kinds[name].layout,
                newest.get(name),
            )
            for name, (weight, bias) in gradients.items()
        ]
        products = self._client.multiply_all(items, timeout=self._options.timeout)
        self._waited = True
        return {name: (product.weight, product.bias) for name, product in zip(gradients, products, strict=True)}

    def read(self, operator: types_pb2.Operator | None = None) -> dict[str, tuple[Array, Array | None]]:
        """Read an operator of every layer, (weight, bias) by the layers' names; the covariance, if None.

        That is the diagonal of the Fisher, with all updates so far. Shapes as of multiply()'s gradients; NumPy arrays.
        Errors as in Client.read(), and what an update failed with.
        """
        newest = self._await_newest()
        read = {}
        for name in newest:
            reading = self._client.read(
                self.factor(name),
                operator if operator is not None else covariance(),
                layout=self._kinds[name].layout,
                min_version=newest[name],
                timeout=self._options.timeout,
            )
            read[name] = reading.weight, reading.bias
        return read

    def _await_newest(self) -> dict[str, MinVersion]:
        """Return what makes reads wait for all updates so far, once those have been written."""
        self._background.drain(self._options.timeout)
        return dict(self._newest)

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
            if capture.inputs.ndim > _MATRIX_AXES and self._options.rank3 is None:
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

    def _update(self, payload: dict[str, Any], *, in_callback: bool) -> None:
        with self._lock:
            due = self.due
        self._count(updates=1, captured=int(due))
        if not due:
            return
        payload = host.copies(payload) if in_callback else payload
        captures: Captures = payload["captures"]
        step = _Step(captures, self._scale(payload), payload["row_weights"])
        self._open(captures)
        host.begin_copies(captures)
        if not self._background.put(step, when_full=self._options.when_full, timeout=self._options.timeout):
            self._count(skipped_full=1)

    def _count(self, **more: int) -> None:
        with self._lock:
            counted = {name: getattr(self._stats, name) + count for name, count in more.items()}
            self._stats = dataclasses.replace(self._stats, **counted)

    def _scale(self, payload: dict[str, Any]) -> float:
        """Return what makes the gradients those of each row's own loss."""
        scale = 1 / float(payload["loss_scale"])
        if self._options.loss == "sum":
            return scale
        if payload["terms"] is not None:
            return scale * float(payload["terms"])
        rows = {name: int(np.prod(each.inputs.shape[:-1])) for name, each in payload["captures"].items()}
        if len(set(rows.values())) > 1:
            message = f"the layers differ in their rows, {rows}; say how many terms the loss is the mean of: terms=…"
            raise ValueError(message)
        return scale * next(iter(rows.values()))

    def _open(self, captures: Captures) -> None:
        options = self._options
        with self._lock:
            for name in sorted(captures.keys() - self._writers.keys()):
                factor = self.factor(name)
                self._client.create_factor(factor, self._kinds[name].kind, towers=options.towers, **options.create)
                if options.reset:
                    self._client.reset(factor)
                self._writers[name] = self._updates.open(factor, options.tower)

    # ---- In the thread of the queue

    def _write(self, step: _Step) -> None:
        batches = {name: self._batch(name, step) for name in sorted(step.captures)}  # each tower in the same order
        if not all(map(_is_finite, batches.values())):
            self._leave_out()
            return
        for name, batch in batches.items():
            writer = self._writers[name]
            number = writer.write(**batch, decay=self._options.decay, weight=self._options.weight)
            self._newest[name] = writer.min_version(number)
        self._count(sent=1)

    def _batch(self, name: str, step: _Step) -> dict[str, Any]:
        """Return the arguments of a write."""
        capture = step.captures[name]
        runs = host.array(capture.runs)  # one for each device under pmap
        if not (runs == 1).all():
            worst = runs.flat[np.abs(runs - 1).argmax()]
            message = (
                f'layer "{name}" ran {worst:g} times in one pass (0: the gradient did not reach it); a capture wants '
                "one run over the whole batch, not under vmap or in a scan"
            )
            raise ValueError(message)
        return {
            "inputs": _rows(capture.inputs),
            "outputs_grads": _rows(capture.outputs_grads),
            "gradient_scale": step.scale,
            "row_weights": None if step.row_weights is None else host.array(step.row_weights).reshape(-1),
        }

    def _leave_out(self) -> None:
        if self._options.towers > 1:
            message = "a batch is not finite, or its squares overflow; several towers cannot agree to leave it out"
            raise InvalidArgumentError(message, reason="NON_FINITE_INPUT")
        self._count(skipped_non_finite=1)


def _rows(tensor: Any) -> Array:
    """Return a tensor's rows: all axes but the last as one."""
    array = host.array(tensor)
    return array.reshape(-1, array.shape[-1])


def _is_finite(batch: dict[str, Any]) -> bool:
    """Return whether all products of squares are finite, so that the server refuses none."""
    with np.errstate(over="ignore", invalid="ignore"):
        bound = _norm(batch["inputs"]) * _norm(batch["outputs_grads"]) * float(batch["gradient_scale"])
        return bound * bound < _LARGEST


def _norm(tensor: Array) -> float:
    wide = tensor if tensor.dtype.itemsize >= np.float32().itemsize else tensor.astype(np.float32)
    return float(np.linalg.norm(wide))

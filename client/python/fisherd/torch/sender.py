"""The thread that sends what was captured, so that the training step does not wait."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fisherd import errors
from fisherd.background import WhenFull
from fisherd.torch import rows
from fisherd.torch.layers import Layer
from fisherd.torch.rows import Part
from fisherd.types import MinVersion
from fisherd.update_stream import UpdateWriter

# Whether a tower has a batch of a layer, and why not. The least of all towers' words counts.
SPOILT, FULL, UNUSED, WHOLE = range(4)
# Returns the least word of all towers on each layer, from this tower's words.
Agree = Callable[[list[int]], list[int]]

_LATE = "STEP_LATE"
_LARGEST = {torch.float32: 3.4e38, torch.float64: 1.7e308}


@dataclasses.dataclass(frozen=True)
class CaptureStats:
    """What has become of the steps so far.

    steps: training steps, that is calls of Fisher.step().
    captured: of these, those on which something was captured; the rest are fields of it.
    sent: written to the server, of at least one layer.
    skipped_full: left out because some tower's queue was full (when_full="skip").
    skipped_non_finite: left out because some tower's batch was not finite, or its squares overflow.
    late: batches whose step ended at the server without this tower (gather_timeout).
    """

    steps: int = 0
    captured: int = 0
    sent: int = 0
    skipped_full: int = 0
    skipped_non_finite: int = 0
    late: int = 0


class Ticket:
    """Stands for a step on its way; set once all its layers are written, or left out."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Let wait() return, or raise."""
        self._error = error
        self._done.set()

    def wait(self, timeout: float | None) -> None:
        """Wait until it is written. DeadlineExceededError; what the sender failed with."""
        if not self._done.wait(timeout):
            message = f"what was captured has not been written within {timeout:g} s: another tower lags, or the server"
            raise errors.DeadlineExceededError(message)
        if self._error is not None:
            raise self._error


@dataclasses.dataclass(frozen=True)
class Step:
    """What was captured of each layer on one training step.

    full: this tower leaves the step out, for want of room; nothing of it is kept.
    ready: by CUDA device, an event after which the tensors on it are whole.
    """

    layers: Sequence[list[Part]]
    label: int
    full: bool = False
    ready: Mapping[torch.device, Any] = dataclasses.field(default_factory=dict)
    ticket: Ticket = dataclasses.field(default_factory=Ticket)


@dataclasses.dataclass(frozen=True)
class SendOptions:
    """See attach()."""

    queue_size: int
    when_full: WhenFull
    decay: float
    weight: float | None
    dtype: torch.dtype


class Sender:
    """A bounded queue of steps and the thread that writes them, in order, to one writer per layer.

    put() is of the thread that trains. All towers put the same steps; which layers of a step are sent, they agree on
    in the sending thread, so that like is added to like.
    """

    def __init__(
        self, layers: Sequence[Layer], writers: Sequence[UpdateWriter], agree: Agree, options: SendOptions
    ) -> None:
        self.writers = writers
        self._layers = layers
        self._agree = agree
        self._options = options
        self._changed = threading.Condition()
        self._queue: collections.deque[Step] = collections.deque()  # the first is being sent
        self._occupied = 0  # of the queue: steps that hold tensors
        self._over = False
        self._error: BaseException | None = None
        self._stats = CaptureStats()
        self._versions: list[MinVersion | None] = [None] * len(layers)
        self._thread = threading.Thread(target=self._run, name="fisherd capture", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> CaptureStats:
        """What has become of the steps that were sent."""
        with self._changed:
            return self._stats

    @property
    def versions(self) -> list[MinVersion | None]:
        """Of each layer, the last step that was written; None before the first."""
        with self._changed:
            return list(self._versions)

    def put(self, step: Step) -> None:
        """Hand over a step; waits for room in the queue, or leaves the step out, as when_full says.

        Raises what the sender failed with.
        """
        holds = any(step.layers)
        with self._changed:
            full = holds and self._occupied >= self._options.queue_size
            if full and self._options.when_full == "skip":
                step = dataclasses.replace(step, layers=[[] for _ in step.layers], full=True)
                holds = False
            while holds and self._error is None and self._occupied >= self._options.queue_size:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            self._occupied += holds
            self._queue.append(step)
            self._changed.notify_all()

    def flush(self, timeout: float | None) -> None:
        """Wait until the queue is empty. DeadlineExceededError; what the sender failed with."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._queue, timeout):
                message = f"{len(self._queue)} captured steps are not written yet: another tower lags, or the server"
                raise errors.DeadlineExceededError(message)
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Drop what is queued, and end the thread once it has written what it is writing."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, which comes once its writers are closed or have nothing to do."""
        self._thread.join(timeout)

    # ---- The thread

    def _run(self) -> None:
        while (step := self._next()) is not None:
            error: BaseException | None = None
            try:
                self._send(step)
            except Exception as caught:  # noqa: BLE001 - whatever it is, the trainer is told
                error = caught
            with self._changed:
                self._queue.popleft()
                self._occupied -= any(step.layers)
                if error is not None:
                    self._fail(error)
                self._changed.notify_all()
            step.ticket.finish(error)

    def _next(self) -> Step | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over)
            if self._over:
                self._fail(errors.CancelledError("the capture was detached"))
                return None
            return self._queue[0]

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        for step in self._queue:
            step.ticket.finish(error)
        self._queue.clear()
        self._occupied = 0
        self._over = True

    def _send(self, step: Step) -> None:
        pairs = zip(self._layers, step.layers, strict=True)
        batches = [self._prepare(layer, parts, step.ready) for layer, parts in pairs]
        words = [WHOLE if batch is not None else UNUSED for batch in batches]
        if step.full or any(parts and batch is None for parts, batch in zip(step.layers, batches, strict=True)):
            words = [FULL if step.full else SPOILT] * len(words)
        words = self._agree(words)
        for index, (batch, word) in enumerate(zip(batches, words, strict=True)):
            if batch is not None and word == WHOLE:
                self._write(index, batch, step.label)
        self._count(sent=WHOLE in words, skipped_full=FULL in words, skipped_non_finite=SPOILT in words)

    def _prepare(self, layer: Layer, parts: list[Part], ready: Mapping[torch.device, Any]) -> dict[str, Any] | None:
        """Return the arguments of a write, in host memory; None if there is nothing, or it is not finite."""
        if not parts:
            return None
        with _beside(parts[0].grads.device, ready):
            if any(part.inputs.dim() > 2 for part in parts):  # noqa: PLR2004 - [N, T, I]
                total, count = rows.to_contribution(parts, has_bias=layer.module.bias is not None)
                total = total.to("cpu", self._options.dtype)
                return {"contribution": total, "rows": count} if bool(torch.isfinite(total).all()) else None
            inputs, grads, scale = rows.to_batch(parts)
            # Above all products of squares, so that the server refuses none and every tower's steps stay together.
            bound = _norm(inputs) * _norm(grads) * scale
            if not bound * bound < _LARGEST[self._options.dtype]:
                return None
            return {"inputs": inputs.cpu(), "outputs_grads": grads.cpu(), "gradient_scale": scale}

    def _write(self, index: int, batch: dict[str, Any], label: int) -> None:
        writer = self.writers[index]
        write = writer.write_contribution if "contribution" in batch else writer.write
        tensors = [batch.pop(name) for name in ("contribution", "inputs", "outputs_grads") if name in batch]
        try:
            number = write(*tensors, **batch, decay=self._options.decay, weight=self._options.weight, label=label)
        except errors.FailedPreconditionError as error:
            if error.reason != _LATE:
                raise
            self._count(late=1)
            return
        version = writer.min_version(number)
        with self._changed:
            self._versions[index] = version

    def _count(self, **more: int) -> None:
        with self._changed:
            counted = {name: getattr(self._stats, name) + count for name, count in more.items()}
            self._stats = dataclasses.replace(self._stats, **counted)


def alone(mine: list[int]) -> list[int]:
    """Agree where there is one tower."""
    return mine


def _norm(tensor: torch.Tensor) -> float:
    flat = tensor.reshape(-1)
    wide = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    return float(torch.dot(wide, wide)) ** 0.5


def _beside(device: torch.device, ready: Mapping[torch.device, Any]) -> contextlib.AbstractContextManager[Any]:
    """Return the context of a CUDA device's stream beside the trainer's, in which the tensors are whole."""
    if device not in ready:
        return contextlib.nullcontext()
    cuda: Any = torch.cuda  # which has no types
    stream = cuda.Stream(device)
    stream.wait_event(ready[device])
    context: contextlib.AbstractContextManager[Any] = cuda.stream(stream)
    return context

"""Feeding covariance updates: one stream per trainer process, one writer per factor and tower on it."""

from __future__ import annotations

import atexit
import dataclasses
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

import grpc

from fisherd import batch_frames, errors, tensors
from fisherd.batch_frames import Batch, BatchTensors, StepOptions
from fisherd.channel import Metadata
from fisherd.contribution import LayerShape, make_contribution
from fisherd.tower_state import BatchIdentity, TowerState
from fisherd.types import MinVersion, Progress, UpdateStats
from fisherd.update_connection import Tower, UpdateConnection, UpdateOptions
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import update_pb2

Outcome = errors.Error | Literal[True] | None


class UpdateStream:
    """A process's stream of batches, for any number of factors; made by Client.open_updates().

    Thread-safe; a context manager that closes it, as the end of the process does. Works in the background: connects,
    sends, reads the answers, and connects again when it is cut.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        client_id: bytes,
        next_stream: Callable[[], int],
        metadata: Callable[[], Metadata | None],
        describe: Callable[[str], service_pb2.FactorInfo],
        options: UpdateOptions,
    ) -> None:
        self._connection = UpdateConnection(channel, client_id, next_stream, metadata, options)
        self._describe = describe
        self._options = options
        atexit.register(self.close)

    def open(
        self, factor: str, tower: int = 0, *, take_over: bool = False, timeout: float | None = 30.0
    ) -> UpdateWriter:
        """Claim a tower of a factor, and learn where it begins: UpdateWriter.next_step.

        A writer that this stream has opened for it before ends with AbortedError, and what it kept goes.

        take_over: take the tower from another process that still holds it.
        timeout: seconds to wait for the server's answer; None: for ever.

        FailedPreconditionError (TOWER_CLAIMED: another process holds the tower), NotFoundError (FACTOR_NOT_FOUND),
        OutOfRangeError (no such tower), UnavailableError (no server was reached in time), the stream's own.
        """
        connection = self._connection
        _raise_if_inherited(connection)
        deadline = _deadline(timeout)
        with connection.lock:
            opening = Tower(TowerState(factor, tower, take_over=take_over), connection.lock)
            _raise_if_over(connection)
            connection.add(opening)
            state = opening.state
            while not state.opened and state.end is None:
                if not _wait(opening.changed, deadline):
                    state.finish(self._not_opened(state.identity))
            if state.opened:
                return UpdateWriter(connection, opening, self._describe, self._options)
            connection.forget(opening)
            raise _error(state.end)

    def status(self) -> errors.Error | None:
        """Return how the stream ended; None while it lives, cut or not.

        CancelledError after close(). What ends it for good: AbortedError (STREAM_SUPERSEDED), UnauthenticatedError,
        PermissionDeniedError, UnimplementedError, InvalidArgumentError and the like, and reconnect_timeout.
        """
        with self._connection.lock:
            return self._connection.end

    def close(self, timeout: float = 5.0) -> errors.Error | None:
        """Send what has been written but not sent, let the server read it, and end the stream.

        If that takes longer than `timeout` seconds, it is cancelled. Returns how the server ended it: None for well;
        UnavailableError or CancelledError if not everything has reached it. Batches that are whole at the server still
        count; whether they have, UpdateWriter.wait() says before.
        """
        last = self._connection.close(timeout)
        atexit.unregister(self.close)
        return last

    def supersede(self) -> None:
        """End at once, in favour of a newer stream of the same client."""
        self._connection.supersede()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _not_opened(self, identity: BatchIdentity) -> errors.Error:
        if self._connection.greeted:
            return identity.error("DEADLINE_EXCEEDED", "the server did not answer open")
        return identity.error("UNAVAILABLE", "cannot be opened" + self._connection.why_nothing_comes())


class UpdateWriter:
    """Writes one tower's batches of one factor; made by UpdateStream.open().

    Used by one thread at a time; writers of one stream may be used by different threads.

    What is written is kept until the server has counted it for good or said that it never will, and is sent again when
    the stream was cut, the server was restarted, or had no room for it. So each batch counts exactly once. When the
    factor is reset or deleted, or another process takes the tower over, the writer ends (OLD_INCARNATION,
    FACTOR_NOT_FOUND, TOWER_CLAIMED); open anew.

    A batch that the server refuses has changed nothing. The refusal is kept until a write() or a wait() has reported
    it; the writer then goes on at the refused step, and the steps that were written after it are to be written again,
    because the server takes no step without the one before.
    """

    def __init__(
        self,
        connection: UpdateConnection,
        tower: Tower,
        describe: Callable[[str], service_pb2.FactorInfo],
        options: UpdateOptions,
    ) -> None:
        self._connection = connection
        self._tower = tower
        self._describe = describe
        self._options = options

    @property
    def factor(self) -> str:
        """The factor's name."""
        return self._tower.identity.factor

    @property
    def tower(self) -> int:
        """Which replica of the trainer this is."""
        return self._tower.identity.tower

    @property
    def next_step(self) -> int:
        """The step that the next write() will write: the factor's own count, from 1."""
        with self._connection.lock:
            return self._tower.state.next_step

    def min_version(self, step: int) -> MinVersion:
        """Return what makes a read wait until that step has ended."""
        with self._connection.lock:
            return MinVersion(self._tower.state.incarnation, step)

    def progress(self) -> Progress:
        """Return where the factor stood at the server's last word."""
        with self._connection.lock:
            return self._tower.state.progress()

    def stats(self) -> UpdateStats:
        """Return what has been written, in which form, and what was sent again."""
        with self._connection.lock:
            return self._tower.state.stats

    def write(
        self,
        inputs: Any,
        outputs_grads: Any,
        *,
        decay: float = 0.95,
        weight: float | None = None,
        gradient_scale: float | None = None,
        row_weights: Any = None,
        label: int = 0,
        wait: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Write a batch as the next step, var ← decay·var + weight·C, and return that step's number.

        inputs: tensor [N, I], without a column of ones.
        outputs_grads: tensor [N, O], or a list of one per source: gradients of the examples' own losses with respect
            to the layer's outputs, not of the batch's mean.
        decay: in [0, 1]. weight: finite and positive, 1 − decay if None. All towers must send the same.
        gradient_scale: multiplies the gradients before they are squared, 1 if None. N where the loss is the mean over N
            examples; 1/scale under loss scaling.
        row_weights: tensor [N] of weights, 0 or above, whose positive sum then stands for N; for padding and tokens.
        label: the trainer's own step number, described with the factor once the step has committed.
        wait: return only when the step has ended, as wait() does.
        timeout: seconds that all of this may take; None: for ever.

        Does not wait for the step to end, nor for the transport: only until the window has room for it (the step is
        below next + window) and the buffer too. The tensors may change once it has returned. Nothing of the batch
        counts after an error:

        TypeError: an argument is no tensor of floating-point elements.
        InvalidArgumentError: BAD_ARGUMENT, the tensors' rows differ, or one row exceeds a message; NON_FINITE_INPUT,
            found while a contribution was computed.
        FailedPreconditionError: STEP_LATE, the step has ended without this tower; the next write is of the one after.
        DeadlineExceededError: the window had no room in time: another tower lags, or the server is away.
        ResourceExhaustedError: CLIENT_BUFFER, the buffer had no room in time, or never will.
        The refusal's own: this batch, or one before it, was refused; see next_step.
        The writer's own: it has ended, or the stream, see UpdateStream.status().
        """
        _raise_if_inherited(self._connection)
        deadline = _deadline(timeout)
        options = StepOptions(decay, weight, gradient_scale, label)
        batch = self._reduce(Batch.of(inputs, outputs_grads, row_weights), options)
        return self._write(batch, options, deadline, wait=wait)

    def write_contribution(
        self,
        contribution: Any,
        *,
        rows: int,
        decay: float = 0.95,
        weight: float | None = None,
        label: int = 0,
        wait: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Write C itself as the next step, for a C that is no (A∘A)ᵀ(G∘G)/N; return that step's number.

        contribution: tensor [H, O] of the factor's type, not negative, divided by N and summed over sources; the bias
            is the last row.
        rows: N, at least 1.
        decay, weight, label, wait, timeout: as in write(); so are the errors.
        """
        deadline = _deadline(timeout)
        options = StepOptions(decay, weight, None, label)
        view = tensors.view(contribution, "contribution")
        return self._write(batch_frames.contribution_tensors(view, rows, None), options, deadline, wait=wait)

    def wait(self, step: int, timeout: float | None = None) -> None:
        """Wait until a written step has ended, over cuts and restarts; return if it was counted.

        FailedPreconditionError: STEP_FAILED, it ended without counting this batch.
        OutOfRangeError: it has not been written.
        DeadlineExceededError: it has not ended within `timeout` seconds.
        The refusal's own: its batch was refused, or one before it.
        The writer's own: it has ended; whether the step will count is not known.
        """
        self._await_outcome(step, _deadline(timeout), self._tower.state.outcome)

    def wait_durable(self, step: int, timeout: float | None = None) -> None:
        """Wait until a written step has been counted for good: a crash of the server cannot undo it. Errors as wait."""
        self._await_outcome(step, _deadline(timeout), self._tower.state.durable_outcome)

    # ----

    def _write(self, batch: BatchTensors, options: StepOptions, deadline: float | None, *, wait: bool) -> int:
        step = None
        while step is None:
            step = self._push(batch, options, self._await_room(batch.bytes, deadline))
        if wait:
            self._await_outcome(step, deadline, self._tower.state.outcome)
        return step

    def _reduce(self, batch: Batch, options: StepOptions) -> BatchTensors:
        """Return what will travel: the batch's own tensors, or its contribution."""
        identity = dataclasses.replace(self._tower.identity, step=self.next_step)
        raw = batch_frames.raw_tensors(identity, batch)
        wanted = self._options.form
        smaller_wins = wanted == update_pb2.BATCH_FORM_UNSPECIFIED
        # Whatever the factor is, a contribution is not smaller: known without asking for it.
        least = batch.inputs.shape[1] * (batch.outputs_grads[0].shape[1] if batch.outputs_grads else 0) * 4
        if wanted == update_pb2.BATCH_FORM_RAW or (smaller_wins and raw.bytes <= least):
            return raw
        scale = 1.0 if options.gradient_scale is None else options.gradient_scale
        if not (math.isfinite(scale) and scale > 0):
            return raw  # the server says what is wrong
        shape = self._shape(or_raise=not smaller_wins)
        if shape is None or not shape.fits(batch) or (smaller_wins and raw.bytes <= shape.bytes):
            return raw
        made = make_contribution(identity, batch, shape, scale)
        return batch_frames.contribution_tensors(made.view, raw.rows, made.examples)

    def _shape(self, *, or_raise: bool) -> LayerShape | None:
        tower = self._tower
        if not tower.described:
            try:
                tower.shape = LayerShape.of(self._describe(self.factor).spec)
                tower.described = True
            except errors.Error:  # the stream may still stand, or come back
                if or_raise:
                    raise
        return tower.shape

    def _await_room(self, size: int, deadline: float | None) -> BatchIdentity:
        """Wait until the next step may be written, reserve its bytes, and return which it is."""
        connection, tower, state = self._connection, self._tower, self._tower.state
        bound = self._options.max_buffered_bytes
        with connection.lock:
            while True:
                if (refusal := state.take_refusal()) is not None:
                    raise refusal
                if state.end is not None:
                    raise _error(state.end)
                _raise_if_over(connection)
                if (late := state.skip_late_step()) is not None:
                    raise late
                identity = dataclasses.replace(state.identity, step=state.next_step, incarnation=state.incarnation)
                if size > bound:
                    text = f"the batch is {size} bytes, but max_buffered_bytes is {bound}"
                    raise identity.error("RESOURCE_EXHAUSTED", text, reason="CLIENT_BUFFER")
                if state.has_room and connection.buffered_bytes + size <= bound:
                    connection.reserve(size)
                    return identity
                connection.want_durable()
                if not _wait(connection.space if state.has_room else tower.changed, deadline):
                    raise self._no_room(identity, size)

    def _no_room(self, identity: BatchIdentity, size: int) -> errors.Error:
        connection, state = self._connection, self._tower.state
        why = connection.why_nothing_comes()
        if state.has_room:
            text = (
                f"the batch is {size} bytes, and {connection.buffered_bytes} of max_buffered_bytes, "
                f"{self._options.max_buffered_bytes}, hold batches that are not durable yet{why}"
            )
            return identity.error("RESOURCE_EXHAUSTED", text, reason="CLIENT_BUFFER")
        progress = state.progress()
        text = (
            f"cannot be sent yet: step {progress.next} has not ended and the window is {progress.window} steps; "
            f"another tower lags{why}"
        )
        return identity.error("DEADLINE_EXCEEDED", text)

    def _push(self, batch: BatchTensors, options: StepOptions, identity: BatchIdentity) -> int | None:
        """Keep the batch as that step; None if it is no longer the next one. Its bytes have been reserved."""
        connection, state = self._connection, self._tower.state
        max_frame = min(max(self._options.max_frame, 1), batch_frames.LARGEST_MAX_FRAME)
        try:
            encoded = batch_frames.encode_batch(identity, batch, options, max_frame, connection.memory_to_share())
        except BaseException:
            with connection.lock:
                connection.release(batch.bytes)
            raise
        with connection.lock:
            # A refusal, or the end, may have come while the bytes were copied.
            if state.end is not None or state.next_step != identity.step:
                connection.release(batch.bytes)
                return None
            state.push(encoded)
            connection.queue(self._tower)
            return identity.step

    def _await_outcome(self, step: int, deadline: float | None, outcome: Callable[[int], Outcome]) -> None:
        connection, tower = self._connection, self._tower
        _raise_if_inherited(connection)
        with connection.lock:
            while (known := outcome(step)) is None:
                if not _wait(tower.changed, deadline) and outcome(step) is None:
                    identity = dataclasses.replace(tower.identity, step=step)
                    counted = tower.state.outcome(step) is not None
                    text = "is not durable yet" if counted else "has not ended in time"
                    raise identity.error("DEADLINE_EXCEEDED", text + connection.why_nothing_comes())
            if known is not True:
                raise _error(known)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _wait(condition: Any, deadline: float | None) -> bool:
    """Wait for a change; False if the time is over."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        return False
    condition.wait(left)
    return True


def _raise_if_inherited(connection: UpdateConnection) -> None:
    if connection.is_inherited:
        raise errors.FailedPreconditionError(
            "this process was forked from the one that opened the stream of updates; make a client in this one"
        )


def _raise_if_over(connection: UpdateConnection) -> None:
    if connection.end is not None:
        raise _error(connection.end)
    if connection.closed:
        raise errors.CancelledError("the stream of updates was closed")


def _error(end: errors.Error | None) -> errors.Error:
    """Return a copy to raise: a traceback belongs to one raise."""
    if end is None:
        return errors.InternalError("it has ended without a reason")
    return errors.make_error(
        end.code, end.message, reason=end.reason, metadata=end.metadata, retry_delay=end.retry_delay
    )

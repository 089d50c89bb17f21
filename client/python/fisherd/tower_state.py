"""What one tower of a stream is told and tells: its replay buffer, and what has become of the steps it wrote.

As client/cpp/tower_state.h. No locks, no waiting, no I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from fisherd import errors
from fisherd.replay_buffer import BufferProgress, ReplayBuffer
from fisherd.types import Progress, StepRun, UpdateStats
from fisherd.v1 import update_pb2

if TYPE_CHECKING:
    from fisherd.batch_frames import EncodedBatch

# The tower is no longer this stream's, whichever batch it was that found out.
_LOSES_TOWER = frozenset({"OLD_INCARNATION", "TOWER_CLAIMED", "TOWER_NOT_OPEN", "FACTOR_NOT_FOUND"})
_LATE = frozenset({"STEP_LATE", "STEP_FAILED", "FORGOTTEN"})


@dataclasses.dataclass(frozen=True)
class BatchIdentity:
    """What names a batch; of step 0, a tower."""

    factor: str
    tower: int
    step: int = 0
    incarnation: int = 0

    def error(
        self, code: str, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> errors.Error:
        """Return an error about the batch, with what it is about."""
        about = f'factor "{self.factor}", tower {self.tower}'
        details = {**(metadata or {}), "factor": self.factor, "tower": str(self.tower)}
        if self.step > 0:
            about += f", step {self.step}"
            details["step"] = str(self.step)
        return errors.make_error(code, f"{about}: {message}", reason=reason, metadata=details)


class TowerState:
    """Not thread-safe.

    A refused step takes those after it back with it, see ReplayBuffer. Each of those that was on its way is refused by
    the server too, as out of order: that says nothing new and is not heard.
    """

    def __init__(self, factor: str, tower: int, *, take_over: bool = False) -> None:
        self.identity = BatchIdentity(factor, tower)
        self.end: errors.Error | None = None
        self.stats = UpdateStats()
        self._take_over = take_over
        self._buffer = ReplayBuffer()
        self._towers = 0  # as last told,
        self._first = 0  # likewise
        self._sent_through = 0  # on any stream
        self._refusal_unreported = False  # that of next_step
        self._refused: dict[int, errors.Error] = {}  # of steps not written again since

    # ---- Streams

    def make_open(self) -> update_pb2.Open:
        """Return what claims the tower on a new stream.

        Take-over is asked for only until the tower is ours: a process that has taken it since shall keep it.
        """
        steps = self._buffer.range()
        message = update_pb2.Open(
            factor=self.identity.factor,
            tower=self.identity.tower,
            through=steps.through,
            take_over=self._take_over and not self.opened,
        )
        setattr(message, "from", steps.start)
        return message

    def on_opened(self, progress: update_pb2.Progress) -> None:
        """The server has opened the tower, on a new stream."""
        if self.end is not None:
            return
        again = self.opened
        if not self._buffer.on_opened(_from_message(progress)):
            ended = f"incarnation {self.incarnation} has ended; open the tower again, of incarnation "
            self.finish(self._error("FAILED_PRECONDITION", "OLD_INCARNATION", 0, f"{ended}{progress.incarnation}"))
            return
        if again:
            self._count(reconnects=1)
        self._towers, self._first = progress.towers, progress.first

    def on_ack(self, progress: update_pb2.Progress) -> None:
        """The server acknowledges."""
        buffer = self._buffer
        if not buffer.open or (progress.incarnation, progress.epoch) != (buffer.incarnation, buffer.epoch):
            return
        buffer.on_ack(_from_message(progress))
        self._towers, self._first = progress.towers, progress.first

    def on_hold(self, step: int) -> None:
        """Batches from `step` on are not at the server."""
        self._buffer.on_hold(step)

    def on_refused(self, step: int, error: errors.Error) -> None:
        """The server has refused a batch, or the tower itself: step 0.

        Before `opened`, what is said of batches, and that an incarnation has ended, is of a writer before this one;
        `open` is to be sent once more then, lest it was of this one's.
        """
        if not self._buffer.open and (step > 0 or error.reason == "OLD_INCARNATION"):
            return
        if step == 0 or error.reason in _LOSES_TOWER:
            self.finish(error)
        elif error.reason == "STEP_OUT_OF_ORDER":
            pass
        elif step < self._buffer.next or error.reason in _LATE:
            # How the step ended is in `missed`, unless it has been forgotten.
            self._buffer.on_late(step)
            if error.reason == "FORGOTTEN":
                self._refused[step] = error
        else:
            self._take_back(step, error)

    def _take_back(self, step: int, error: errors.Error) -> None:
        next_step = self._buffer.next_step
        if not self._buffer.on_refused(step):
            return
        self._refused[step] = error
        why = f"was written after step {step}, which was refused, so it did not count and is to be written again: "
        for later in range(step + 1, next_step):
            self._refused[later] = self._error("OUT_OF_RANGE", "STEP_OUT_OF_ORDER", later, why + error.message)
        self._sent_through = min(self._sent_through, step - 1)
        self._refusal_unreported = True

    def on_cut(self) -> None:
        """The stream has ended."""
        self._buffer.on_cut()

    def finish(self, error: errors.Error) -> None:
        """Nothing more will come, and all that was kept goes. The first end counts."""
        if self.end is None:
            self.end = error
            self._buffer.clear()

    @property
    def opened(self) -> bool:
        """Whether the server has opened it, on any stream."""
        return self._buffer.incarnation != 0

    @property
    def incarnation(self) -> int:
        """The factor's; 0 before it is opened."""
        return self._buffer.incarnation

    def progress(self) -> Progress:
        """Return where the factor stood at the server's last word."""
        buffer = self._buffer
        return Progress(
            factor=self.identity.factor,
            tower=self.identity.tower,
            incarnation=buffer.incarnation,
            epoch=buffer.epoch,
            towers=self._towers,
            next=buffer.next,
            durable=buffer.durable,
            open_through=buffer.open_through,
            window=buffer.window,
            first=self._first,
            missed=tuple(buffer.missed),
        )

    # ---- Writing

    @property
    def next_step(self) -> int:
        """The step that is to be written next."""
        return self._buffer.next_step

    @property
    def has_room(self) -> bool:
        """The window has room for it."""
        return self._buffer.has_room

    def take_refusal(self) -> errors.Error | None:
        """Return, once, the refusal that next_step went back for: what a write must report in place of writing."""
        unreported, self._refusal_unreported = self._refusal_unreported, False
        return self._refused.get(self.next_step) if unreported else None

    def skip_late_step(self) -> errors.Error | None:
        """Skip next_step if it has ended, and return what a write must report in place of writing."""
        if not self._buffer.next_step_is_late:
            return None
        step = self.next_step
        self._refused.pop(step, None)
        self._buffer.skip_step()
        ended = f"has ended without this tower's batch; the next to write is {self.next_step}"
        return self._error("FAILED_PRECONDITION", "STEP_LATE", step, ended)

    def push(self, batch: EncodedBatch) -> None:
        """Keep the batch of next_step."""
        self._refusal_unreported = False
        self._refused.pop(self.next_step, None)
        if batch.form == update_pb2.BATCH_FORM_CONTRIBUTION:
            self._count(contribution_batches=1, contribution_bytes=batch.bytes)
        else:
            self._count(raw_batches=1, raw_bytes=batch.bytes)
        self._buffer.push(batch.bytes, batch)

    def take_to_send(self, *, shares: bool = False) -> EncodedBatch | None:
        """Return the batch that may be sent now, which is then on its way; by shared memory, if it `shares`."""
        batch = self._buffer.next_to_send()
        if batch is None:
            return None
        if batch.step <= self._sent_through:
            self._count(resent_batches=1)
        self._sent_through = max(self._sent_through, batch.step)
        self._buffer.begin_send()
        payload: EncodedBatch = batch.payload
        if shares and payload.block is not None:
            self._count(shared_batches=1)
        return payload

    @property
    def can_send(self) -> bool:
        """There is a batch that may be sent now."""
        return self._buffer.next_to_send() is not None

    @property
    def all_sent(self) -> bool:
        """Everything written has been sent, on the newest stream or to a step that has ended."""
        return self._buffer.all_sent

    @property
    def bytes(self) -> int:
        """Bytes of elements that are kept."""
        return self._buffer.bytes

    def outcome(self, step: int) -> errors.Error | Literal[True] | None:
        """Return how a step ended: True if it counted; None while that is open."""
        if step in self._refused:
            if step == self.next_step:
                self._refusal_unreported = False
            return self._refused[step]
        run = self._buffer.find_missed(step)
        if run is not None:
            failed = (
                "ended FAILED: a tower's batch did not come in time, or the covariance would have overflowed the "
                "factor's type. The factor has not changed"
            )
            text = failed if run.failed else "ended without this tower's batch"
            return self._error("FAILED_PRECONDITION", "STEP_FAILED", step, text)
        if step < self._buffer.next:
            return True
        if step >= self.next_step:
            text = f"has not been written; the next is {self.next_step}"
            return self._error("OUT_OF_RANGE", "OUT_OF_RANGE", step, text)
        return self.end

    def durable_outcome(self, step: int) -> errors.Error | Literal[True] | None:
        """Return the same, but True only once the step is durable."""
        outcome = self.outcome(step)
        if outcome is not True or step <= self._buffer.durable:
            return outcome
        return self.end

    def _error(self, code: str, reason: str, step: int, message: str) -> errors.Error:
        return dataclasses.replace(self.identity, step=step).error(code, message, reason=reason)

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self.stats, name) + count for name, count in more.items()}
        self.stats = dataclasses.replace(self.stats, **counted)


def _from_message(message: update_pb2.Progress) -> BufferProgress:
    return BufferProgress(
        incarnation=message.incarnation,
        epoch=message.epoch,
        next=message.next,
        durable=message.durable,
        open_through=message.open_through,
        window=message.window,
        first=message.first,
        missed=tuple(
            StepRun(run.first_step, run.last_step, run.outcome == update_pb2.STEP_OUTCOME_FAILED)
            for run in message.missed
        ),
    )

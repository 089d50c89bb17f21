"""What one tower keeps of its batches until the server needs them no more, and which of them may be sent next.

The client's rules of update.proto, as client/cpp/replay_buffer.h has them; client/scenarios holds both to the same.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from fisherd.types import StepRun


@dataclasses.dataclass(frozen=True)
class BufferProgress:
    """As the Progress message."""

    incarnation: int
    epoch: int
    next: int = 1
    durable: int = 0
    open_through: int = 0
    window: int = 1
    first: int = 0
    missed: tuple[StepRun, ...] = ()


class Kept(NamedTuple):
    """A batch that may have to be sent again. Its payload is never looked at."""

    step: int
    bytes: int
    payload: Any


class Range(NamedTuple):
    """For Open: the lowest step that can still be sent, the highest that was pushed; 0 before the first `opened`."""

    start: int
    through: int


class ReplayBuffer:
    """A value without threads, clock or I/O; not thread-safe.

    The steps of a tower are pushed in order and sent in order; a process has one of these for each of its towers, and
    one bound for the bytes of all. A batch is kept until its step has ended without it (`missed`), or has counted it
    and is durable, or the server has refused it. A stream that ends takes nothing away: the next one is opened with
    range(), and sends every kept batch from `next` on again.
    """

    def __init__(self) -> None:
        self.incarnation = 0  # 0 before the first `opened`
        self.epoch = 0
        self.open = False  # on the newest stream
        self.next = 0
        self.durable = 0
        self.open_through = 0
        self.window = 0
        self.next_step = 0  # the step that the next push is of
        self.missed: list[StepRun] = []  # ascending, disjoint
        self.kept: list[Kept] = []  # ascending
        self.bytes = 0  # of all that is kept
        self._held_from = 0  # the lowest step that waits for room; 0 if none does
        # Since a hold, until the whole window is open: beyond what is open goes one batch at a time, which asks for
        # the next room, as the others would come for nothing.
        self._pressed = False
        self._send_next = 0  # what is kept below it needs no sending

    def range(self) -> Range:
        """Return what an `open` says."""
        if self.incarnation == 0:
            return Range(0, 0)
        return Range(self.kept[0].step if self.kept else self.next_step, self.next_step - 1)

    # ---- What the server says, on the newest stream.

    def on_opened(self, progress: BufferProgress) -> bool:
        """Take what it begins with. False, and no change, if this is another incarnation: all kept is of no use."""
        if self.incarnation == 0:
            self.incarnation = progress.incarnation
            self.next_step = progress.next
        elif progress.incarnation != self.incarnation:
            return False
        # Another epoch may have lost what the one before had counted, so nothing of that is remembered.
        self.epoch = progress.epoch
        self.open = True
        self.next = progress.next
        self.durable = progress.durable
        self.open_through = progress.open_through
        self._held_from = 0
        self._pressed = False
        self._send_next = progress.next
        self._advance(progress)
        return True

    def on_ack(self, progress: BufferProgress) -> None:
        """Take what it acknowledges; ignored before `opened`, and of another incarnation or epoch."""
        if self.open and (progress.incarnation, progress.epoch) == (self.incarnation, self.epoch):
            self._advance(progress)

    def on_hold(self, step: int) -> None:
        """Batches from `step` on are not at the server; they will be sent again, `step` once it is open."""
        if not self.open or step < self.next:
            return
        self.open_through = min(self.open_through, step - 1)
        self._held_from = step if self._held_from == 0 else min(self._held_from, step)
        self._pressed = True
        self._send_next = min(self._send_next, step)

    def on_refused(self, step: int) -> bool:
        """The batch of `step` will not count: it goes, and those after it too, and next_step is `step` again.

        (The server takes no step without the one before.) False if it had not been pushed.
        """
        if not self.open or not any(batch.step == step for batch in self.kept):
            return False
        self._drop(lambda batch: batch.step >= step)
        self.next_step = step
        self._send_next = min(self._send_next, step)
        return True

    def on_late(self, step: int) -> None:
        """The batch of `step` came too late; those after it stay."""
        self._drop(lambda batch: batch.step == step)

    def on_cut(self) -> None:
        """The stream has ended: nothing is sent until the next `opened`."""
        self.open = False

    # ---- Batches

    @property
    def next_step_is_late(self) -> bool:
        """next_step has ended already, without a batch of this tower: it can only be skipped."""
        return self.next_step < self.next

    def skip_step(self) -> None:
        """Write nothing as next_step."""
        self.next_step += 1

    @property
    def has_room(self) -> bool:
        """The window has room for next_step."""
        return self.next_step < self.next + self.window

    def push(self, size: int, payload: Any = None) -> None:
        """Keep the batch of next_step, of so many bytes."""
        self.kept.append(Kept(self.next_step, size, payload))
        self.next_step += 1
        self.bytes += size

    def next_to_send(self) -> Kept | None:
        """Return the batch that may be sent now."""
        if not self.open:
            return None
        index = bisect.bisect_left(self.kept, max(self._send_next, self.next), key=lambda batch: batch.step)
        if index == len(self.kept) or self.kept[index].step >= self.next + self.window:
            return None
        batch = self.kept[index]
        open_through = max(self.open_through, self.next - 1)
        if batch.step > open_through and self._held_from != 0:
            return None
        if batch.step > open_through + 1 and self._pressed:
            return None
        return batch

    def begin_send(self) -> None:
        """next_to_send() is on its way."""
        batch = self.next_to_send()
        if batch is None:
            message = "there is nothing to send"
            raise RuntimeError(message)
        self._send_next = batch.step + 1

    @property
    def all_sent(self) -> bool:
        """All that is kept has been sent on the newest stream, or its step has ended."""
        sent = max(self._send_next, self.next) if self.open else self.next
        return not self.kept or self.kept[-1].step < sent

    def clear(self) -> None:
        """Forget all that is kept: it is of no use any more."""
        self.kept.clear()
        self.bytes = 0

    def find_missed(self, step: int) -> StepRun | None:
        """Return the run of missed steps that holds `step`."""
        index = self._run_at(step)
        return self.missed[index] if index < len(self.missed) and self.missed[index].first <= step else None

    # ----

    def _run_at(self, step: int) -> int:
        """Return where the first run is that ends at `step` or after."""
        return bisect.bisect_left(self.missed, step, key=lambda run: run.last)

    def _advance(self, progress: BufferProgress) -> None:
        self.next = max(self.next, progress.next)
        self.durable = max(self.durable, progress.durable)
        self.open_through = max(self.open_through, progress.open_through)
        if max(self.open_through, self.next - 1) >= self._held_from:
            self._held_from = 0
        self.window = progress.window
        if self.open_through >= self.next + self.window - 1:
            self._pressed = False
        if progress.first > progress.next:
            self.next_step = max(self.next_step, progress.first)
        for run in progress.missed:
            self._add_missed(run)
        self._drop(
            lambda batch: (
                batch.step < self.next and (batch.step <= self.durable or self.find_missed(batch.step) is not None)
            )
        )

    def _add_missed(self, run: StepRun) -> None:
        """Add what is new of it: what a stream was told of comes again with the next one."""
        step = run.first
        while step <= run.last:
            index = self._run_at(step)
            after = self.missed[index] if index < len(self.missed) else None
            if after is not None and after.first <= step:
                step = after.last + 1
                continue
            last = run.last if after is None else min(run.last, after.first - 1)
            before = self.missed[index - 1] if index > 0 else None
            if before is not None and before.last + 1 == step and before.failed == run.failed:
                self.missed[index - 1] = before._replace(last=last)
            else:
                self.missed.insert(index, StepRun(step, last, run.failed))
            step = last + 1

    def _drop(self, doomed: Callable[[Kept], bool]) -> None:
        self.bytes -= sum(batch.bytes for batch in self.kept if doomed(batch))
        self.kept = [batch for batch in self.kept if not doomed(batch)]

"""A bounded queue in front of one thread: how captures leave the training step."""

from __future__ import annotations

import atexit
import collections
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from fisherd.errors import DeadlineExceededError

Job = TypeVar("Job")

WhenFull = Literal["wait", "skip"]

_AT_EXIT = 5.0  # seconds that the interpreter's end may wait for one queue


class Background(Generic[Job]):
    """Does jobs in a thread of its own, in order, at most `size` of them waiting or under way. Thread-safe.

    A job that raises is done; the first such exception is raised by the next put() or drain(), once.
    """

    def __init__(self, work: Callable[[Job], None], size: int, name: str) -> None:
        """Start. `work` does one job."""
        if size < 1:
            message = f"a queue of {size}; expected at least 1"
            raise ValueError(message)
        self._work = work
        self._size = size
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._jobs: collections.deque[Job] = collections.deque()  # the first one is under way
        self._error: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.close)  # before the streams that its jobs write to, which are older

    def put(self, job: Job, *, when_full: WhenFull = "wait", timeout: float | None = None) -> bool:
        """Hand a job over; False if there was no room and it was left out.

        DeadlineExceededError if there is no room within `timeout` seconds; what an earlier job raised.
        """
        with self._changed:
            self._check()
            if when_full == "skip" and len(self._jobs) >= self._size:
                return False
            self._await(lambda: len(self._jobs) < self._size, timeout)
            self._check()
            self._jobs.append(job)
            self._changed.notify_all()
            return True

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all jobs are done. Errors as put()."""
        with self._changed:
            self._check()
            self._await(lambda: not self._jobs, timeout)
            self._check()

    def close(self, timeout: float = _AT_EXIT) -> bool:
        """Take no more jobs; return whether all were done within `timeout` seconds. Does not raise what they raised."""
        if os.getpid() != self._pid:
            return True
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._jobs, timeout)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, after close()."""
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def take_error(self) -> Exception | None:
        """Return what a job raised, once."""
        error, self._error = self._error, None
        return error

    def _check(self) -> None:
        if os.getpid() != self._pid:
            message = "made in another process: threads and connections do not survive fork; make it anew in this one"
            raise RuntimeError(message)
        if (error := self.take_error()) is not None:
            raise error
        if self._closed:
            message = "closed"
            raise RuntimeError(message)

    def _await(self, condition: Callable[[], bool], timeout: float | None) -> None:
        start = time.monotonic()
        done = self._changed.wait_for(lambda: condition() or self._closed or self._error is not None, timeout)
        if not done:
            waited = time.monotonic() - start
            message = (
                f"{len(self._jobs)} batches have waited {waited:.1f} s to be written; "
                "another tower lags, or the server is away"
            )
            raise DeadlineExceededError(message)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs[0]
            error: Exception | None = None
            try:
                self._work(job)
            except Exception as caught:  # noqa: BLE001 - it is raised where the next job comes from
                error = caught
            del job
            with self._changed:
                self._error = self._error or error
                self._jobs.popleft()
                self._changed.notify_all()

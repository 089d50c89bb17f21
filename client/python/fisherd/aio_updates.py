"""Streams of updates for asyncio: they have threads of their own; what waits for those is awaited."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from fisherd import errors
from fisherd import update_stream as threaded
from fisherd.types import MinVersion, Progress, UpdateStats


class UpdateStream:
    """fisherd.UpdateStream for asyncio."""

    def __init__(self, stream: threaded.UpdateStream) -> None:
        self._stream = stream

    async def open(
        self,
        factor: str,
        tower: int = 0,
        *,
        take_over: bool = False,
        timeout: float | None = 30.0,  # noqa: ASYNC109 - the thread's, which cannot be cancelled
    ) -> UpdateWriter:
        """See fisherd.UpdateStream.open()."""
        return UpdateWriter(
            await asyncio.to_thread(self._stream.open, factor, tower, take_over=take_over, timeout=timeout)
        )

    def status(self) -> errors.Error | None:
        """See fisherd.UpdateStream.status()."""
        return self._stream.status()

    async def close(self, timeout: float = 5.0) -> errors.Error | None:  # noqa: ASYNC109
        """See fisherd.UpdateStream.close()."""
        return await asyncio.to_thread(self._stream.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class UpdateWriter:
    """fisherd.UpdateWriter for asyncio: one call at a time.

    A task that is cancelled while it awaits leaves its call running in its thread: the batch may be written still.
    """

    def __init__(self, writer: threaded.UpdateWriter) -> None:
        self._writer = writer

    @property
    def factor(self) -> str:
        """The factor's name."""
        return self._writer.factor

    @property
    def tower(self) -> int:
        """Which replica of the trainer this is."""
        return self._writer.tower

    @property
    def next_step(self) -> int:
        """The step that the next write() will write."""
        return self._writer.next_step

    def min_version(self, step: int) -> MinVersion:
        """See fisherd.UpdateWriter.min_version()."""
        return self._writer.min_version(step)

    def progress(self) -> Progress:
        """See fisherd.UpdateWriter.progress()."""
        return self._writer.progress()

    def stats(self) -> UpdateStats:
        """See fisherd.UpdateWriter.stats()."""
        return self._writer.stats()

    async def write(self, inputs: Any, outputs_grads: Any, **options: Any) -> int:
        """See fisherd.UpdateWriter.write(), for the options too. The tensors must not change meanwhile."""
        return await asyncio.to_thread(self._writer.write, inputs, outputs_grads, **options)

    async def write_contribution(self, contribution: Any, *, rows: int, **options: Any) -> int:
        """See fisherd.UpdateWriter.write_contribution(), for the options too."""
        return await asyncio.to_thread(self._writer.write_contribution, contribution, rows=rows, **options)

    async def wait(self, step: int, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """See fisherd.UpdateWriter.wait()."""
        await asyncio.to_thread(self._writer.wait, step, timeout)

    async def wait_durable(self, step: int, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """See fisherd.UpdateWriter.wait_durable()."""
        await asyncio.to_thread(self._writer.wait_durable, step, timeout)

"""Memory that this process shares with a server on the same machine, in blocks: one for the elements of each batch.

As client/cpp/shared_memory.h.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import fcntl
import mmap
import os
import threading
import weakref
from typing import Any

import numpy as np

LEAST_SHARED_BYTES = 32 << 10  # of a batch: what is smaller gains nothing by it

_PAGE = 4096  # blocks begin at pages: a page is one block's, so that it is as warm as the block
_NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL, which some systems demand (Linux 6.3) and others do not know
_SEAL_FUTURE_WRITE = 16  # F_SEAL_FUTURE_WRITE, of Linux 5.1

Tower = tuple[str, int]  # factor, tower


@dataclasses.dataclass(frozen=True)
class Use:
    """Whose elements a block holds."""

    tower: Tower
    incarnation: int
    step: int


@dataclasses.dataclass(frozen=True)
class _Left:
    use: Use
    offset: int
    size: int


class SharedMemory:
    """One region, which the server maps whole and reads in place. Thread-safe.

    What the server may still read must not be written. It is done with the bytes of a step once the step has ended:
    from then on it discards whatever comes for it. And with all that was sent on a stream, once a newer stream of this
    client has been answered: it closes the old one before. So a block that its batch has left is used again only after
    one or the other, for whatever reason the batch went.
    """

    def __init__(self, size: int) -> None:
        """Make it. OSError if the system does not have it.

        It takes memory page by page, as pages are first written, and keeps it.
        """
        self._size = size = _whole_pages(size)
        self._file = _create_file()
        weakref.finalize(self, os.close, self._file)  # the mapping goes with the last view of it
        os.ftruncate(self._file, size)
        self._memory = np.frombuffer(mmap.mmap(self._file, size), np.uint8)
        _seal(self._file)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, size)]  # offset, size; ascending, none touches the next
        self._left: list[_Left] = []  # by their batches; perhaps not by the server
        self._leaving: collections.deque[_Left] = collections.deque()  # to _left; needs no lock, see SharedBlock
        self._ended: dict[Tower, tuple[int, int]] = {}  # incarnation, next

    @property
    def fd(self) -> int:
        """What to hand to the server: it can map it to read only, and nobody can change its size."""
        return self._file

    @property
    def size(self) -> int:
        """Bytes of the region."""
        return self._size

    @property
    def bytes_in_use(self) -> int:
        """Bytes that cannot be taken now."""
        with self._lock:
            self._free_left()
            return self._size - sum(size for _, size in self._free)

    def take(self, size: int, use: Use) -> SharedBlock | None:
        """Return a block of `size` bytes for this step's batch; None if there is no room."""
        size = _whole_pages(size)
        with self._lock:
            self._free_left()
            # The first that fits: what was written before is written again, and the rest stays untouched.
            for index, (offset, room) in enumerate(self._free):
                if room >= size:
                    self._free[index : index + 1] = [(offset + size, room - size)] if room > size else []
                    return SharedBlock(self, _Left(use, offset, size))
        return None

    def on_ended(self, tower: Tower, incarnation: int, next_step: int) -> None:
        """Hear the server's word: of this tower, the steps below `next_step` have ended, and all other incarnations."""
        with self._lock:
            self._ended[tower] = (incarnation, next_step)

    def on_new_stream(self) -> None:
        """Hear that a stream has had its first answer; nothing has been sent on it in shared memory yet."""
        with self._lock:
            self._ended.clear()  # another epoch may have lost what had ended
            self._take_leaving()
            for left in self._left:
                self._give_back(left.offset, left.size)
            self._left.clear()

    def _free_left(self) -> None:
        self._take_leaving()
        still = []
        for left in self._left:
            if self._has_ended(left.use):
                self._give_back(left.offset, left.size)
            else:
                still.append(left)
        self._left = still

    def _take_leaving(self) -> None:
        while self._leaving:
            self._left.append(self._leaving.popleft())

    def _has_ended(self, use: Use) -> bool:
        incarnation, next_step = self._ended.get(use.tower, (use.incarnation, 0))
        return use.incarnation != incarnation or use.step < next_step

    def _give_back(self, offset: int, size: int) -> None:
        index = bisect.bisect(self._free, (offset, size))
        if index < len(self._free) and self._free[index][0] == offset + size:
            size += self._free.pop(index)[1]
        if index > 0 and sum(self._free[index - 1]) == offset:
            index -= 1
            offset, before = self._free.pop(index)
            size += before
        self._free.insert(index, (offset, size))


class SharedBlock:
    """Belongs to one batch; goes with it."""

    def __init__(self, memory: SharedMemory, left: _Left) -> None:
        """Is made by SharedMemory.take()."""
        self._memory = memory
        self._as_left = left

    def __del__(self) -> None:
        """Leave. Whoever lets the batch go may hold any lock, so this takes none."""
        self._memory._leaving.append(self._as_left)  # noqa: SLF001 - its own

    @property
    def offset(self) -> int:
        """From the region's first byte."""
        return self._as_left.offset

    def write(self, at: int, data: Any) -> None:
        """Copy bytes to the block's byte `at` on, outside of the interpreter's lock."""
        first = self.offset + at
        from_ = np.frombuffer(data, np.uint8)
        np.copyto(self._memory._memory[first : first + len(from_)], from_)  # noqa: SLF001

    def read(self, at: int, size: int) -> memoryview:
        """Return a view of the block's bytes."""
        first = self.offset + at
        view: memoryview = self._memory._memory[first : first + size].data  # noqa: SLF001
        return view


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _create_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("fisherd-batches", flags | _NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("fisherd-batches", flags)


def _seal(file: int) -> None:
    with contextlib.suppress(OSError):  # of an older system
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEAL_FUTURE_WRITE)  # others can only read
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)

"""What a stream of updates shares with its server, when both are on one machine and the server offers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fisherd import errors
from fisherd.shared_memory import SharedMemory
from fisherd.shared_memory_door import KEY, SharedMemoryDoor
from fisherd.v1 import update_pb2

_DOOR_TIMEOUT = 1.0  # seconds


class Sharing:
    """Of the thread that reads the answers; `memory` of everybody."""

    def __init__(self, size: int) -> None:
        """Share up to `size` bytes; 0: nothing."""
        self.memory: SharedMemory | None = None  # once a server has taken it
        self._size = size
        self._door: SharedMemoryDoor | None = None

    def on_new_stream(self, metadata: Mapping[str, Any]) -> bytes:
        """Hear of a stream's first answer; return by which name its server knows the memory, b"" if it does not.

        metadata: the stream's initial metadata, where a server says that it takes memory. Else, and if that fails,
            batches travel.
        """
        memory = self.memory
        if memory is not None:
            memory.on_new_stream()
        announcement = metadata.get(KEY)
        if self._size <= 0 or announcement is None:
            return b""
        try:
            memory = memory or SharedMemory(self._size)
            if self._door is None or self._door.announcement != announcement or not self._door.stands():
                self.leave()  # the server has room for it again
                self._door = SharedMemoryDoor(announcement, memory.fd, _DOOR_TIMEOUT)
        except (OSError, errors.UnavailableError):
            return b""
        self.memory = memory
        return self._door.token

    def on_progress(self, progress: update_pb2.Progress) -> None:
        """Hear which steps of a tower have ended."""
        if self.memory is not None:
            self.memory.on_ended((progress.factor, progress.tower), progress.incarnation, progress.next)

    def leave(self) -> None:
        """Take the memory back from the server."""
        if self._door is not None:
            self._door.close()
            self._door = None

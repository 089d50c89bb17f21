"""Hands memory to a server on the same machine; update.proto describes the words that are exchanged."""

from __future__ import annotations

import socket

from fisherd.errors import UnavailableError

# Where a server announces its door, in the initial metadata of an update stream: 16 bytes that stand for it, and the
# path of its socket.
KEY = "fisherd-shared-memory-bin"

_GREETING = b"fisherd shared memory 1\n"
_TOKEN_BYTES = 16
_LONGEST_ANSWER = 512
_WORDS = 3


class SharedMemoryDoor:
    """A region that the server has mapped, as long as this lives and the server does. Used by one thread at a time."""

    def __init__(self, announcement: bytes, file: int, timeout: float) -> None:
        """Hand in the file. Waits for the server, at most `timeout` seconds for each of its words.

        UnavailableError if nobody is there, or another server than the one that has announced it, or it will not.
        """
        self.announcement = announcement
        server, path = announcement[:_TOKEN_BYTES], announcement[_TOKEN_BYTES:]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            socket.send_fds(self._socket, [_GREETING], [file])
            # SharedBytes.region.
            self.token = _token(self._read_line(), server)
            self._socket.setblocking(False)  # noqa: FBT003
        except (OSError, ValueError) as error:
            self.close()
            raise UnavailableError(f"cannot enter the server's door: {error}") from error
        except BaseException:
            self.close()
            raise

    def stands(self) -> bool:
        """Return whether the server has it still."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Take the region back; the server forgets it."""
        self._socket.close()

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < _LONGEST_ANSWER:
            more = self._socket.recv(_LONGEST_ANSWER)
            if not more:
                raise UnavailableError("the server's door says nothing")
            line += more
        return line.rstrip(b"\n")


def _token(line: bytes, server: bytes) -> bytes:
    words = line.split(b" ")
    if len(words) != _WORDS or words[0] != b"ok":
        raise UnavailableError(f"the server's door says: {line!r}")
    if bytes.fromhex(words[1].decode()) != server:
        raise UnavailableError("the door is another server's")
    return bytes.fromhex(words[2].decode())

"""Handing memory to a server: what is said, and what goes wrong."""

import array
import contextlib
import os
import pathlib
import socket
import threading

import pytest

import fisherd
from fisherd.shared_memory_door import SharedMemoryDoor

SERVER = bytes(range(16))
TOKEN = bytes(range(16, 32))


@contextlib.contextmanager
def door(path, answer):
    """Answer one visitor, keep the connection until the end, and give what he brought."""
    heard = {}
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            visitor, _ = listener.accept()
            with visitor:
                heard["words"], heard["files"], _, _ = socket.recv_fds(visitor, 100, 2)
                visitor.sendall(answer)
                if answer:
                    done.wait(10)
            for file in heard["files"]:
                os.close(file)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard, done
        done.set()
        thread.join(10)


def ok(server=SERVER, token=TOKEN):
    return f"ok {server.hex()} {token.hex()}\n".encode()


def enter(path):
    with pathlib.Path(os.devnull).open("rb") as file:
        return SharedMemoryDoor(SERVER + os.fsencode(path), file.fileno(), 1)


def test_it_is_taken(tmp_path):
    with door(tmp_path / "door", ok()) as (heard, done):
        mine = enter(tmp_path / "door")
        assert heard["words"] == b"fisherd shared memory 1\n"
        assert len(array.array("i", heard["files"])) == 1
        assert mine.token == TOKEN
        assert mine.announcement == SERVER + os.fsencode(tmp_path / "door")
        assert mine.stands()
        done.set()
        mine._socket.settimeout(5)
        assert mine._socket.recv(1) == b""
        mine._socket.setblocking(False)
        assert not mine.stands()
        mine.close()
        assert not mine.stands()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ok(server=bytes(16)), "another server's"),
        (b"error no room\n", "no room"),
        (b"", "says nothing"),
        (b"ok 12 zz\n", "another server's"),
        (b"ok " + SERVER.hex().encode() + b" zz\n", "cannot enter"),
        (b"x" * 600, "door says"),
        (b"half a line", "cannot enter"),
    ],
)
def test_it_is_not(tmp_path, answer, message):
    with door(tmp_path / "door", answer), pytest.raises(fisherd.UnavailableError, match=message):
        enter(tmp_path / "door")


def test_nobody_is_there(tmp_path):
    for path in (tmp_path / "door", "", "x" * 200):
        with pytest.raises(fisherd.UnavailableError):
            enter(path)

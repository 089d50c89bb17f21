"""A private server, for tests and notebooks."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from fisherd.client import Client
from fisherd.errors import UnavailableError

_LONGEST_SOCKET = 108  # bytes of the path of a Unix socket, with an end
_STOP_TIMEOUT = 15.0  # seconds; the server's own grace for calls under way is 10


class Server:
    """A fisherd process of our own, at a free port of this machine's loopback; a context manager that stops it.

    ::

        with fisherd.Server() as server, server.client() as client:
            ...

    Serves once the constructor returns. Its memory is lost when it stops. Not thread-safe.
    """

    def __init__(self, binary: str | os.PathLike[str] | None = None, *, timeout: float = 30.0, **flags: Any) -> None:
        """Start it.

        binary: the server program; if None, what $FISHERD_BINARY names, else `fisherd` on the PATH, else the build of
            the checkout that this package is part of, or that is the working directory.
        timeout: seconds that it may take until it serves.
        flags: the server's, as `fisherd --help` lists them: window=2, state_budget="1GiB", gather_timeout="5s". It
            reads batches of this machine's trainers in place unless shared_memory=None.

        FileNotFoundError if there is no binary; UnavailableError, with what it said, if it does not serve in time.
        """
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="fisherd-")
        folder = pathlib.Path(self._folder.name)
        self._log = folder / "log"
        listen = flags.pop("listen", "127.0.0.1:0")
        door = folder / "memory"
        if len(os.fsencode(door)) < _LONGEST_SOCKET:
            flags.setdefault("shared_memory", door)
        port_file = folder / "port"
        arguments = [f"--{name.replace('_', '-')}={_text(value)}" for name, value in flags.items() if value is not None]
        command = [_find(binary), f"--listen={listen}", f"--port-file={port_file}", *arguments]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
            atexit.register(self.stop)
            self._target = f"127.0.0.1:{self._await_port(port_file, timeout)}"
        except BaseException:
            self.stop()
            raise

    @property
    def target(self) -> str:
        """Where it serves, as clients are told."""
        return self._target

    @property
    def pid(self) -> int | None:
        """Its process; None once it has been stopped."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def client(self, **options: Any) -> Client:
        """Return a new client of it, with these options of Client."""
        return Client(self._target, **options)

    def stop(self) -> None:
        """Ask it to end, wait until it has, and remove its files. Does nothing the second time.

        The interpreter's end does it, too; in a process that was forked from the one that started it, nothing does.
        """
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_port(self, port_file: pathlib.Path, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while not port_file.exists():  # it appears whole
            status = None if self._process is None else self._process.poll()
            if status is not None:
                message = f"fisherd ended at once, with status {status}: {self.log.strip()}"
                raise UnavailableError(message)
            if time.monotonic() > deadline:
                message = f"fisherd does not serve within {timeout:g} s: {self.log.strip()}"
                raise UnavailableError(message)
            time.sleep(0.005)
        return int(port_file.read_text())


def _text(value: Any) -> str:
    """Return a flag's value as the server reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _find(binary: str | os.PathLike[str] | None) -> str:
    if binary is not None:
        return os.fspath(binary)
    for candidate in _candidates():
        if candidate is not None and os.access(candidate, os.X_OK):
            return os.fspath(candidate)
    message = "no fisherd binary: name one, set FISHERD_BINARY, put it on the PATH, or ./dev build in a checkout"
    raise FileNotFoundError(message)


def _candidates() -> Iterator[str | os.PathLike[str] | None]:
    named = os.environ.get("FISHERD_BINARY")
    if named is not None:
        yield named
        return
    yield shutil.which("fisherd")
    places: Sequence[pathlib.Path] = (pathlib.Path(__file__).resolve(), pathlib.Path.cwd() / "here")
    for place in places:
        yield from (folder / "build/release/server/fisherd" for folder in place.parents)

"""A private server: found, started, stopped."""

import os
import pathlib

import pytest

import fisherd


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_serves_and_stops():
    with fisherd.Server(window=2) as server:
        pid = server.pid
        assert alive(pid)
        with server.client() as client:
            client.check_health()
            info = client.create_factor("f", fisherd.FullyConnectedDiagonal(1, 1))
        assert info.spec.window == 2
        assert f"port {server.target.rpartition(':')[2]}" in server.log
    assert not alive(pid)
    assert server.pid is None
    server.stop()


def test_what_cannot_be_started(tmp_path, monkeypatch):
    with pytest.raises(fisherd.UnavailableError, match="status .*unknown flag --wimdow; did you mean --window"):
        fisherd.Server(wimdow=2)
    with pytest.raises(FileNotFoundError):
        fisherd.Server(tmp_path / "nothing")
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho warming up\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(fisherd.UnavailableError, match="does not serve within 0.2 s: warming up"):
        fisherd.Server(slow, timeout=0.2)


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    binary = os.environ["FISHERD_BINARY"]
    monkeypatch.setenv("FISHERD_BINARY", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="FISHERD_BINARY"):
        fisherd.Server()
    monkeypatch.delenv("FISHERD_BINARY")
    monkeypatch.setattr("fisherd.server.__file__", str(tmp_path / "site-packages/fisherd/server.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        fisherd.Server()
    (tmp_path / "fisherd").symlink_to(pathlib.Path(binary).resolve())
    fisherd.Server().stop()
    (tmp_path / "fisherd").unlink()
    place = tmp_path / "build/release/server"
    place.mkdir(parents=True)
    (place / "fisherd").symlink_to(pathlib.Path(binary).resolve())
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    fisherd.Server().stop()

"""A server on a data directory that is killed and comes back."""

import os
import signal

import fisherd


def start(directory, port=0):
    return fisherd.Server(
        shared_memory=None,
        listen=f"127.0.0.1:{port}",
        data_dir=directory,
        snapshot_interval="20ms",
        log_level="warning",
    )


def kill_and_restart(server, directory):
    """Kill a server (kill -9) and return the next one, on the same port."""
    port = int(server.target.rpartition(":")[2])
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    return start(directory, port)

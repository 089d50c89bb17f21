"""Batches spread over devices, over processes, and processes that end without a word."""

import ast
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("jax.numpy", reason="JAX is not installed")
pytest.importorskip("optax", reason="optax is not installed")

PROGRAM = pathlib.Path(__file__).with_name("processes.py")
A = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], "f8")
G = np.array([[1, -1], [2, 0.5], [3, 1], [-2, 4]], "f8")
C = (A**2).T @ (G**2) / 4


def start(server, name, *arguments, devices):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, PROGRAM, server.target, name, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("processes", [1, 2])
def test_spread_over_two_devices(server, name, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [start(server, name, port, processes, own, devices=2 // processes) for own in range(processes)]
    ends = [process.communicate(timeout=120) for process in running]
    for process, (printed, said) in zip(running, ends, strict=True):
        assert process.returncode == 0, said
        np.testing.assert_allclose(ast.literal_eval(printed.splitlines()[-1]), C, rtol=1e-6)


def test_a_script_that_closes_nothing_has_streamed_its_captures(server, client, name):
    text = """
import sys, fisherd, fisherd.jax, numpy as np
ones = np.ones((2, 2), "f4")
fisher = fisherd.jax.attach(fisherd.Client(sys.argv[1]), prefix=sys.argv[2] + "/")
captures = fisherd.jax.capture(lambda w: fisherd.jax.dense(ones, w, name="layer").mean())(ones)
for _ in range(3):
    fisher.update(captures)
"""
    subprocess.run([sys.executable, "-c", text, server.target, name], check=True, timeout=60)
    deadline = time.monotonic() + 10
    while client.read(f"{name}/layer").steps_committed < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.read(f"{name}/layer").steps_committed == 3

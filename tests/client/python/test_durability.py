"""A server that is killed comes back on its data directory, and the trainers go on; its files open as safetensors."""

import json
import pathlib
import threading

import numpy as np
import pytest

import fisherd
from durable_server import kill_and_restart, start

KIND = fisherd.FullyConnectedDiagonal(2, 3, has_bias=False)
STEPS = 60


def batch(step, rank):
    """Integers, so that sums are exact."""
    return np.full((1, 2), 1 + (step + rank) % 3, np.float32), np.full((1, 3), 1 + step % 2, np.float32)


def train(target, rank, reached):
    with fisherd.Client(target) as client, client.open_updates(form="raw", first_reconnect_delay=0.01) as updates:
        writer = updates.open("f", rank)
        for step in range(1, STEPS + 1):
            assert writer.write(*batch(step, rank), decay=1, weight=1) == step
            if step % 20 == 0:
                reached[rank][step].set()
        writer.wait_durable(STEPS, timeout=60)


@pytest.mark.parametrize("durability", ["snapshot", "sync"])
def test_two_ranks_go_on_after_kill_9(tmp_path, durability):
    server = start(tmp_path / "data")
    with server.client() as client:
        client.create_factor("f", KIND, towers=2, zero_debias=False, durability=durability)
    reached = [{step: threading.Event() for step in range(20, STEPS + 1, 20)} for _ in range(2)]
    ranks = [threading.Thread(target=train, args=(server.target, rank, reached)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for step in (20, 40):
        assert all(events[step].wait(60) for events in reached)
        server = kill_and_restart(server, tmp_path / "data")
    for rank in ranks:
        rank.join(60)
        assert not rank.is_alive()
    expected = sum(
        np.square(a).T @ np.square(g) / 2 for step in range(1, STEPS + 1) for a, g in (batch(step, 0), batch(step, 1))
    )
    with server.client() as client:
        info = client.describe("f")
        assert (info.next, info.durable, info.steps_failed) == (STEPS + 1, STEPS, 0)
        assert np.array_equal(client.read("f").weight, expected)
    server.stop()


def test_a_generation_file_opens_as_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    from safetensors.numpy import load_file

    with start(tmp_path / "data") as server, server.client() as client:
        client.create_factor("net/0", KIND, zero_debias=False)
        client.set_damping("d", 0.5)
        client.register("net/0", fisherd.matpower(-1, "d"))
        with client.open_updates() as updates:
            writer = updates.open("net/0", 0)
            writer.write(*batch(1, 0), decay=1, weight=1)
            writer.wait(1)
        served = client.read("net/0", fisherd.matpower(-1, "d"))
    (path,) = pathlib.Path(tmp_path / "data/generations").iterdir()
    tensors = load_file(path)
    a, g = batch(1, 0)
    assert np.array_equal(tensors["covariance/net/0"], np.square(a).T @ np.square(g))
    assert np.array_equal(tensors["result/0/net/0"].ravel(), served.value.diag_part().ravel())
    with safetensors.safe_open(path, "numpy") as file:
        saved = json.loads(file.metadata()["factor/net/0"])
    assert saved["version"]["step"] == "1"

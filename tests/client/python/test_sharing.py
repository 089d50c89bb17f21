"""Batches that a server on this machine reads in place: that they are, that it changes nothing, and what happens else."""

import pathlib
import threading
import time

import numpy as np
import pytest

import fisherd
from proxy import Proxy

ROWS = 256  # of 160 bytes: 40 KiB a batch
BATCH = ROWS * 160
KIND = fisherd.FullyConnectedDiagonal(30, 10, has_bias=True)


@pytest.fixture
def own_server():
    """One whose door a test may spoil."""
    with fisherd.Server(log_level="warning") as server:
        yield server


def batch(step):
    row, column = np.ogrid[:ROWS, :30]
    return ((row + column + step) % 7).astype("f4"), ((row * column[:, :10] + step) % 5).astype("f4")


def write(writer):
    return writer.write(*batch(writer.next_step), decay=1, weight=1)


def write_through(writer, step):
    while writer.next_step <= step:
        write(writer)
    writer.wait(step, timeout=30)


def expected(steps):
    total = np.zeros((30, 10))
    for step in range(1, steps + 1):
        inputs, grads = batch(step)
        total += np.square(inputs).T @ np.square(grads) / ROWS
    return total / steps


def door_of(server):
    return pathlib.Path(server._folder.name) / "memory"


@pytest.mark.parametrize("max_frame", [1 << 20, 10_000])
def test_it_is_used_by_itself_and_changes_no_bit(client, name, max_frame):
    steps = 40
    for memory in (64 << 20, 0):
        client.create_factor(f"{name}/{memory}", KIND)
        with client.open_updates(shared_memory=memory, max_frame=max_frame, form="raw") as updates:
            writer = updates.open(f"{name}/{memory}")
            write_through(writer, steps)
            stats = writer.stats()
        assert stats.raw_batches == steps
        assert stats.shared_batches == (steps if memory else 0)
        assert stats.resent_batches == 0
    shared, travelled = (client.read(f"{name}/{memory}") for memory in (64 << 20, 0))
    assert shared.weight.tobytes() == travelled.weight.tobytes()
    assert shared.bias.tobytes() == travelled.bias.tobytes()
    np.testing.assert_allclose(shared.weight, expected(steps), rtol=1e-6)


def test_contributions_too(client, name):
    client.create_factor(name, fisherd.FullyConnectedDiagonal(200, 200))
    with client.open_updates() as updates:
        writer = updates.open(name)
        writer.write_contribution(np.full((200, 200), 3, "f4"), rows=2, decay=0, wait=True)
        assert writer.stats().shared_batches == 1
    np.testing.assert_array_equal(client.read(name).weight, 3)


def test_what_finds_no_room_travels(server, client, name):
    client.create_factor(name, KIND, towers=2)
    with (
        server.client() as other,
        client.open_updates(shared_memory=BATCH, form="raw") as updates,  # room for one batch, where the window takes 4
        other.open_updates(form="raw") as theirs,
    ):
        writer, late = updates.open(name), theirs.open(name, 1)
        assert [write(writer) for _ in range(4)] == [1, 2, 3, 4]
        write_through(late, 4)
        writer.wait(4, timeout=30)
        assert writer.stats().shared_batches == 1
        assert write(writer) == 5, "and the room is there again"
        write_through(late, 5)
        writer.wait(5, timeout=30)
        assert writer.stats().shared_batches == 2
        assert late.stats().shared_batches == 5


def test_small_batches_travel(client, name):
    client.create_factor(name, KIND)
    with client.open_updates() as updates:
        writer = updates.open(name)
        writer.write(np.ones((9, 30), "f4"), np.ones((9, 10), "f4"), wait=True)
        assert writer.stats().shared_batches == 0


def test_a_server_without_room_is_sent_the_bytes(client, name):
    client.create_factor(name, KIND)
    with client.open_updates(shared_memory=1 << 45, form="raw") as updates:
        writer = updates.open(name)
        write_through(writer, 3)
        assert writer.stats().shared_batches == 0


def test_a_server_without_a_door(name):
    with fisherd.Server(shared_memory=None) as server, server.client() as client, client.open_updates() as updates:
        client.create_factor(name, KIND)
        writer = updates.open(name)
        write_through(writer, 3)
        assert writer.stats().shared_batches == 0


def test_a_door_that_is_gone_is_no_error(own_server, name):
    door_of(own_server).unlink()
    with own_server.client() as client, client.open_updates(form="raw") as updates:
        client.create_factor(name, KIND)
        writer = updates.open(name)
        write_through(writer, 3)
        assert writer.stats().shared_batches == 0


def test_a_server_that_has_lost_the_memory(own_server, name):
    with own_server.client() as client, client.open_updates(form="raw") as updates:
        client.create_factor(name, KIND)
        writer = updates.open(name)
        write_through(writer, 3)
        assert writer.stats().shared_batches == 3
        updates._connection._sharing.leave()  # the server ends the stream: it knows the region no more
        write_through(writer, 6)
        assert writer.stats().reconnects >= 1
        np.testing.assert_allclose(client.read(name).weight, expected(6), rtol=1e-6)
        write_through(writer, 8)
        assert writer.stats().shared_batches >= 5, "and shares again"


@pytest.mark.parametrize("memory", [4 * BATCH, 64 << 20])
def test_cuts_neither_lose_nor_double_nor_spoil_a_batch(server, client, name, memory):
    steps = 150
    client.create_factor(name, KIND)
    done = threading.Event()
    options = [("grpc.initial_reconnect_backoff_ms", 5), ("grpc.min_reconnect_backoff_ms", 5),
               ("grpc.max_reconnect_backoff_ms", 20), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
    with Proxy(int(server.target.rpartition(":")[2])) as proxy:

        def cut():
            while not done.wait(0.02):
                proxy.cut()

        cutter = threading.Thread(target=cut, daemon=True)
        with fisherd.Client(proxy.target, options=options) as other:
            with other.open_updates(
                form="raw", shared_memory=memory, first_reconnect_delay=0.005, max_reconnect_delay=0.02
            ) as updates:
                writer = updates.open(name)
                write_through(writer, 2)
                cutter.start()
                while writer.next_step <= steps:
                    write(writer)
                    time.sleep(0.003)
                writer.wait(steps, timeout=60)
                done.set()
                stats = writer.stats()
            cutter.join()
    assert stats.reconnects > 0
    assert stats.shared_batches > 0
    reading = client.read(name)
    assert reading.steps_committed == steps
    np.testing.assert_allclose(reading.weight, expected(steps), rtol=2e-7)

"""Streams of updates through a real server: forms, towers, refusals, and cuts that leave the bits as they were."""

import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fisherd
from proxy import Proxy

A = np.array([[1, 2], [3, 4]], np.float32)
G = np.array([[1, -1], [2, 0.5]], np.float32)
KIND = fisherd.FullyConnectedDiagonal(2, 2, has_bias=True)


def test_every_type_of_the_wire(client, updates, name):
    torch_types = []
    try:
        import torch

        torch_types = [torch.from_numpy(A).to(torch.bfloat16)]
    except ImportError:
        pass
    bits = (A.view(np.uint32) >> 16).astype(np.uint16)
    client.create_factor(name, KIND)
    writer = updates.open(name)
    for inputs in (A, A.astype("f8"), A.astype("f2"), fisherd.bfloat16(bits), *torch_types):
        step = writer.write(inputs, G.astype("f2"), decay=0)
        reading = client.read(name, min_version=writer.min_version(step))
        np.testing.assert_array_equal(reading.weight, [[18.5, 1.625], [34, 4]])


def test_raw_and_contribution_have_the_same_bits_where_sums_are_exact(client, name):
    rng = np.random.default_rng(0)
    inputs = rng.integers(-9, 9, (300, 20)).astype("f4")
    grads = [rng.integers(-9, 9, (300, 10)).astype("f4") for _ in range(2)]
    kind = fisherd.FullyConnectedDiagonal(20, 10, has_bias=True)
    readings = []
    for form in ("raw", "contribution"):
        client.create_factor(f"{name}/{form}", kind, sources=2)
        with client.open_updates(form=form) as updates:
            updates.open(f"{name}/{form}").write(inputs, grads, decay=1, weight=300, gradient_scale=2, wait=True)
        readings.append(client.read(f"{name}/{form}"))
    np.testing.assert_array_equal(readings[0].weight, readings[1].weight)
    np.testing.assert_array_equal(readings[0].bias, readings[1].bias)


@pytest.mark.parametrize("form", ["auto", "raw"])
def test_a_contribution_of_ones_own(client, name, form):
    client.create_factor(name, KIND, dtype="float64")
    total = np.array([[18.5, 1.625], [34, 4], [2.5, 0.625]])
    with client.open_updates(form=form) as updates:
        writer = updates.open(name)
        writer.write_contribution(total, rows=2, decay=1, weight=1, label=9)
        writer.write_contribution(3 * total, rows=2, decay=1, weight=1, wait=True)
        for wrong, rows in ((total, 0), (total[:2], 2), (-total, 2), (total * np.nan, 2)):
            with pytest.raises(fisherd.InvalidArgumentError):
                writer.write_contribution(wrong, rows=rows, wait=True)
        assert writer.stats().contribution_batches == 6
    reading = client.read(name)
    np.testing.assert_array_equal(reading.weight, 2 * total[:2])
    np.testing.assert_array_equal(reading.bias, 2 * total[2])


def test_the_arrays_may_change_after_write(client, name):
    client.create_factor(name, fisherd.FullyConnectedDiagonal(1000, 1000))
    with client.open_updates(form="raw") as updates:
        writer = updates.open(name)
        inputs, grads = np.ones((64, 1000), "f4"), np.ones((64, 1000), "f4")
        step = writer.write(inputs, grads)
        inputs[:] = grads[:] = np.nan
        writer.wait(step, timeout=10)
        np.testing.assert_array_equal(client.read(name).weight, 1)


@pytest.mark.parametrize("form", ["raw", "contribution"])
def test_a_refusal(client, name, form):
    client.create_factor(name, KIND)
    with client.open_updates(form=form) as updates:
        writer = updates.open(name)
        with pytest.raises(fisherd.InvalidArgumentError) as error:
            writer.write(np.full_like(A, np.nan), G, wait=True)
        assert error.value.reason == "NON_FINITE_INPUT"
        assert error.value.metadata["factor"] == name
        assert writer.write(A, G, wait=True) == 1
        with pytest.raises(fisherd.InvalidArgumentError) as error:
            writer.write(A, G, decay=2, wait=True)
        assert error.value.reason == "BAD_ARGUMENT"
        with pytest.raises(fisherd.InvalidArgumentError):
            writer.write(A, G, gradient_scale=0, wait=True)
        with pytest.raises(fisherd.Error):
            writer.write(A, [G, G], wait=True)
        assert writer.write(A, G, wait=True) == 2


def test_a_tower_of_another_client(server, client, updates, name):
    client.create_factor(name, KIND)
    writer = updates.open(name)
    with server.client() as other, other.open_updates() as theirs:
        with pytest.raises(fisherd.FailedPreconditionError) as error:
            theirs.open(name)
        assert error.value.reason == "TOWER_CLAIMED"
        taken = theirs.open(name, take_over=True)
        with pytest.raises(fisherd.FailedPreconditionError):
            writer.write(A, G, wait=True)
        assert taken.write(A, G, wait=True) == 1
    with pytest.raises(fisherd.OutOfRangeError):
        updates.open(name, 1)
    with pytest.raises(fisherd.NotFoundError):
        updates.open("nothing")


def test_a_reset_ends_the_writer(client, updates, name):
    client.create_factor(name, KIND, towers=2)
    writer = updates.open(name)
    writer.write(A, G)
    client.reset(name)
    with pytest.raises(fisherd.FailedPreconditionError) as error:
        writer.wait(1, timeout=10)
    assert error.value.reason == "OLD_INCARNATION"
    assert updates.open(name).next_step == 1


def test_stragglers(client, updates, name):
    client.create_factor(name, KIND, towers=2, gather_timeout=0.05)
    writer = updates.open(name)
    with pytest.raises(fisherd.FailedPreconditionError) as error:
        writer.write(A, G, wait=True)
    assert error.value.reason == "STEP_FAILED"
    assert writer.progress().missed == ((1, 1, True),)
    other = updates.open(name, 1)
    assert (writer.next_step, other.next_step) == (2, 2)


def test_a_process_that_ends_sends_what_it_has_written(server, client, name):
    client.create_factor(name, fisherd.FullyConnectedDiagonal(2, 2))
    code = """
import sys, fisherd, numpy
writer = fisherd.Client(sys.argv[1]).open_updates().open(sys.argv[2])
for _ in range(3):
    writer.write(numpy.ones((5000, 2)), numpy.ones((5000, 2)))
"""
    subprocess.run([sys.executable, "-c", code, server.target, name], check=True, timeout=30)
    assert client.describe(name).steps_committed == 3


def test_a_server_that_went_away_and_came_back_empty(name):
    with fisherd.Server() as server:
        port = server.target.rpartition(":")[2]
        client = server.client()
        client.create_factor(name, KIND)
        updates = client.open_updates(first_reconnect_delay=0.01)
        writer = updates.open(name)
        writer.write(A, G, wait=True)
    with fisherd.Server(listen=f"127.0.0.1:{port}"):
        with pytest.raises(fisherd.NotFoundError):
            writer.write(A, G, timeout=20, wait=True)
        client.create_factor(name, KIND)
        assert updates.open(name).write(A, G, wait=True) == 1
    client.close()


STEPS = 60
LAYERS = {"small": (3, 2, 2), "wide": (40, 300, 64)}


def batch(layer, tower, step):
    """Return integers, whose sums are exact: any lost or doubled batch shows in the bits, and no order does."""
    inputs, outputs, rows = LAYERS[layer]
    rng = np.random.default_rng([tower, step, inputs])
    return rng.integers(-3, 4, (rows, inputs)).astype("f4"), rng.integers(-3, 4, (rows, outputs)).astype("f4")


def train(client, prefix, tower, pause):
    with client.open_updates(first_reconnect_delay=0.005, max_reconnect_delay=0.02, max_frame=4096) as updates:
        writers = {layer: updates.open(f"{prefix}/{layer}", tower) for layer in LAYERS}
        for step in range(1, STEPS + 1):
            for layer, writer in writers.items():
                assert writer.write(*batch(layer, tower, step), decay=1, weight=1, timeout=60) == step
            pause()
        for writer in writers.values():
            writer.wait(STEPS, timeout=60)
            writer.wait_durable(STEPS, timeout=60)
        return sum(writer.stats().reconnects for writer in writers.values()), {
            layer: writer.stats() for layer, writer in writers.items()
        }


def run_two_towers(clients, prefix, pause):
    results = [None, None]

    def run(tower):
        results[tower] = train(clients[tower], prefix, tower, pause)

    threads = [threading.Thread(target=run, args=(tower,)) for tower in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert all(results), "a tower did not get through"
    return results


@pytest.mark.parametrize("seed", range(2))
def test_cuts_leave_the_bits_as_they_were(server, client, name, seed):
    for layer, (inputs, outputs, _) in LAYERS.items():
        kind = fisherd.FullyConnectedDiagonal(inputs, outputs, has_bias=True)
        for run in ("whole", "cut"):
            client.create_factor(f"{name}/{run}/{layer}", kind, towers=2)
    with server.client() as first, server.client() as second:
        run_two_towers([first, second], f"{name}/whole", lambda: None)
    rng = random.Random(seed)
    done = threading.Event()
    with Proxy(int(server.target.rpartition(":")[2])) as proxy:

        def cut():
            while not done.wait(rng.uniform(0.005, 0.05)):
                proxy.cut()

        options = [("grpc.initial_reconnect_backoff_ms", 5), ("grpc.min_reconnect_backoff_ms", 5),
                   ("grpc.max_reconnect_backoff_ms", 20), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
        cutter = threading.Thread(target=cut, daemon=True)
        with (
            fisherd.Client(proxy.target, options=options) as first,
            fisherd.Client(proxy.target, options=options) as second,
        ):
            cutter.start()
            results = run_two_towers([first, second], f"{name}/cut", lambda: time.sleep(0.005))
            done.set()
            cutter.join()
    assert sum(reconnects for reconnects, _ in results) > 0
    for layer in LAYERS:
        whole, cut = (client.read(f"{name}/{run}/{layer}") for run in ("whole", "cut"))
        assert (whole.steps_committed, cut.steps_committed) == (STEPS, STEPS)
        assert whole.weight.tobytes() == cut.weight.tobytes()
        assert whole.bias.tobytes() == cut.bias.tobytes()
    expected = sum((np.square(a).T @ np.square(g)) / len(a) for a, g in
                   (batch("small", tower, step) for tower in range(2) for step in range(1, STEPS + 1)))  # fmt: skip
    np.testing.assert_allclose(cut_weight(client, name), expected / 2 / STEPS, rtol=1e-6)


def cut_weight(client, name):
    return client.read(f"{name}/cut/small").weight

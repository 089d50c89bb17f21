"""The client for asyncio, through a real server."""

import asyncio

import numpy as np
import pytest

import fisherd
from fisherd.v1 import factor_service_pb2 as service_pb2

A = np.array([[1, 2], [3, 4]], np.float32)
G = np.array([[1, -1], [2, 0.5]], np.float32)
C = np.array([[18.5, 1.625], [34, 4], [2.5, 0.625]], np.float32)
KIND = fisherd.FullyConnectedDiagonal(2, 2, has_bias=True)


def run(server, function):
    async def main():
        async with fisherd.aio.Client(server.target) as client:
            await asyncio.wait_for(function(client), 30)

    asyncio.run(main())


def test_it_has_the_same_methods():
    for one, other in (
        (fisherd.Client, fisherd.aio.Client),
        (fisherd.UpdateWriter, fisherd.aio.UpdateWriter),
    ):
        assert {name for name in dir(one) if name[0] != "_"} == {name for name in dir(other) if name[0] != "_"}


def test_factors(server, name):
    async def test(client):
        await client.wait_ready()
        await client.check_health()
        info = await client.create_factor(name, KIND, towers=2)
        assert await client.describe(name) == info
        assert [each.name for each in await client.list(name)] == [name]
        assert await client.set_towers(name, 1) == 1
        assert (await client.reset(name)).version.incarnation > info.version.incarnation
        await client.delete(name)
        with pytest.raises(fisherd.NotFoundError) as error:
            await client.describe(name)
        assert error.value.reason == "FACTOR_NOT_FOUND"
        await client.set_damping(name, 0.5)
        assert await client.list_dampings(name) == {name: 0.5}
        await client.delete_damping(name)

    run(server, test)


def test_tensors(server, name):
    async def test(client):
        await client.create_factor(name, KIND)
        async with client.open_updates() as updates:
            writer = await updates.open(name)
            assert (writer.factor, writer.tower, writer.next_step) == (name, 0, 1)
            step = await writer.write(A, G, decay=0)
            await writer.wait(step)
            await writer.wait_durable(step, timeout=10)
            assert writer.progress().next == 2
            assert writer.stats().contribution_batches == 1
            assert updates.status() is None
        assert updates.status().code == "CANCELLED"
        reading = await client.read(name, min_version=writer.min_version(step))
        np.testing.assert_array_equal(reading.weight, C[:2])
        product = await client.multiply(name, fisherd.covariance(), C[:2], C[2])
        np.testing.assert_array_equal(product.weight, C[:2] ** 2)
        large = fisherd.FullyConnectedDiagonal(700, 1000)
        await client.create_factor(name + "/large", large, zero_debias=False, initial_covariance="ones")
        x = np.random.default_rng(0).random((700, 1000))
        items = [fisherd.MultiplyItem(name + "/large", fisherd.matpower(1, 1), x)] * 2
        for product in await client.multiply_all(items):
            np.testing.assert_array_equal(product.weight, 2 * x)
        assert await client.multiply_all([]) == []
        with pytest.raises(fisherd.FailedPreconditionError):
            await client.read(name, min_version=fisherd.MinVersion(1, 1))

    run(server, test)


def test_registrations(server, name):
    async def test(client):
        await client.create_factor(name, KIND)
        await client.set_damping(name, 1)
        operator = fisherd.cholesky(name)
        await client.register(name, operator)
        assert await client.update_inverses(name) == 1
        await client.unregister(name, operator)

    run(server, test)


def test_watch(server, name):
    async def test(client):
        await client.create_factor(name, KIND)
        kinds = []
        async for event in client.watch(name):
            kinds.append(event.kind)
            if event.kind == service_pb2.FACTOR_EVENT_KIND_PRESENT:
                await client.delete(name)
            else:
                break
        assert kinds == [service_pb2.FACTOR_EVENT_KIND_PRESENT, service_pb2.FACTOR_EVENT_KIND_DELETED]

    run(server, test)


def test_no_server():
    async def main():
        async with fisherd.aio.Client("127.0.0.1:1", timeout=0.2) as client:
            with pytest.raises(fisherd.UnavailableError, match="no server answers"):
                await client.wait_ready(0.1)

    asyncio.run(main())

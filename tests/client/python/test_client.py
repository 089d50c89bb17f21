"""The calls of Client through a real server."""

import threading

import numpy as np
import pytest

import fisherd
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2

A = np.array([[1, 2], [3, 4]], np.float32)
G = np.array([[1, -1], [2, 0.5]], np.float32)
C = np.array([[18.5, 1.625], [34, 4], [2.5, 0.625]], np.float32)
KIND = fisherd.FullyConnectedDiagonal(2, 2, has_bias=True)


@pytest.fixture
def factor(client, updates, name):
    """Return the name of a factor with one step in it, whose covariance is C."""
    client.create_factor(name, KIND)
    updates.open(name).write(A, G, decay=0, wait=True)
    return name


def test_ready_and_healthy(client):
    assert client.wait_ready() is client
    client.check_health()


def test_no_server():
    with fisherd.Client("127.0.0.1:1", timeout=0.2) as client:
        with pytest.raises(fisherd.UnavailableError, match="no server answers at 127.0.0.1:1 within 0.1 s"):
            client.wait_ready(0.1)
        with pytest.raises(fisherd.Error) as error:
            client.describe("f")
        assert error.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_unix_socket(tmp_path):
    path = f"unix:{tmp_path}/socket"
    with fisherd.Server(listen=f"127.0.0.1:0,{path}"), fisherd.Client(path, token="t") as client:
        client.wait_ready()
        client.create_factor("f", KIND)
        with client.open_updates() as updates:
            updates.open("f").write(A, G, wait=True)
        assert client.describe("f").steps_committed == 1


def test_a_token_needs_encryption_or_this_machine():
    for target in ("example.com:7600", "10.0.0.1:7600"):
        with pytest.raises(ValueError, match="unencrypted"):
            fisherd.Client(target, token="secret")
    for target in ("localhost:7600", "127.0.0.1:7600", "[::1]:7600", "unix:/tmp/s"):
        fisherd.Client(target, token="secret").close()


def test_create_is_idempotent(client, name):
    info = client.create_factor(
        name,
        KIND,
        towers=2,
        sources=3,
        dtype="float64",
        tower_weighting="example_weighted",
        zero_debias=False,
        initial_covariance="ones",
        update_mode="asynchronous",
        gather_policy="partial",
        gather_timeout=1.5,
        window=7,
    )
    assert client.create_factor(name, info.spec) == info
    assert info.spec.window == 7
    assert info.spec.gather_timeout.ToMilliseconds() == 1500
    assert info.spec.update_mode == types_pb2.UPDATE_MODE_ASYNCHRONOUS
    assert list(info.shape) == [3, 2]
    with pytest.raises(fisherd.AlreadyExistsError) as error:
        client.create_factor(name, KIND)
    assert error.value.reason == "SPEC_DIFFERS"
    assert error.value.metadata["factor"] == name
    np.testing.assert_array_equal(client.read(name).weight, 1.0)


def test_bad_specifications(client, name):
    with pytest.raises(ValueError, match="dtype is 'int8'; expected one of 'float32'"):
        client.create_factor(name, KIND, dtype="int8")
    with pytest.raises(ValueError, match="tower_weighting is 'x'; expected one of 'tower_mean'"):
        client.create_factor(name, KIND, tower_weighting="x")
    with pytest.raises(fisherd.InvalidArgumentError):
        client.create_factor(name, fisherd.FullyConnectedDiagonal(0, 2))
    with pytest.raises(fisherd.InvalidArgumentError) as error:
        client.create_factor("a//b", KIND)
    assert error.value.reason == "BAD_NAME"
    with pytest.raises(fisherd.ResourceExhaustedError) as error:
        client.create_factor(name, fisherd.FullyConnectedDiagonal(1 << 22, 1 << 22))
    assert error.value.reason == "STATE_BUDGET"


def test_list(client, name):
    names = [f"{name}/{index:04}" for index in range(5)]
    for each in reversed(names):
        client.create_factor(each, KIND)
    assert [info.name for info in client.list(name)] == names
    assert client.list(name + "/none") == []


def test_lists_come_in_pages(client, name, monkeypatch):
    monkeypatch.setattr("fisherd.calls.PAGE_SIZE", 2)
    for index in range(5):
        client.create_factor(f"{name}/{index}", KIND)
        client.set_damping(f"{name}/{index}", index)
    assert len(client.list(name)) == 5
    assert client.list_dampings(name) == {f"{name}/{index}": index for index in range(5)}


def test_delete_and_reset(client, factor):
    before = client.describe(factor)
    assert (before.steps_committed, before.version.step) == (1, 1)
    after = client.reset(factor)
    assert after.version.incarnation > before.version.incarnation
    assert after.steps_committed == 0
    client.delete(factor)
    for call in (client.describe, client.delete, client.reset, client.read):
        with pytest.raises(fisherd.NotFoundError) as error:
            call(factor)
        assert (error.value.reason, error.value.metadata["factor"]) == ("FACTOR_NOT_FOUND", factor)


def test_set_towers(client, updates, factor):
    assert client.set_towers(factor, 2) == 2
    writers = [updates.open(factor, tower) for tower in (0, 1)]
    steps = [writer.write(A, G) for writer in writers]
    writers[0].wait(steps[0], timeout=10)
    assert client.set_towers(factor, 1, now=True) == 3
    with pytest.raises(fisherd.InvalidArgumentError):
        client.set_towers(factor, 0)


def test_read(client, factor):
    reading = client.read(factor)
    np.testing.assert_array_equal(reading.weight, C[:2])
    np.testing.assert_array_equal(reading.bias, C[2])
    assert reading.weight.flags.writeable
    assert reading.weight.dtype == np.float32
    assert reading.version == fisherd.Version.of(client.describe(factor).version)
    assert (reading.version.step, reading.steps_committed, reading.unchanged) == (1, 1, False)
    assert reading.info.class_name == "LinearOperatorDiag"
    assert reading.value.shape == (6, 6)
    np.testing.assert_array_equal(reading.value.diag_part(), C.reshape(-1))


def test_read_in_pytorchs_order(client, factor):
    reading = client.read(factor, layout="out_in")
    np.testing.assert_array_equal(reading.weight, C[:2].T)
    np.testing.assert_array_equal(reading.bias, C[2])
    with pytest.raises(ValueError, match="layout"):
        client.read(factor, layout="out")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_read_in_another_type(client, factor, dtype):
    weight = client.read(factor, dtype=dtype).weight
    if weight.dtype == np.uint16:  # NumPy alone has no bfloat16
        weight = (weight.astype(np.uint32) << 16).view(np.float32)
    else:
        assert weight.dtype.name == dtype
    np.testing.assert_array_equal(weight.astype(np.float64), C[:2])


def test_read_if_changed(client, updates, factor):
    version = client.read(factor).version
    unchanged = client.read(factor, if_version_not=version)
    assert unchanged.unchanged
    assert unchanged.version == version
    with pytest.raises(LookupError, match="unchanged"):
        unchanged.value  # noqa: B018
    updates.open(factor).write(A, G, wait=True)
    assert client.read(factor, if_version_not=version).version.step == 2


def test_read_of_a_min_version(client, updates, factor):
    writer = updates.open(factor)
    threading.Timer(0.05, lambda: writer.write(2 * A, G, decay=0)).start()
    reading = client.read(factor, min_version=writer.min_version(2))
    np.testing.assert_array_equal(reading.weight, 4 * C[:2])
    with pytest.raises(fisherd.DeadlineExceededError):
        client.read(factor, min_version=writer.min_version(9), timeout=0.05)
    with pytest.raises(fisherd.FailedPreconditionError) as error:
        client.read(factor, min_version=fisherd.MinVersion(1, 1))
    assert error.value.reason == "OLD_INCARNATION"


def test_nothing_that_is_not_finite_is_read(client, name):
    client.create_factor(name, KIND)
    with pytest.raises(fisherd.FailedPreconditionError) as error:
        client.read(name, fisherd.cholesky_inverse(0))
    assert error.value.reason == "NON_FINITE_RESULT"


def test_read_of_many_chunks(client, updates, name):
    client.create_factor(name, fisherd.FullyConnectedDiagonal(700, 1100, has_bias=True))
    inputs = np.arange(700, dtype=np.float32)[None] % 7
    grads = np.arange(1100, dtype=np.float32)[None] % 5
    updates.open(name).write(inputs, grads, decay=0, wait=True)
    reading = client.read(name, layout="out_in")
    np.testing.assert_array_equal(reading.weight, grads.T**2 * inputs**2)
    np.testing.assert_array_equal(reading.bias, grads[0] ** 2)
    product = client.multiply(name, fisherd.covariance(), reading.weight, reading.bias, layout="out_in")
    np.testing.assert_array_equal(product.weight, reading.weight**2)
    np.testing.assert_array_equal(product.bias, reading.bias**2)


def test_multiply(client, factor):
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    product = client.multiply(factor, fisherd.matpower(2, 0), x[:2], x[2])
    np.testing.assert_array_equal(product.weight, x[:2] * C[:2].astype(float) ** 2)
    np.testing.assert_array_equal(product.bias, x[2] * C[2].astype(float) ** 2)
    assert (product.weight.dtype, product.version.step) == (np.float64, 1)
    assert product.weight.flags.writeable
    with pytest.raises(fisherd.InvalidArgumentError):
        client.multiply(factor, fisherd.covariance(), x, x[2])
    with pytest.raises(fisherd.InvalidArgumentError, match="expected a weight of two axes and a bias of one"):
        client.multiply(factor, fisherd.covariance(), x[:2], x[2].astype(np.float32))


def test_multiply_many_in_one_call(client, updates, name):
    sizes = [(3, 4, False), (300, 1000, True), (2, 5, True)]
    items, expected = [], []
    for index, (inputs, outputs, bias) in enumerate(sizes):
        each = f"{name}/{index}"
        client.create_factor(each, fisherd.FullyConnectedDiagonal(inputs, outputs, bias))
        step = (writer := updates.open(each)).write(np.full((1, inputs), 2.0), np.full((1, outputs), 3.0), decay=0)
        x = np.arange(outputs * inputs, dtype=np.float32).reshape(outputs, inputs)
        b = np.ones(outputs, np.float32) if bias else None
        at = writer.min_version(step)
        items.append(fisherd.MultiplyItem(each, fisherd.covariance(), x, b, "out_in", at))
        expected.append((36 * x, None if b is None else 9 * b))
    products = client.multiply_all(items)
    for product, (weight, bias) in zip(products, expected, strict=True):
        np.testing.assert_array_equal(product.weight, weight)
        assert (product.bias is None) == (bias is None)
        if bias is not None:
            np.testing.assert_array_equal(product.bias, bias)
    assert client.multiply_all([]) == []
    items[1] = fisherd.MultiplyItem("nothing", fisherd.covariance(), x)
    with pytest.raises(fisherd.NotFoundError, match="nothing"):
        client.multiply_all(items)


def test_dampings(client, name):
    client.set_damping(name, 0.5)
    assert client.list_dampings(name) == {name: 0.5}
    client.delete_damping(name)
    assert client.list_dampings(name) == {}
    with pytest.raises(fisherd.NotFoundError) as error:
        client.delete_damping(name)
    assert error.value.reason == "DAMPING_NOT_FOUND"
    with pytest.raises(fisherd.InvalidArgumentError):
        client.set_damping(name, -1)


def test_registered_results(client, updates, factor):
    operator = fisherd.matpower(-1, factor)
    with pytest.raises(fisherd.NotFoundError):
        client.register(factor, operator)
    client.set_damping(factor, 0.5)
    registration = client.register(factor, operator)
    assert registration.policy == fisherd.on_read()
    client.register(factor, operator, fisherd.on_request())
    assert client.update_inverses(factor) == 1
    updates.open(factor).write(2 * A, G, decay=0, wait=True)
    reading = client.read(factor, operator)
    assert (reading.info.cached, reading.version.step, reading.info.damping) == (True, 1, 0.5)
    np.testing.assert_allclose(reading.weight, 1 / (C[:2] + 0.5), rtol=1e-6)
    assert client.update_inverses() >= 1
    assert client.read(factor, operator).version.step == 2
    client.register(factor, operator, fisherd.every_n_steps(3))
    assert client.describe(factor).registrations[0].policy.steps == 3
    client.unregister(factor, operator)
    with pytest.raises(fisherd.NotFoundError) as error:
        client.unregister(factor, operator)
    assert error.value.reason == "REGISTRATION_NOT_FOUND"


def test_watch(client, updates, name):
    client.create_factor(name, KIND)
    events = client.watch(name)
    assert next(events).kind == service_pb2.FACTOR_EVENT_KIND_PRESENT
    updates.open(name).write(A, G, label=77, wait=True)
    ended = next(events)
    while ended.kind != service_pb2.FACTOR_EVENT_KIND_STEP_ENDED:
        ended = next(events)
    assert (ended.factor, ended.step, ended.label) == (name, 1, 77)
    client.delete(name)
    while next(events).kind != service_pb2.FACTOR_EVENT_KIND_DELETED:
        pass
    events.close()


def test_closing_the_client_ends_its_calls(server, name):
    client = server.client()
    client.create_factor(name, KIND)
    events = client.watch(name)
    next(events)
    threading.Timer(0.05, client.close).start()
    with pytest.raises(fisherd.CancelledError):
        next(events)


def test_calls_from_many_threads(client, name):
    def create(index):
        client.create_factor(f"{name}/{index}", KIND)
        client.read(f"{name}/{index}")

    threads = [threading.Thread(target=create, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.list(name)) == 16

"""Captures on their way to the server: towers, the queue, what is refused, and calls within jit."""

import threading

import numpy as np
import pytest

import fisherd

jax = pytest.importorskip("jax.numpy", reason="JAX is not installed") and __import__("jax")
pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp  # noqa: E402

import fisherd.jax  # noqa: E402
from fisherd.jax import attach, capture, dense  # noqa: E402

A = np.array([[1, 2], [3, 4]], "f4")
G = np.array([[1, -1], [2, 0.5]], "f4")
C = np.array([[18.5, 1.625], [34, 4]])
W, B = np.zeros((2, 2), "f4"), np.zeros(2, "f4")


def loss(a=A, g=G):
    """Return a loss whose gradient with respect to the outputs of its layer is g."""
    return lambda w, b: (dense(a, w, b, name="layer") * g).sum()


def captures(a=A, g=G):
    return capture(loss(a, g))(W, B)


def test_golden_values(client, name):
    with attach(client, loss="sum", prefix=f"{name}/") as fisher:
        assert fisher.factor("layer") == f"{name}/layer"
        fisher.update(captures())
        fisher.flush()
        reading = client.read(f"{name}/layer")
        np.testing.assert_allclose(reading.weight, C, rtol=1e-6)
        np.testing.assert_allclose(reading.bias, [2.5, 0.625], rtol=1e-6)
        assert fisher.stats() == fisherd.jax.CaptureStats(updates=1, captured=1, sent=1)
        assert fisher.layers["layer"].kind == fisherd.FullyConnectedDiagonal(2, 2, has_bias=True)


def test_a_mean_is_scaled_back(client, name):
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        fisher.update(captures(g=G / 2))
        fisher.flush()
    np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_two_towers(server, name):
    def run(tower, rows):
        options = {"loss": "sum", "prefix": f"{name}/", "tower": tower, "towers": 2}
        with server.client() as client, attach(client, **options) as fisher:
            for _ in range(5):
                fisher.update(captures(A[rows], G[rows]))
            fisher.flush(30)

    threads = [threading.Thread(target=run, args=(tower, slice(tower, tower + 1))) for tower in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.client() as client:
        np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_every(client, name):
    with attach(client, loss="sum", prefix=f"{name}/", every=3) as fisher:
        due = []
        for _ in range(7):
            due.append(fisher.due)
            fisher.update(captures())
        fisher.flush()
        assert due == [True, False, False, True, False, False, True]
        assert fisher.stats() == fisherd.jax.CaptureStats(updates=7, captured=3, sent=3)


def test_a_full_queue(client, name):
    """Of two towers one does not come, so that the window fills and then the queue."""
    options = {"loss": "sum", "prefix": f"{name}/", "towers": 2, "tower": 0, "window": 1, "queue_size": 1}
    with attach(client, timeout=0.2, **options) as fisher:
        with pytest.raises(fisherd.DeadlineExceededError, match="another tower lags"):  # noqa: PT012 - one of these
            for _ in range(6):
                fisher.update(captures())
        with pytest.raises(fisherd.DeadlineExceededError):
            fisher.flush(0.1)
        with pytest.raises(fisherd.CancelledError):
            fisher.close(0.1)


def test_a_full_queue_may_leave_updates_out(client, name, monkeypatch):
    go_on = threading.Event()
    write = fisherd.UpdateWriter.write
    monkeypatch.setattr(fisherd.UpdateWriter, "write", lambda *args, **kw: go_on.wait(30) and write(*args, **kw))
    with attach(client, loss="sum", prefix=f"{name}/", when_full="skip", queue_size=2) as fisher:
        for _ in range(5):
            fisher.update(captures())
        go_on.set()
        fisher.flush()
        assert fisher.stats() == fisherd.jax.CaptureStats(updates=5, captured=5, sent=2, skipped_full=3)
    for options in ({"when_full": "skip"}, {"reset": True}):
        with pytest.raises(ValueError, match="2 towers"):
            attach(client, towers=2, tower=0, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e19])
def test_what_is_not_finite_is_left_out(client, name, bad):
    with attach(client, loss="sum", prefix=f"{name}/") as fisher:
        fisher.update(captures(g=G * bad))
        fisher.update(captures())
        fisher.flush(30)
        assert fisher.stats().skipped_non_finite == 1
        np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_of_several_towers_it_is_an_error(client, name):
    with attach(client, loss="sum", prefix=f"{name}/", tower=0, towers=2) as fisher:
        fisher.update(captures(g=G * np.nan))
        with pytest.raises(fisherd.InvalidArgumentError, match="not finite"):
            fisher.flush(30)


def test_a_refusal_is_raised_by_a_later_call_and_then_it_goes_on(client, name):
    with attach(client, loss="sum", prefix=f"{name}/") as fisher:
        fisher.update(captures(), row_weights=np.zeros(2, "f4"))
        with pytest.raises(fisherd.InvalidArgumentError, match="row_weights"):
            fisher.flush(30)
        fisher.update(captures())
        fisher.flush(30)
        np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_what_was_there_goes_on_or_is_reset(client, name):
    steps = []
    for reset in (False, False, True):
        with attach(client, loss="sum", prefix=f"{name}/", reset=reset, decay=1, weight=1) as fisher:
            fisher.update(captures())
            fisher.flush()
            steps.append(client.read(f"{name}/layer").steps_committed)
            np.testing.assert_allclose(fisher.read()["layer"][0], C, rtol=1e-6)
            weight, bias = fisher.read(fisherd.matpower(-1, 0.5))["layer"]
            np.testing.assert_allclose(weight, 1 / (C + 0.5), rtol=1e-6)
            assert bias.shape == (2,)
    assert steps == [1, 2, 1]


def test_what_cannot_be_used_is_told(client, name):
    with pytest.raises(ValueError, match="loss is 'average'"):
        attach(client, loss="average")
    with pytest.raises(ValueError, match="every is 0"):
        attach(client, loss="sum", every=0)
    with pytest.raises(ValueError, match="at least 1"):
        attach(client, loss="sum", queue_size=0)
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        with pytest.raises(ValueError, match="no captures"):
            fisher.update({})
        tokens = np.stack([A, A])
        with pytest.raises(ValueError, match='rank3="tokens"'):
            fisher.update(captures(tokens))
        fisher.update(captures())
        with pytest.raises(ValueError, match="but was"):
            fisher.update(capture(lambda w: dense(A, w, name="layer").sum())(W))
        several = captures() | {"wide": captures(np.concatenate([A, A]), np.concatenate([G, G]))["layer"]}
        with pytest.raises(ValueError, match="terms="):
            fisher.update(several)
        fisher.flush()

        def under_vmap(w):
            return jax.vmap(lambda a: dense(a, w, name="vmapped").sum())(tokens).sum()

        fisher.update(capture(under_vmap)(W))
        with pytest.raises(ValueError, match="ran 2 times"):
            fisher.flush()


def test_tokens_are_rows(client, name):
    with attach(client, loss="sum", rank3="tokens", prefix=f"{name}/") as fisher:
        fisher.update(captures(A[:, None], G[:, None]))
        fisher.flush()
    np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_captures_of_several_devices_are_more_rows(client, name):
    """As pmap returns them; here it is vmap that adds the axis."""

    def device(a, g):
        return capture(lambda w, b: (dense(a, w, b, name="layer") * g).sum(-1).mean())(W, B)

    with attach(client, rank3="tokens", prefix=f"{name}/") as fisher:
        fisher.update(jax.vmap(device)(A[:, None], G[:, None]), terms=1)
        fisher.flush()
    np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)


def test_updates_within_jit_happen_in_order_and_once_per_run(client, name):
    with attach(client, loss="sum", prefix=f"{name}/", decay=0.0) as fisher:

        @jax.jit
        def run(scales):
            def step(carry, scale):
                fisher.update(capture(lambda w, b: loss()(w, b) * scale)(W, B))
                return carry, None

            return jax.lax.scan(step, 0.0, scales)[0]

        run(jnp.asarray([3.0, 2.0, 1.0]))
        run(jnp.asarray([1.0, 2.0, 4.0]))
        jax.effects_barrier()
        fisher.flush()
        assert fisher.stats().sent == 6
        np.testing.assert_array_equal(client.read(f"{name}/layer").weight, C * 16)


def test_large_updates_within_jit_own_their_memory(client, name):
    """A callback's arguments are gone when it returns, and the queue still has them."""
    size = 512
    with attach(client, loss="sum", prefix=f"{name}/", decay=0.0, queue_size=4) as fisher:

        @jax.jit
        def run(value):
            inputs = jnp.full((size, size), value)
            seen = capture(lambda w: dense(inputs, w, name="layer").sum())(jnp.zeros((size, size)))
            fisher.update(seen)
            return value + 1

        value = jnp.float32(1)
        for _ in range(12):
            value = run(value)
            fisher.flush()
            np.testing.assert_array_equal(client.read(f"{name}/layer").weight, (float(value) - 1) ** 2)


def test_the_end(client, name):
    fisher = attach(client, loss="sum", prefix=f"{name}/")
    fisher.update(captures())
    fisher.close()
    fisher.close()
    np.testing.assert_allclose(client.read(f"{name}/layer").weight, C, rtol=1e-6)
    with pytest.raises(RuntimeError, match="closed"):
        fisher.update(captures())
    with pytest.raises(ZeroDivisionError), attach(client, loss="sum", prefix=f"{name}/") as fisher:  # noqa: PT012
        fisher.update(captures(), row_weights=np.zeros(2, "f4"))
        raise ZeroDivisionError  # counts, and not the refusal


def test_a_stream_that_the_process_has_is_shared(client, updates, name):
    client.create_factor(f"{name}/own", fisherd.FullyConnectedDiagonal(2, 2))
    own = updates.open(f"{name}/own")
    with attach(client, loss="sum", prefix=f"{name}/", updates=updates) as fisher:
        fisher.update(captures())
        fisher.flush()
    own.write(A, G, wait=True, timeout=10)
    np.testing.assert_array_equal(client.read(f"{name}/own").weight, client.read(f"{name}/layer").weight)

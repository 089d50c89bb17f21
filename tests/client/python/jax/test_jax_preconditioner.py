"""The optax transformation: against the formula, within jit and outside."""

import numpy as np
import pytest

import fisherd

jax = pytest.importorskip("jax.numpy", reason="JAX is not installed") and __import__("jax")
optax = pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp  # noqa: E402

import fisherd.jax  # noqa: E402
from fisherd.jax import attach, capture, dense, precondition, value_grad_and_capture  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4)).astype("f4"), RNG.normal(size=(16, 2)).astype("f4")


def parameters():
    return {
        "mlp": {
            "in": {"kernel": jnp.full((4, 3), 0.1), "bias": jnp.zeros(3), "scale": jnp.ones(())},
            "out": {"weight": jnp.ones((2, 3))},  # as [O, I]
        },
        "unrelated": jnp.ones((4, 3)),
    }


def loss(tree, x, y):
    first = tree["mlp"]["in"]
    hidden = jnp.tanh(dense(x, first["kernel"], first["bias"], name="mlp/in") * first["scale"])
    output = dense(hidden, tree["mlp"]["out"]["weight"], name="mlp/out", layout="out_in")
    return ((output - y) ** 2).sum(-1).mean() + (tree["unrelated"] ** 2).sum()


def expected(client, fisher, grads, exponent, damping):
    result = jax.tree_util.tree_map(np.asarray, grads)
    first = client.read(fisher.factor("mlp/in"))
    result["mlp"]["in"]["kernel"] = (first.weight + damping) ** exponent * grads["mlp"]["in"]["kernel"]
    result["mlp"]["in"]["bias"] = (first.bias + damping) ** exponent * grads["mlp"]["in"]["bias"]
    last = client.read(fisher.factor("mlp/out"), layout="out_in")
    result["mlp"]["out"]["weight"] = (last.weight + damping) ** exponent * grads["mlp"]["out"]["weight"]
    return result


def assert_close(a, b):
    jax.tree_util.tree_map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "host"])
@pytest.mark.parametrize("exponent", [-1, -0.5])
def test_gradients_are_multiplied_by_the_power(client, name, jit, exponent):
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        _, grads, captures = jax.jit(value_grad_and_capture(loss))(parameters(), X, Y)
        fisher.update(captures)
        transformation = precondition(fisher, exponent, 1e-2)
        state = transformation.init(parameters())
        update = jax.jit(transformation.update) if jit else transformation.update
        result, _ = jax.block_until_ready(update(grads, state))
        assert_close(result, expected(client, fisher, grads, exponent, 1e-2))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree_util.tree_leaves(result))


def test_a_damping_by_name(client, name):
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        _, grads, captures = value_grad_and_capture(loss)(parameters(), X, Y)
        fisher.update(captures)
        transformation = precondition(fisher, damping=name)
        for damping in (0.5, 0.25):
            client.set_damping(name, damping)
            result, _ = transformation.update(grads, transformation.init(None))
            assert_close(result, expected(client, fisher, grads, -0.5, damping))


def test_a_whole_training_step_within_jit_is_the_one_outside(client, name):
    """Steps are streamed and multiplied by in the program's order: the parameters become the same."""
    ends = []
    for jit in (False, True):
        with attach(client, loss="mean", prefix=f"{name}/{jit}/") as fisher:
            optimizer = optax.chain(precondition(fisher, damping=1e-2), optax.sgd(0.01, momentum=0.9))

            def step(tree, state, fisher=fisher, optimizer=optimizer):
                _, grads, captures = value_grad_and_capture(loss)(tree, X, Y)
                fisher.update(captures)
                changes, state = optimizer.update(grads, state, tree)
                return optax.apply_updates(tree, changes), state

            tree = parameters()
            state = optimizer.init(tree)
            run = jax.jit(step) if jit else step
            for _ in range(20):
                tree, state = run(tree, state)
            ends.append(jax.block_until_ready(tree))
            assert fisher.stats().sent == 20
    assert_close(*ends)


def test_layers_may_be_found_as_attributes_and_items(client, name):
    tree = [({"w": jnp.ones((4, 3))},), jnp.ones((3, 2))]

    def nested(tree, x):
        return dense(dense(x, tree[0][0]["w"], name="0/0"), tree[1], name="1").sum()

    with attach(client, loss="sum", prefix=f"{name}/") as fisher:
        _, grads, captures = value_grad_and_capture(nested)(tree, X)
        fisher.update(captures)
        result, _ = precondition(fisher, -1, 1.0).update(grads, optax.EmptyState())
        v = client.read(f"{name}/1").weight
        np.testing.assert_allclose(result[1], grads[1] / (v + 1), rtol=1e-5)


def test_what_is_missing_is_told(client, name):
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        transformation = precondition(fisher)
        with pytest.raises(RuntimeError, match="no layer is known yet"):
            transformation.update(parameters(), optax.EmptyState())
        fisher.update(capture(loss)(parameters(), X, Y))
        grads = parameters()
        del grads["mlp"]["in"]["bias"]
        with pytest.raises(ValueError, match='at "mlp/in"'):
            transformation.update(grads, optax.EmptyState())
        with pytest.raises(ValueError, match='at "mlp/in"'):
            jax.jit(transformation.update)(grads, optax.EmptyState())


def test_errors_of_the_server_come_out(client, name):
    with attach(client, loss="mean", prefix=f"{name}/") as fisher:
        fisher.update(capture(loss)(parameters(), X, Y))
        transformation = precondition(fisher, damping=f"{name}/unknown")
        with pytest.raises(fisherd.NotFoundError, match="unknown"):
            transformation.update(parameters(), optax.EmptyState())
        with pytest.raises(Exception, match="unknown"):
            jax.block_until_ready(jax.jit(transformation.update)(parameters(), optax.EmptyState()))


def test_without_fresh_only_the_first_call_waits(client, name):
    """Of two towers the other one comes for the first step alone."""
    options = {"loss": "mean", "prefix": f"{name}/", "towers": 2, "timeout": 0.5, "decay": 0.0}
    with attach(client, tower=0, **options) as fisher:
        _, grads, captures = value_grad_and_capture(loss)(parameters(), X, Y)
        fisher.update(captures)
        with pytest.raises(fisherd.DeadlineExceededError):
            precondition(fisher, -1, 0.5, fresh=False).update(grads, optax.EmptyState())
        with attach(client, tower=1, updates=fisher._updates, **options) as other:
            other.update(captures)
            other.flush(10)
            transformation = precondition(fisher, -1, 0.5, fresh=False)
            first, _ = transformation.update(grads, optax.EmptyState())
            fisher.update(jax.tree_util.tree_map(lambda leaf: leaf * 1, captures))
            second, _ = transformation.update(grads, optax.EmptyState())
            assert_close(first, second)
            assert_close(first, expected(client, fisher, grads, -1, 0.5))

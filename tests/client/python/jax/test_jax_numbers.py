"""Factor values from JAX are those of per-example gradients, computed again in 64 bits."""

import numpy as np
import pytest

import fisherd

jax = pytest.importorskip("jax.numpy", reason="JAX is not installed") and __import__("jax")
pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp  # noqa: E402

import fisherd.jax  # noqa: E402

SIZES = {"first": (6, 5), "second": (5, 4)}


def make_parameters(has_bias):
    rng = np.random.default_rng(1)
    parameters = {}
    for name, (rows, columns) in SIZES.items():
        parameters[name] = {"w": rng.normal(size=(rows, columns))}
        if has_bias:
            parameters[name]["b"] = rng.normal(size=columns)
    return parameters


def make_loss(reduction):
    def loss(parameters, inputs, targets):
        hidden = jnp.tanh(fisherd.jax.dense(inputs, **parameters["first"], name="first"))
        outputs = fisherd.jax.dense(hidden, **parameters["second"], name="second")
        each = ((outputs - targets) ** 2).sum(-1)
        return each.mean() if reduction == "mean" else each.sum()

    return loss


def mean_of_squares(parameters, inputs, targets):
    """Return each parameter's mean over rows of squared gradients of the row's own loss, in 64 bits."""
    with jax.enable_x64(True):
        wide = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, jnp.float64), parameters)
        rows = jnp.asarray(inputs.reshape(-1, 6), jnp.float64), jnp.asarray(targets.reshape(-1, 4), jnp.float64)
        each = jax.vmap(jax.grad(make_loss("sum")), (None, 0, 0))(wide, *rows)
        return jax.tree_util.tree_map(lambda grad: np.asarray((grad**2).mean(0)), each)


def single(tree):
    return jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("shape", [(32,), (8, 5)], ids=["rank2", "rank3"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no_bias"])
def test_a_factor_is_the_mean_of_squared_gradients(client, name, has_bias, reduction, shape, jit):
    rng = np.random.default_rng(0)
    parameters = make_parameters(has_bias)
    inputs, targets = (rng.normal(size=(*shape, width)).astype("f4") for width in (6, 4))
    capture = fisherd.jax.value_grad_and_capture(make_loss(reduction))
    _, grads, captures = (jax.jit(capture) if jit else capture)(single(parameters), inputs, targets)
    plain = jax.grad(make_loss(reduction))(single(parameters), inputs, targets)
    jax.tree_util.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), grads, plain)

    with fisherd.jax.attach(client, loss=reduction, rank3="tokens", prefix=f"{name}/") as fisher:
        fisher.update(captures)
        fisher.flush()
    expected = mean_of_squares(parameters, inputs, targets)
    for layer, parts in expected.items():
        reading = client.read(f"{name}/{layer}")
        np.testing.assert_allclose(reading.weight, parts["w"], rtol=1e-5)
        assert (reading.bias is not None) == has_bias
        if has_bias:
            np.testing.assert_allclose(reading.bias, parts["b"], rtol=1e-5)


def test_loss_scaling_and_padding_are_taken_out(client, name):
    rng = np.random.default_rng(0)
    parameters = make_parameters(has_bias=True)
    inputs, targets = (rng.normal(size=(12, width)).astype("f4") for width in (6, 4))
    real = np.arange(12) < 9

    def scaled(parameters, inputs, targets):
        hidden = jnp.tanh(fisherd.jax.dense(inputs, **parameters["first"], name="first"))
        outputs = fisherd.jax.dense(hidden, **parameters["second"], name="second")
        return 1024 * (((outputs - targets) ** 2).sum(-1) * real).sum() / real.sum()

    captures = jax.jit(fisherd.jax.capture(scaled))(single(parameters), inputs, targets)
    with fisherd.jax.attach(client, loss="mean", prefix=f"{name}/") as fisher:
        fisher.update(captures, terms=real.sum(), loss_scale=1024, row_weights=real.astype("f4"))
        fisher.flush()
    expected = mean_of_squares(parameters, inputs[real], targets[real])
    for layer, parts in expected.items():
        np.testing.assert_allclose(client.read(f"{name}/{layer}").weight, parts["w"], rtol=1e-5)


def test_half_precision(client, name):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.integers(-4, 5, (8, 6)), jnp.bfloat16)
    weight = jnp.ones((6, 2), jnp.bfloat16)
    loss = lambda w: (fisherd.jax.dense(inputs, w, name="layer") * jnp.asarray([1, 2], jnp.bfloat16)).sum()  # noqa: E731
    captures = jax.jit(fisherd.jax.capture(loss))(weight)
    assert captures["layer"].inputs.dtype == jnp.bfloat16
    with fisherd.jax.attach(client, loss="sum", prefix=f"{name}/") as fisher:
        fisher.update(captures)
        fisher.flush()
    squares = (np.asarray(inputs, "f8") ** 2).mean(0)
    np.testing.assert_allclose(client.read(f"{name}/layer").weight, np.outer(squares, [1, 4]), rtol=1e-6)

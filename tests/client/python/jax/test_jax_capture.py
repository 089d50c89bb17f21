"""Capture: what comes out of a pass, and what is said where it cannot be captured."""

import numpy as np
import pytest

import fisherd

jax = pytest.importorskip("jax.numpy", reason="JAX is not installed") and __import__("jax")
pytest.importorskip("optax", reason="optax is not installed")
import jax.numpy as jnp  # noqa: E402

import fisherd.jax  # noqa: E402
from fisherd.jax import capture, dense, value_grad_and_capture  # noqa: E402

X = np.arange(6, dtype="f4").reshape(3, 2)
W = np.array([[1, 2, 3], [4, 5, 6]], "f4")
B = np.array([1, 0, -1], "f4")


def loss(w, b, x):
    return (dense(x, w, b, name="layer") ** 2).sum() / 2


def test_without_capture_it_is_a_dense_layer():
    np.testing.assert_allclose(dense(X, W, B, name="layer"), X @ W + B)
    np.testing.assert_allclose(dense(X, W.T, name="layer", layout="out_in"), X @ W)
    np.testing.assert_allclose(jax.grad(loss)(W, B, X), X.T @ (X @ W + B), rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_inputs_and_gradients_of_outputs(wrap):
    value, (grad_w, grad_x), captures = wrap(value_grad_and_capture(loss, (0, 2)))(W, B, X)
    y = X @ W + B
    np.testing.assert_allclose(value, (y**2).sum() / 2, rtol=1e-6)
    np.testing.assert_allclose(grad_w, X.T @ y, rtol=1e-6)
    np.testing.assert_allclose(grad_x, y @ W.T, rtol=1e-6)
    layer = captures["layer"]
    np.testing.assert_allclose(layer.inputs, X)
    np.testing.assert_allclose(layer.outputs_grads, y, rtol=1e-6)
    assert (float(layer.runs), layer.has_bias, layer.layout) == (1, True, "in_out")


def test_aux_keywords_and_negative_argnums():
    def with_aux(w, *, x):
        y = dense(x, w, name="layer", layout="out_in")
        return y.sum(), y

    (value, aux), grad, captures = jax.jit(value_grad_and_capture(with_aux, -1, has_aux=True))(W.T, x=X)
    np.testing.assert_allclose(aux, X @ W)
    np.testing.assert_allclose(value, (X @ W).sum())
    np.testing.assert_allclose(grad, np.ones((3, 3)) @ X)
    assert captures["layer"].layout == "out_in"
    assert not captures["layer"].has_bias
    assert set(capture(with_aux, has_aux=True)(W.T, x=X)) == {"layer"}


def test_integers_as_inputs_are_captured_as_floats():
    layer = capture(lambda w: dense(jnp.asarray(X, jnp.int8), w, name="layer").sum())(W)["layer"]
    assert layer.inputs.dtype == jnp.float32
    np.testing.assert_array_equal(layer.inputs, X)


def test_checkpoint_and_cond_within_the_loss():
    def with_checkpoint(w, b, x):
        return jax.checkpoint(lambda x: (dense(x, w, b, name="layer") ** 2).sum() / 2)(x)

    def with_cond(w, b, x):
        return jax.lax.cond(x.sum() > 0, lambda: loss(w, b, x), lambda: 0.0)

    for each in (with_checkpoint, with_cond):
        layer = jax.jit(capture(each))(W, B, X)["layer"]
        assert float(layer.runs) == 1
        np.testing.assert_allclose(layer.outputs_grads, X @ W + B, rtol=1e-6)


def test_labels_are_sampled_from_the_softmax_without_a_gradient():
    logits = jnp.log(jnp.asarray([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    draws = jax.vmap(lambda key: fisherd.jax.sample_labels(key, logits))(jax.random.split(jax.random.key(0), 1000))
    assert draws.shape == (1000, 2)
    assert set(np.unique(draws[:, 0])) == {0, 1}
    assert np.all(draws[:, 1] == 2)
    assert abs(float(draws[:, 0].mean()) - 0.5) < 0.1


# ---- What cannot be captured


def test_no_layer():
    with pytest.raises(ValueError, match="ran no layer"):
        capture(lambda w: w.sum())(W)


def test_two_of_one_name():
    with pytest.raises(ValueError, match='two layers are named "layer"'):
        capture(lambda w: dense(dense(X, w, name="layer"), w.T, name="layer").sum())(W)


def test_vmap_over_examples():
    each = jax.vmap(lambda w, x: dense(x, w, name="layer").sum(), (None, 0))
    with pytest.raises(ValueError, match="not each example under"):
        capture(lambda w: each(w, X).mean())(W)


def test_an_unknown_layout():
    with pytest.raises(ValueError, match="layout is 'io'"):
        dense(X, W, name="layer", layout="io")


def test_an_inner_jit():
    inner = jax.jit(lambda w: dense(X, w, name="inner").sum())
    with pytest.raises(ValueError, match="of its own"):
        capture(inner)(W)
    inner(W)
    with pytest.raises(ValueError, match="of its own"):
        capture(inner)(W)


def test_runs_tell_of_vmap_and_scan_and_of_layers_out_of_reach():
    tokens = jnp.stack([X, X])

    def under_vmap(w):
        return jax.vmap(lambda x: dense(x, w, name="layer").sum())(tokens).sum()

    def under_scan(w):
        return jax.lax.scan(lambda sum_, x: (sum_ + dense(x, w, name="layer").sum(), None), 0.0, tokens)[0]

    def out_of_reach(w):
        return jax.lax.stop_gradient(dense(X, w, name="layer")).sum() + dense(X, w, name="other").sum()

    assert float(capture(under_vmap)(W)["layer"].runs) == 2
    assert float(capture(under_scan)(W)["layer"].runs) == 2
    assert float(capture(out_of_reach)(W)["layer"].runs) == 0


def test_a_loss_that_raises_leaves_nothing_behind():
    def broken(w):
        dense(X, w, name="layer")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        capture(broken)(W)
    np.testing.assert_allclose(dense(X, W, name="layer"), X @ W)

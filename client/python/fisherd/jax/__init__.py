"""fisherd in JAX: capture of dense layers, and an optax transformation that preconditions by their Fisher.

::

    import fisherd.jax, jax, jax.numpy as jnp, optax

    def loss(params, images, labels):
        hidden = jnp.tanh(fisherd.jax.dense(images, **params["hidden"], name="hidden"))  # instead of images @ w + b
        logits = fisherd.jax.dense(hidden, **params["output"], name="output")
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    fisher = fisherd.jax.attach(client, loss="mean")
    optimizer = optax.chain(fisherd.jax.precondition(fisher, exponent=-0.5, damping=1e-3), optax.sgd(0.1))
    step = jax.jit(fisherd.jax.value_grad_and_capture(loss))

    value, grads, captures = step(params, images, labels)
    fisher.update(captures)                                  # streams in the background
    updates, state = optimizer.update(grads, state, params)  # one call for all layers

Needs jax, and optax for precondition(). `import fisherd` alone imports neither.
"""

from fisherd.jax.attaching import attach
from fisherd.jax.capture import Capture, Captures, capture, dense, sample_labels, value_grad_and_capture
from fisherd.jax.fisher import CaptureStats, Fisher
from fisherd.jax.preconditioner import precondition

__all__ = [
    "Capture",
    "CaptureStats",
    "Captures",
    "Fisher",
    "attach",
    "capture",
    "dense",
    "precondition",
    "sample_labels",
    "value_grad_and_capture",
]

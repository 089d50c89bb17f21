"""What flows through dense layers: their inputs, and the gradients of the loss with respect to their outputs.

How: each captured layer passes its output through an identity that takes a second argument, a tap, and whose gradient
with respect to the tap is, by definition, the pair (inputs, gradient of the output). So one jax.value_and_grad with
respect to parameters and taps gives both, under jit as well as outside, and XLA keeps nothing of the taps themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from fisherd.jax import host
from fisherd.types import Layout


@dataclasses.dataclass(frozen=True)
class Capture:
    """What one layer saw in one pass; a pytree.

    inputs: [N, I], or [B, T, I]; without a column of ones.
    outputs_grads: [N, O], or [B, T, O]: gradients of the loss as it was written, so of its mean where it is a mean.
    runs: how often the layer ran in the pass, a scalar; anything but 1 makes a capture that cannot be used.
    has_bias: whether the layer added a bias.
    layout: of its weight, "in_out" [I, O] or "out_in" [O, I].
    """

    inputs: jax.Array
    outputs_grads: jax.Array
    runs: jax.Array
    has_bias: bool
    layout: Layout


jax.tree_util.register_dataclass(
    Capture, data_fields=["inputs", "outputs_grads", "runs"], meta_fields=["has_bias", "layout"]
)

Captures = dict[str, Capture]  # by the layers' names


class _Recorder(Protocol):
    def layer(self, name: str, inputs: jax.Array, outputs: jax.Array, *, has_bias: bool, layout: Layout) -> jax.Array:
        """Return the outputs that the model goes on with."""


class _Recorders(threading.local):
    """The recorders of the captures that this thread is tracing, innermost last."""

    def __init__(self) -> None:
        self.stack: list[_Recorder] = []


_recorders = _Recorders()


def dense(x: Any, w: Any, b: Any = None, *, name: str, layout: Layout = "in_out") -> jax.Array:
    """Return x @ w + b; within capture() and value_grad_and_capture(), note what flows through it, too.

    x: [N, I]; [B, T, I] for tokens (see attach's rank3).
    w: [I, O]; with layout "out_in" [O, I], as Equinox has it, and the result is x @ w.T + b.
    b: [O], or None.
    name: of the layer: where its parameters are in those that the optimizer gets, keys joined by "/". It is part of the
        factor's name. In a Flax module "/".join(self.path), in Haiku self.module_name.

    Wherever the loss is computed without capture, this is x @ w + b and nothing else. The batch is to go through the
    layer as one array, once per pass: not example by example under vmap, not in a scan over layers, and not in a
    function with a jax.jit of its own, within the loss. What cannot be used is told: by a ValueError, here or in
    Fisher.update().
    """
    if layout not in ("in_out", "out_in"):
        message = f'layer "{name}": layout is {layout!r}; expected "in_out" or "out_in"'
        raise ValueError(message)
    y = jnp.matmul(x, w if layout == "in_out" else jnp.swapaxes(w, 0, 1))
    if b is not None:
        y = y + b
    if not _recorders.stack:
        return y
    return _recorders.stack[-1].layer(name, jnp.asarray(x), y, has_bias=b is not None, layout=layout)


def value_grad_and_capture(
    loss_fn: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, Captures]]:
    """Return a function of loss_fn's arguments that returns (value, gradients, captures); use it under jax.jit.

    value and gradients are jax.value_and_grad's, with its argnums and has_aux; the captures are those of all layers
    that loss_fn ran through dense(), for Fisher.update(). Costs one pass forward and one back, and the captures'
    memory. Each trace runs loss_fn twice, the first time for its shapes alone.

    The function raises ValueError if there is no such layer, two of one name, or one whose input has a single axis.
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any, Captures]:
        shifted = tuple(number + 1 if number >= 0 else number for number in numbers)
        tapped, taps = _tapped(loss_fn, args, kwargs)
        value, grads = jax.value_and_grad(tapped, (0, *shifted), has_aux=has_aux)(taps, *args)
        return value, grads[1] if isinstance(argnums, int) else grads[1:], grads[0]

    return run


def capture(loss_fn: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Captures]:
    """Return a function of loss_fn's arguments that returns the captures alone.

    For a loss that is not the one that is trained on: with labels sampled from the model's predictions (sample_labels),
    for the Fisher; or on a part of the batch. has_aux: it returns more than the loss, which is dropped. Errors as of
    value_grad_and_capture().
    """

    def run(*args: Any, **kwargs: Any) -> Captures:
        tapped, taps = _tapped(loss_fn, args, kwargs)
        grads = jax.grad(tapped, has_aux=has_aux)(taps, *args)
        captures: Captures = grads[0] if has_aux else grads
        return captures

    return run


def sample_labels(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Return a label per row, drawn from softmax(logits): [..., classes] to integers [...]; no gradient flows through.

    Labels that the model itself gives make the Fisher; the labels of the data make the empirical Fisher.
    """
    return jax.random.categorical(key, jax.lax.stop_gradient(logits))


# ---- The two passes of a trace


def _tapped(loss_fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], Captures]:
    """Return loss_fn with the taps before its arguments, and the taps: zeros."""
    shapes = _Shapes()
    with _recording(shapes):
        jax.eval_shape(lambda: loss_fn(*args, **kwargs))
    if not shapes.taps:
        message = (
            "the loss ran no layer through fisherd.jax.dense(); or only within a function with a jax.jit of its own, "
            "which had been traced before"
        )
        raise ValueError(message)

    def tapped(taps: Captures, *args: Any) -> Any:
        recorder = _Taps(taps)
        with _recording(recorder):
            result = loss_fn(*args, **kwargs)
        if recorder.unused:
            message = (
                f"the layers {sorted(recorder.unused)} are in a function with a jax.jit of its own, within the loss; "
                "jit the whole instead"
            )
            raise ValueError(message)
        return result

    zeros = jax.tree_util.tree_map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes.taps)
    return tapped, zeros


@contextlib.contextmanager
def _recording(recorder: _Recorder) -> Iterator[None]:
    _recorders.stack.append(recorder)
    try:
        yield
    finally:
        _recorders.stack.pop()


class _Shapes:
    """Finds out which layers there are, and their shapes."""

    def __init__(self) -> None:
        self.taps: Captures = {}

    def layer(self, name: str, inputs: jax.Array, outputs: jax.Array, *, has_bias: bool, layout: Layout) -> jax.Array:
        if name in self.taps:
            message = (
                f'two layers are named "{name}", or one runs twice; a capture wants a name of its own for each run'
            )
            raise ValueError(message)
        if inputs.ndim == 1:
            message = (
                f'layer "{name}" has an input of one axis; give it the whole batch, [N, {inputs.shape[0]}], and not '
                "each example under jax.vmap"
            )
            raise ValueError(message)
        self.taps[name] = Capture(
            inputs=host.shape_of(inputs, _kept_type(inputs, outputs)),
            outputs_grads=host.shape_of(outputs, outputs.dtype),
            runs=host.shape_of(jnp.ones(()), jnp.float32),
            has_bias=has_bias,
            layout=layout,
        )
        return outputs


class _Taps:
    """Ties each layer to its tap."""

    def __init__(self, taps: Captures) -> None:
        self.taps = taps
        self.unused = set(taps)

    def layer(self, name: str, inputs: jax.Array, outputs: jax.Array, *, has_bias: bool, layout: Layout) -> jax.Array:
        del has_bias, layout
        self.unused.discard(name)
        return _tie(outputs, inputs.astype(_kept_type(inputs, outputs)), self.taps[name])


def _kept_type(tensor: jax.Array, outputs: jax.Array) -> Any:
    """Return the type that a tensor is captured in: its own, unless that is an integer's."""
    return tensor.dtype if jnp.issubdtype(tensor.dtype, jnp.floating) else outputs.dtype


@jax.custom_vjp
def _tie(outputs: jax.Array, inputs: jax.Array, tap: Capture) -> jax.Array:
    del inputs, tap
    return outputs


def _tie_forward(outputs: jax.Array, inputs: jax.Array, tap: Capture) -> tuple[jax.Array, tuple[jax.Array, Capture]]:
    return outputs, (inputs, tap)


def _tie_back(kept: tuple[jax.Array, Capture], grad: jax.Array) -> tuple[jax.Array, None, Capture]:
    inputs, tap = kept
    # Where a pass runs the layer n times (scan, vmap), gradients with respect to its tap add up, and runs becomes n.
    # Under vmap only those do that depend on what differs between examples, so this one has to seem to.
    seen = [(jnp.ravel(tensor)[:1] != 0).any() for tensor in (inputs, grad)]
    runs = jnp.where(seen[0] | seen[1], jnp.ones((), jnp.float32), jnp.ones((), jnp.float32))
    return grad, None, dataclasses.replace(tap, inputs=inputs, outputs_grads=grad, runs=runs)


_tie.defvjp(_tie_forward, _tie_back)

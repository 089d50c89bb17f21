"""An optax transformation that multiplies gradients by an operator of the served Fisher."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.experimental import io_callback

from fisherd import operators
from fisherd.jax import host
from fisherd.jax.fisher import Fisher, Gradients
from fisherd.operators import Damping

_MATRIX_AXES = 2


def precondition(
    fisher: Fisher, exponent: float = -0.5, damping: Damping = 1e-3, *, fresh: bool = True
) -> optax.GradientTransformation:
    """Return a transformation that makes (Fisher + damping)^exponent ∘ gradient of each captured layer's gradients.

    All layers travel in one call. Other leaves pass as they are. Where a layer's parameters are, its name says
    (dense()): at the path in the gradients that is its name there are a leaf of two axes, the weight, in the layer's
    layout, and for a layer with a bias one leaf of one axis; or the weight itself.

    exponent: −1 for the natural gradient, −½ for Adam's and Adagrad's exponent.
    damping: λ ≥ 0, added to the Fisher; or the name of a damping function (Client.set_damping).
    fresh: each call waits until the updates before it have been counted, by all towers, and uses them; so all towers
        get the same bits. False: it uses what the server has, so that steps do not wait for their own captures (but
        for the first); for one tower.

    Outside of jax.jit its update() calls the server and returns arrays placed as the gradients are. Under jit it does
    so by jax.experimental.io_callback, in order with Fisher.update()'s; not under vmap or pmap, nor in a program for
    several devices: there, call it outside.

    update() raises ValueError for a layer that it does not find, RuntimeError before the first Fisher.update(), and
    Client.multiply()'s errors; under jit what is raised ends the program and comes out as JAX's runtime error.
    """
    operator = operators.matpower(exponent, damping)

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(grads: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        leaves, structure = jax.tree_util.tree_flatten_with_path(grads)
        places = _places(fisher, [("/".join(_key(part) for part in path), leaf) for path, leaf in leaves])
        values = [leaf for _, leaf in leaves]
        gradients = {
            name: (values[weight], None if bias is None else values[bias]) for name, (weight, bias) in places.items()
        }
        for name, (new_weight, new_bias) in _multiply(fisher, operator, gradients, fresh=fresh).items():
            weight, bias = places[name]
            values[weight] = new_weight
            if bias is not None:
                values[bias] = new_bias
        return jax.tree_util.tree_unflatten(structure, values), state

    return optax.GradientTransformation(init, update)


def _multiply(fisher: Fisher, operator: Any, gradients: Gradients, *, fresh: bool) -> Gradients:
    if not host.is_traced(gradients):
        products = fisher.multiply(operator, gradients, fresh=fresh)
        placed: Gradients = jax.tree_util.tree_map(host.put_like, products, gradients)
        return placed
    shapes = jax.tree_util.tree_map(lambda leaf: host.shape_of(leaf, leaf.dtype), gradients)

    def call(given: Gradients) -> Gradients:
        return fisher.multiply(operator, host.copies(given), fresh=fresh)

    promised: Gradients = io_callback(call, shapes, gradients, ordered=True)
    return promised


def _places(fisher: Fisher, leaves: list[tuple[str, Any]]) -> dict[str, tuple[int, int | None]]:
    """Return, by layer, which leaves are its weight and its bias."""
    if not fisher.layers:
        message = "no layer is known yet; call Fisher.update() with the first captures before"
        raise RuntimeError(message)
    places = {}
    for name, layer in fisher.layers.items():
        within = [
            (number, leaf)
            for number, (path, leaf) in enumerate(leaves)
            if leaf is not None and (path == name or path.rpartition("/")[0] == name)
        ]
        wanted = [layer.kind.input_size, layer.kind.output_size]
        shape = wanted if layer.layout == "in_out" else wanted[::-1]
        weights = [number for number, leaf in within if list(leaf.shape) == shape]
        biases = [number for number, leaf in within if list(leaf.shape) == wanted[1:]] if layer.kind.has_bias else []
        if len(weights) != 1 or len(biases) != layer.kind.has_bias:
            message = (
                f'no weight {shape}{" and bias " + str(wanted[1:]) if layer.kind.has_bias else ""} at "{name}" among '
                f"the gradients, or several: {[(path, list(leaf.shape)) for path, leaf in leaves]}"
            )
            raise ValueError(message)
        places[name] = weights[0], biases[0] if biases else None
    return places


def _key(part: Any) -> str:
    """Return one step of a path as names have it: a dictionary's key, an attribute, an index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)

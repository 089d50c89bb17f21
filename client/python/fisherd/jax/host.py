"""JAX's arrays in this process's memory, and back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fisherd.linear_operator import Array


def is_traced(tree: Any) -> bool:
    """Return whether the program is being traced: a leaf stands for values that are not there yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(tree))


def array(tensor: Any) -> Array:
    """Return the elements; of an array that is spread over processes, this process's rows, in order.

    Waits until they have been computed. A view where that is possible, so not for keeping in a callback.
    ValueError if this process's part is not whole rows.
    """
    if not isinstance(tensor, jax.Array) or tensor.is_fully_addressable or tensor.is_fully_replicated:
        return np.asarray(tensor)
    shards = {shard.index[0].start or 0: shard for shard in tensor.addressable_shards}
    if any(shard.data.shape[1:] != tensor.shape[1:] for shard in shards.values()):
        message = f"an array {list(tensor.shape)} is spread over processes by more than its first axis"
        raise ValueError(message)
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def copies(tree: Any) -> Any:
    """Return the tree with NumPy arrays of their own memory: a callback's arguments are gone when it returns."""
    return jax.tree_util.tree_map(lambda leaf: np.array(leaf, copy=True), tree)


def begin_copies(tree: Any) -> None:
    """Have what is on an accelerator begin its way to the host, without waiting for it."""
    for leaf in jax.tree_util.tree_leaves(tree):
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()


def shape_of(tensor: Any, dtype: Any) -> Any:
    """Return what stands for an array of the tensor's shape where only shapes matter."""
    struct: Any = jax.ShapeDtypeStruct
    return struct(tensor.shape, dtype)


def put_like(value: Array, like: jax.Array) -> jax.Array:
    """Return an array of JAX's, placed as `like` is."""
    typed = value.astype(like.dtype, copy=False)
    if like.is_fully_addressable:
        placed: jax.Array = jax.device_put(typed, like.sharding)
        return placed
    part: Any = typed.__getitem__
    return jax.make_array_from_callback(like.shape, like.sharding, part)

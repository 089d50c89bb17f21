"""A batch reduced to what it adds to its factor: Σ_s (A∘A)ᵀ(G_s∘G_s) / N, computed by NumPy in this process."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fisherd.batch_frames import Batch
from fisherd.errors import Error
from fisherd.linear_operator import Array
from fisherd.tensors import TensorView
from fisherd.tower_state import BatchIdentity
from fisherd.v1 import types_pb2

_CHAIN = 256  # rows that are summed in the state's type, as the server does; chains are added in 64 bits
_LEAST_WEIGHT_SUM = 1e-300  # as the server's
_LARGEST_WEIGHT_SUM = 1e300


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """What the reduction needs to know of a FullyConnectedDiagonal factor. dtype: of the state."""

    input_size: int
    output_size: int
    has_bias: bool
    sources: int
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Bytes of a contribution, [H, O]."""
        return (self.input_size + self.has_bias) * self.output_size * self.dtype.itemsize

    @classmethod
    def of(cls, spec: types_pb2.FactorSpec) -> LayerShape | None:
        """Return the shape of the factor's layer; None for other kinds."""
        if not spec.HasField("fully_connected_diagonal"):
            return None
        layer = spec.fully_connected_diagonal
        wide = spec.dtype == types_pb2.DATA_TYPE_FLOAT64
        dtype: np.dtype[Any] = np.dtype(np.float64 if wide else np.float32)
        return cls(layer.input_size, layer.output_size, layer.has_bias, max(spec.sources, 1), dtype)

    def fits(self, batch: Batch) -> bool:
        """Return whether the batch, whose tensors have as many rows each, is one of this layer."""
        return (
            batch.inputs.shape[1] == self.input_size
            and len(batch.outputs_grads) == self.sources
            and all(grads.shape[1] == self.output_size for grads in batch.outputs_grads)
        )


@dataclasses.dataclass(frozen=True)
class Contribution:
    """Σ_s C(s,t), already divided by N: [H, O] in the state's type. examples: the sum of the row weights, if any."""

    view: TensorView
    examples: float | None


def make_contribution(identity: BatchIdentity, batch: Batch, shape: LayerShape, gradient_scale: float) -> Contribution:
    """Reduce a batch that fits.

    InvalidArgumentError names the tensor and the element: NON_FINITE_INPUT for a NaN, an infinity, or a square that
    overflows the state's type; BAD_ARGUMENT for row weights that are negative or whose sum is not positive.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        left = _squares(identity, "inputs", batch.inputs, 1.0, shape.dtype)
        right = _squares(identity, "outputs_grads[0]", batch.outputs_grads[0], gradient_scale, shape.dtype)
        for source, grads in enumerate(batch.outputs_grads[1:], start=1):
            right = right + _squares(identity, f"outputs_grads[{source}]", grads, gradient_scale, shape.dtype)
        examples = None
        if batch.row_weights is not None:
            weights = _weights(identity, batch.row_weights)
            examples = float(weights.sum())
            right = (right * weights[:, None]).astype(shape.dtype)
        divisor = examples if examples is not None else len(left)
        product = _product(left, right, has_bias=shape.has_bias) / divisor
        contribution = product.astype(shape.dtype)
    if not np.isfinite(contribution).all():
        overflow = "the products of the squares of inputs and outputs_grads overflow the factor's type"
        raise _non_finite(identity, "inputs", f"{overflow}; expected smaller numbers")
    return Contribution(TensorView(contribution, shape.dtype.name), examples)


def _squares(identity: BatchIdentity, name: str, view: TensorView, scale: float, dtype: np.dtype[Any]) -> Array:
    values = view.floats(dtype)
    scaled = values if scale == 1 else (values * np.float64(scale)).astype(dtype)
    squares: Array = np.square(scaled)
    if not np.isfinite(squares.sum()) and not np.isfinite(squares).all():
        row, column = (int(index) for index in np.argwhere(~np.isfinite(squares))[0])
        value = float(view.floats(np.dtype(np.float64))[row, column])
        wrong = (
            ", whose square overflows; expected a smaller number"
            if np.isfinite(value)
            else "; expected a finite number"
        )
        raise _non_finite(identity, name, f"{name}, row {row}, column {column} is {value}{wrong}")
    return squares


def _weights(identity: BatchIdentity, view: TensorView) -> Array:
    weights = view.floats(np.dtype(np.float64)).reshape(-1)
    wanted = "expected a finite weight, 0 or above"
    for row in np.flatnonzero(~np.isfinite(weights))[:1]:
        raise _non_finite(identity, "row_weights", f"row_weights, row {row} is {weights[row]}; {wanted}")
    for row in np.flatnonzero(weights < 0)[:1]:
        raise _bad(identity, f"row_weights, row {row} is {weights[row]}; {wanted}")
    total = float(weights.sum())
    if not _LEAST_WEIGHT_SUM <= total <= _LARGEST_WEIGHT_SUM:
        bounds = f"from {_LEAST_WEIGHT_SUM} to {_LARGEST_WEIGHT_SUM}"
        raise _bad(identity, f"row_weights sum to {total}; expected a positive sum, {bounds}")
    return weights


def _product(left: Array, right: Array, *, has_bias: bool) -> Array:
    """Return leftᵀ·right, with a row of column sums of right below if there is a bias, in 64 bits."""
    inputs = left.shape[1]
    total = np.zeros((inputs + has_bias, right.shape[1]), np.float64)
    for first in range(0, len(left), _CHAIN):
        total[:inputs] += left[first : first + _CHAIN].T @ right[first : first + _CHAIN]
    if has_bias:
        total[inputs] = right.sum(axis=0, dtype=np.float64)
    return total


def _non_finite(identity: BatchIdentity, field: str, message: str) -> Error:
    return identity.error("INVALID_ARGUMENT", message, reason="NON_FINITE_INPUT", metadata={"field": field})


def _bad(identity: BatchIdentity, message: str) -> Error:
    return identity.error("INVALID_ARGUMENT", message, reason="BAD_ARGUMENT", metadata={"field": "row_weights"})

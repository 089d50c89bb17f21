"""A diagonal linear operator, as tf.contrib.kfac's reads return it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class LinearOperatorDiag:
    """A diagonal operator over the parameters of one fully-connected layer.

    As a matrix it is square, of as many rows as there are weights and biases, P = I·O (+ O). The order of the
    parameters is: the weight's elements, row-major in the layout that was read ([I, O], or [O, I]), then the bias's.
    With the layout "in_out" that is the covariance's own order, [H, O] with the bias as the last row.

    Elements are transferred at their first use, once, and from then on everything is local: one transfer of P elements
    is less than the server's Multiply would move for a single product (Client.multiply, for those who do not want to
    keep them). shape and dtype need no transfer. Thread-safe; errors of the transfer are raised by whatever needs it,
    and tried again by the next.
    """

    def __init__(self, parameters: int, dtype: np.dtype[Any], load: Callable[[], tuple[Array, Array | None]]) -> None:
        """`load` returns the diagonal's weight part, of two axes, and its bias part; it is called at the first use."""
        self._parameters = parameters
        self._dtype = dtype
        self._load = load
        self._parts: tuple[Array, Array | None] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, weight: Array, bias: Array | None = None) -> LinearOperatorDiag:
        """Return the operator with this diagonal."""
        size = weight.size + (0 if bias is None else bias.size)
        return cls(size, weight.dtype, lambda: (weight, bias))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the operator as a matrix; both are P."""
        return self._parameters, self._parameters

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    @property
    def weight(self) -> Array:
        """The weight's part of the diagonal, [I, O] or [O, I]."""
        return self._elements()[0]

    @property
    def bias(self) -> Array | None:
        """The bias's part of the diagonal, [O]; None without a bias."""
        return self._elements()[1]

    def diag_part(self) -> Array:
        """Return the diagonal, [P], in the order of the parameters."""
        weight, bias = self._elements()
        return weight.reshape(-1) if bias is None else np.concatenate([weight.reshape(-1), bias])

    def matmul(self, x: Any) -> Array:
        """Return operator · x, for x of shape [P] or [P, K]."""
        vectors = self._vectors(x)
        result: Array = self.diag_part().reshape((-1,) + (1,) * (vectors.ndim - 1)) * vectors
        return result

    def __matmul__(self, x: Any) -> Array:
        return self.matmul(x)

    def solve(self, y: Any) -> Array:
        """Return operator⁻¹ · y, for y of shape [P] or [P, K]. Infinite or NaN where the diagonal is 0."""
        vectors = self._vectors(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Array = vectors / self.diag_part().reshape((-1,) + (1,) * (vectors.ndim - 1))
        return result

    def to_dense(self) -> Array:
        """Return the whole matrix: P² elements, for small layers only."""
        return np.diag(self.diag_part())

    def __repr__(self) -> str:
        return f"LinearOperatorDiag(shape={self.shape}, dtype={self.dtype.name})"

    def _elements(self) -> tuple[Array, Array | None]:
        with self._lock:
            if self._parts is None:
                self._parts = self._load()
            return self._parts

    def _vectors(self, x: Any) -> Array:
        vectors = np.asarray(x)
        if vectors.ndim not in (1, 2) or len(vectors) != self._parameters:
            message = f"expected the shape [{self._parameters}] or [{self._parameters}, K], not {list(vectors.shape)}"
            raise ValueError(message)
        return vectors

"""A diagonal operator, transferred at its first use."""

import numpy as np
import pytest

import fisherd

WEIGHT = np.array([[1.0, 2], [4, 8], [5, 10]])
BIAS = np.array([0.5, 0.25])
DIAGONAL = np.array([1, 2, 4, 8, 5, 10, 0.5, 0.25])


@pytest.fixture
def operator():
    return fisherd.LinearOperatorDiag.of(WEIGHT, BIAS)


def test_parts(operator):
    assert operator.shape == (8, 8)
    assert operator.dtype == np.float64
    assert operator.weight is WEIGHT
    assert operator.bias is BIAS
    np.testing.assert_array_equal(operator.diag_part(), DIAGONAL)
    np.testing.assert_array_equal(operator.to_dense(), np.diag(DIAGONAL))
    without = fisherd.LinearOperatorDiag.of(WEIGHT)
    assert without.bias is None
    np.testing.assert_array_equal(without.diag_part(), WEIGHT.reshape(-1))
    assert repr(operator) == "LinearOperatorDiag(shape=(8, 8), dtype=float64)"


def test_matmul_and_solve(operator):
    for x in (np.arange(8.0), np.arange(24.0).reshape(8, 3)):
        np.testing.assert_array_equal(operator.matmul(x), np.diag(DIAGONAL) @ x)
        np.testing.assert_array_equal(operator @ x, operator.matmul(x))
        np.testing.assert_array_equal(operator.solve(operator.matmul(x)), x)
    with pytest.raises(ValueError, match=r"expected the shape \[8\] or \[8, K\], not \[7\]"):
        operator.matmul(np.ones(7))
    zero = fisherd.LinearOperatorDiag.of(np.zeros((1, 1)))
    assert zero.solve(np.ones(1)) == np.inf


def test_it_is_loaded_once_and_tried_again():
    calls = []

    def load():
        calls.append(1)
        if len(calls) == 1:
            raise fisherd.UnavailableError("try again")
        return WEIGHT, BIAS

    operator = fisherd.LinearOperatorDiag(8, np.dtype("f8"), load)
    assert (operator.shape, operator.dtype, calls) == ((8, 8), np.float64, [])
    with pytest.raises(fisherd.UnavailableError):
        operator.diag_part()
    operator.diag_part()
    operator.solve(np.ones(8))
    assert len(calls) == 2

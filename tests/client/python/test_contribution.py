"""A batch reduced by this process, against its definition."""

import numpy as np
import pytest

import fisherd
from fisherd.batch_frames import Batch
from fisherd.contribution import LayerShape, make_contribution
from fisherd.tower_state import BatchIdentity
from fisherd.v1 import types_pb2

IDENTITY = BatchIdentity("f", 0, 3)
RNG = np.random.default_rng(0)


def shape(inputs, outputs, *, bias=True, sources=1, dtype="f4"):
    return LayerShape(inputs, outputs, bias, sources, np.dtype(dtype))


def reference(inputs, grads, weights=None, *, bias=True, scale=1.0):
    inputs, grads = inputs.astype("f8"), [scale * each.astype("f8") for each in grads]
    if bias:
        inputs = np.column_stack([inputs, np.ones(len(inputs))])
    weights = np.ones(len(inputs)) if weights is None else weights
    squares = sum(each**2 for each in grads) * weights[:, None]
    return (inputs**2).T @ squares / weights.sum()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 5000])
def test_against_the_definition(dtype, rows):
    inputs, grads = RNG.normal(size=(rows, 9)), [RNG.normal(size=(rows, 4)) for _ in range(2)]
    batch = Batch.of(inputs.astype(dtype), [each.astype(dtype) for each in grads])
    made = make_contribution(IDENTITY, batch, shape(9, 4, sources=2, dtype=dtype), 3.0)
    assert made.view.array.dtype == dtype
    assert made.examples is None
    expected = reference(inputs.astype(dtype), [each.astype(dtype) for each in grads], scale=3.0)
    np.testing.assert_allclose(made.view.array, expected, rtol=2e-6 if dtype == "f4" else 1e-13)


def test_row_weights_and_no_bias():
    inputs, grads, weights = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2)), RNG.random(8)
    made = make_contribution(IDENTITY, Batch.of(inputs, grads, weights), shape(3, 2, bias=False, dtype="f8"), 1)
    assert made.examples == pytest.approx(weights.sum())
    np.testing.assert_allclose(made.view.array, reference(inputs, [grads], weights, bias=False), rtol=1e-13)


def test_narrow_types():
    bits = (RNG.normal(size=(6, 3)).astype("f4").view(np.uint32) >> 16).astype(np.uint16)
    inputs = (bits.astype(np.uint32) << 16).view(np.float32)
    grads = RNG.normal(size=(6, 2)).astype(np.float16)
    made = make_contribution(IDENTITY, Batch.of(fisherd.bfloat16(bits), grads), shape(3, 2), 1)
    np.testing.assert_allclose(made.view.array, reference(inputs, [grads]), rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("inputs", np.nan, "inputs, row 2, column 1 is nan; expected a finite number"),
        ("inputs", 1e30, "inputs, row 2, column 1 is 1.*e.30, whose square overflows; expected a smaller number"),
        ("outputs_grads[0]", -np.inf, r"outputs_grads\[0\], row 2, column 1 is -inf"),
        ("row_weights", np.nan, "row_weights, row 2 is nan; expected a finite weight"),
        ("row_weights", -1, "row_weights, row 2 is -1.0; expected a finite weight, 0 or above"),
    ],
)
def test_what_is_refused(field, value, match):
    arrays = {"inputs": np.ones((4, 3), "f4"), "outputs_grads[0]": np.ones((4, 2), "f4"), "row_weights": np.ones(4)}
    arrays[field][(2, 1) if arrays[field].ndim > 1 else 2] = value
    with pytest.raises(fisherd.InvalidArgumentError, match=match) as error:
        make_contribution(IDENTITY, Batch.of(*arrays.values()), shape(3, 2), 1)
    assert error.value.reason == ("BAD_ARGUMENT" if value == -1 else "NON_FINITE_INPUT")
    assert error.value.metadata["field"] == field


def test_sums_that_are_refused():
    ones = Batch.of(np.ones((2, 3)), np.ones((2, 2)), np.zeros(2))
    with pytest.raises(fisherd.InvalidArgumentError, match="row_weights sum to 0.0; expected a positive sum"):
        make_contribution(IDENTITY, ones, shape(3, 2), 1)
    large = Batch.of(np.full((2, 3), 1e15, "f4"), np.full((2, 2), 1e15, "f4"))
    with pytest.raises(fisherd.InvalidArgumentError, match="overflow the factor's type"):
        make_contribution(IDENTITY, large, shape(3, 2), 1)


def test_the_shape_of_a_factor():
    kind = types_pb2.FullyConnectedDiagonal(input_size=3, output_size=2, has_bias=True)
    spec = types_pb2.FactorSpec(fully_connected_diagonal=kind, dtype=types_pb2.DATA_TYPE_FLOAT64)
    layer = LayerShape.of(spec)
    assert layer == shape(3, 2, dtype="f8")
    assert layer.bytes == 4 * 2 * 8
    assert LayerShape.of(types_pb2.FactorSpec()) is None
    a, g = np.ones((2, 3)), np.ones((2, 2))
    assert layer.fits(Batch.of(a, g))
    assert not layer.fits(Batch.of(a, [g, g]))
    assert not layer.fits(Batch.of(g, g))
    assert not layer.fits(Batch.of(a, a))
    assert not layer.fits(Batch.of(a, []))

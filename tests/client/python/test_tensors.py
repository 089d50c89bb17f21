"""What counts as a tensor, and that its bytes are not copied."""

import array
import sys

import numpy as np
import pytest

from fisherd import tensors
from fisherd.v1 import types_pb2

M = np.arange(6, dtype=np.float32).reshape(2, 3)


class Array:
    """As JAX's: __array__, and a device that DLPack cannot reach."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __dlpack_device__(self):
        return (2, 0)


class DLPack:
    """Nothing but DLPack."""

    def __init__(self, values, device=1):
        self.values, self.device = values, device

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.device, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_numpy_is_not_copied(dtype):
    values = M.astype(dtype)
    view = tensors.view(values, "x")
    assert np.shares_memory(view.array, values)
    assert (view.dtype, view.shape) == (dtype, (2, 3))
    assert view.nbytes == values.nbytes
    assert view.row_bytes == values.nbytes // 2
    assert bytes(view.data()) == values.tobytes()
    assert bytes(view.data(1, 1)) == values[1:].tobytes()
    assert np.shares_memory(np.frombuffer(view.data(1, 1), np.uint8), values)
    assert types_pb2.DataType.Name(view.wire_type) == f"DATA_TYPE_{dtype.upper()}"


@pytest.mark.parametrize("wrap", [Array, DLPack, memoryview], ids=lambda wrap: wrap.__name__)
def test_protocols_are_not_copied(wrap):
    view = tensors.view(wrap(M), "x")
    assert np.shares_memory(view.array, M)
    assert view.dtype == "float32"


def test_buffers_of_the_standard_library():
    view = tensors.view(array.array("d", [1, 2]), "x")
    assert (view.dtype, view.shape) == ("float64", (2,))


def test_what_does_not_lie_in_order_is_put_in_order():
    for values in (M.T, M[:, ::2], np.asfortranarray(M), M.astype(">f4")):
        view = tensors.view(values, "x")
        assert bytes(view.data()) == np.ascontiguousarray(values).astype("<f4").tobytes()


def test_what_is_no_tensor():
    with pytest.raises(TypeError, match="x is list; expected a tensor"):
        tensors.view([[1.0]], "x")
    with pytest.raises(TypeError, match="x has elements of int64; expected one of float32"):
        tensors.view(np.ones((1, 1), np.int64), "x")
    with pytest.raises(TypeError, match="x is on a device"):
        tensors.view(DLPack(M, device=2), "x")


def test_bfloat16_bits():
    bits = np.array([[0x3F80, 0xC020]], np.uint16)  # 1, −2.5
    for marked in (tensors.bfloat16(bits), tensors.bfloat16(bits.view(np.int16))):
        view = tensors.view(marked, "x")
        assert view.dtype == "bfloat16"
        assert np.shares_memory(view.array, bits)
        np.testing.assert_array_equal(view.floats(np.dtype("f8")), [[1, -2.5]])
    with pytest.raises(TypeError, match="16-bit integers, not float32"):
        tensors.bfloat16(M)


def test_floats():
    view = tensors.view(M, "x")
    assert view.floats(np.dtype("f4")) is view.array
    assert view.floats(np.dtype("f8")).dtype == np.float64


def test_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = M.astype(ml_dtypes.bfloat16)
    view = tensors.view(values, "x")
    assert view.dtype == "bfloat16"
    assert np.shares_memory(view.array, values.view(np.uint16))
    np.testing.assert_array_equal(view.floats(np.dtype("f4")), M)
    assert tensors.empty((2,), types_pb2.DATA_TYPE_BFLOAT16).dtype == ml_dtypes.bfloat16


def test_without_ml_dtypes(monkeypatch):
    monkeypatch.setattr(tensors, "ml_dtypes", None)
    assert tensors.numpy_type(types_pb2.DATA_TYPE_BFLOAT16) == np.uint16


def test_torch():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float64, torch.float16):
        tensor = torch.arange(6, dtype=dtype).reshape(2, 3)
        view = tensors.view(tensor, "x")
        assert view.array.ctypes.data == tensor.data_ptr()
        np.testing.assert_array_equal(view.array, M)
    with_gradient = torch.ones(2, 3, requires_grad=True)
    assert tensors.view(with_gradient, "x").array.ctypes.data == with_gradient.data_ptr()
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    view = tensors.view(tensor, "x")
    assert view.dtype == "bfloat16"
    assert view.array.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(view.floats(np.dtype("f4")), M)
    np.testing.assert_array_equal(tensors.view(tensor.t(), "x").floats(np.dtype("f4")), M.T)


def test_torch_is_not_imported_for_those_who_do_not_use_it():
    import subprocess

    code = "import fisherd, sys; assert 'torch' not in sys.modules and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

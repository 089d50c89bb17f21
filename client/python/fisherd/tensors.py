"""Tensors of any library as rows of bytes, copied only if their elements do not lie in order."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from fisherd.v1 import types_pb2

try:
    import ml_dtypes
except ImportError:  # then NumPy has no bfloat16, and its bits are what we give and take
    ml_dtypes = None  # type: ignore[assignment]

_BFLOAT16 = "bfloat16"
_WIRE_TYPES = {
    "float32": types_pb2.DATA_TYPE_FLOAT32,
    "float64": types_pb2.DATA_TYPE_FLOAT64,
    "float16": types_pb2.DATA_TYPE_FLOAT16,
    _BFLOAT16: types_pb2.DATA_TYPE_BFLOAT16,
}
_NAMES: dict[int, str] = {number: name for name, number in _WIRE_TYPES.items()}
_CPU = 1  # DLPack's device types for memory that the CPU can read: kDLCPU,
_PINNED = 3  # kDLCUDAHost


@dataclasses.dataclass(frozen=True, eq=False)
class BFloat16:
    """bfloat16 elements as their bits, for libraries without such a type."""

    bits: np.ndarray[Any, np.dtype[np.uint16]]


def bfloat16(bits: Any) -> BFloat16:
    """Mark an array of 16-bit integers as the bits of bfloat16 elements.

    Needed only where a tensor's own type does not say so: PyTorch's, JAX's and ml_dtypes' do.
    """
    array = _host_array(bits)
    if array.dtype.itemsize != np.uint16().itemsize or array.dtype.kind not in "iu":
        message = f"bfloat16() wants the bits as 16-bit integers, not {array.dtype}"
        raise TypeError(message)
    return BFloat16(array.view(np.uint16))


@dataclasses.dataclass(frozen=True, eq=False)
class TensorView:
    """A tensor's elements in host memory, row-major; bfloat16 as uint16 bits. Keeps them alive."""

    array: np.ndarray[Any, np.dtype[Any]]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        shape: tuple[int, ...] = self.array.shape
        return shape

    @property
    def wire_type(self) -> types_pb2.DataType:
        """The elements' type as messages name it."""
        return _WIRE_TYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of all that one index of the first axis stands for."""
        return self.array.nbytes // len(self.array) if len(self.array) else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    def data(self, first: int = 0, count: int | None = None) -> memoryview:
        """Return the bytes of rows [first, first + count), without a copy."""
        rows = self.array[first:] if count is None else self.array[first : first + count]
        return rows.reshape(-1).view(np.uint8).data

    def floats(self, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the elements as float32 or float64; the array itself where it has that type already."""
        if self.dtype != _BFLOAT16:
            return self.array.astype(dtype, copy=False)
        return (self.array.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(dtype, copy=False)


def view(tensor: Any, name: str) -> TensorView:
    """Return a view of the tensor's elements; from a GPU, of a copy in host memory.

    tensor: with the buffer protocol, `__array__` or DLPack, of floating-point elements.
    name: for messages.

    Raises TypeError for anything else.
    """
    array = _host_array(tensor, name)
    dtype = _BFLOAT16 if isinstance(tensor, BFloat16) or _is_torch_bfloat16(tensor) else array.dtype.name
    if dtype not in _WIRE_TYPES:
        message = f"{name} has elements of {dtype}; expected one of {', '.join(_WIRE_TYPES)}"
        raise TypeError(message)
    if dtype == _BFLOAT16:
        array = array.view(np.uint16)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return TensorView(np.ascontiguousarray(array) if array.ndim else array.reshape(1), dtype)


def empty(shape: tuple[int, ...], wire_type: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a new array for elements that will come; of bfloat16 ml_dtypes' type, or bits without it."""
    return np.empty(shape, numpy_type(wire_type))


def numpy_type(wire_type: int) -> np.dtype[Any]:
    """Return NumPy's type for the wire's."""
    name: Any = _NAMES[wire_type]
    if name == _BFLOAT16:
        name = np.uint16 if ml_dtypes is None else ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _is_torch(tensor: Any) -> bool:
    # Without importing PyTorch for those who do not use it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def _is_torch_bfloat16(tensor: Any) -> bool:
    return _is_torch(tensor) and tensor.dtype == sys.modules["torch"].bfloat16


def _torch_array(tensor: Any) -> np.ndarray[Any, np.dtype[Any]]:
    host = tensor.detach().cpu()
    if _is_torch_bfloat16(tensor):
        host = host.contiguous().view(sys.modules["torch"].int16)
    array: np.ndarray[Any, np.dtype[Any]] = host.numpy()
    return array


def _host_array(tensor: Any, name: str = "a tensor") -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(tensor, np.ndarray):
        return tensor
    if isinstance(tensor, BFloat16):
        return tensor.bits
    if _is_torch(tensor):
        return _torch_array(tensor)
    if hasattr(tensor, "__dlpack_device__") and not hasattr(tensor, "__array__"):
        device = tensor.__dlpack_device__()[0]
        if device not in (_CPU, _PINNED):
            message = f"{name} is on a device (DLPack type {device}) that this process cannot read; copy it to the host"
            raise TypeError(message)
        return np.from_dlpack(tensor)
    if hasattr(tensor, "__array__"):
        return np.asarray(tensor)
    try:
        return np.asarray(memoryview(tensor))
    except TypeError:
        message = f"{name} is {type(tensor).__name__}; expected a tensor: NumPy, PyTorch, JAX, DLPack or a buffer"
        raise TypeError(message) from None

"""What the calls that move tensors say, Read and Multiply: requests from arguments, results from answers. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fisherd import tensors, types
from fisherd.crc import crc32c_of
from fisherd.errors import DataLossError, InvalidArgumentError
from fisherd.linear_operator import Array, LinearOperatorDiag
from fisherd.types import Layout, MinVersion, Version
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2

_MAX_CHUNK = 1 << 20
_MAX_ELEMENTS = 1 << 48
_WEIGHT_AXES = 2


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read, and of which version.

    info: steps_committed, the damping as used, whether it was cached and so on (factor_service.proto).
    unchanged: it would have been of the version that if_version_not named; there is no value.
    """

    info: service_pb2.OperatorInfo
    unchanged: bool
    _value: LinearOperatorDiag | None

    @property
    def value(self) -> LinearOperatorDiag:
        """The operator, transferred. LookupError if it is unchanged."""
        if self._value is None:
            message = "what was read is unchanged and has no value"
            raise LookupError(message)
        return self._value

    @property
    def weight(self) -> Array:
        """The weight's part of the diagonal, [I, O] or [O, I]."""
        return self.value.weight

    @property
    def bias(self) -> Array | None:
        """The bias's part of the diagonal, [O]; None without a bias."""
        return self.value.bias

    @property
    def version(self) -> Version:
        """The version that the elements were computed from."""
        return Version.of(self.info.version)

    @property
    def steps_committed(self) -> int:
        """Steps in the factor's value; 0 says that this is of the initial covariance."""
        return self.info.steps_committed


@dataclasses.dataclass(frozen=True)
class MultiplyItem:
    """One factor's part of multiply_all(): an operator and the weight and bias to multiply it by.

    weight: a tensor [I, O], or [O, I] with layout "out_in".
    bias: a tensor [O] of the same type, or None without a bias.
    """

    factor: str
    operator: types_pb2.Operator
    weight: Any
    bias: Any = None
    layout: Layout = "in_out"
    min_version: MinVersion | None = None


@dataclasses.dataclass(frozen=True)
class Product:
    """An operator times what it was multiplied by, in the same shapes and type; writable NumPy arrays."""

    weight: Array
    bias: Array | None
    info: service_pb2.OperatorInfo

    @property
    def version(self) -> Version:
        """The version that the operator was computed from."""
        return Version.of(self.info.version)


def read_request(
    factor: str,
    operator: types_pb2.Operator,
    *,
    layout: Layout,
    dtype: str | None,
    min_version: MinVersion | None,
    if_version_not: Version | None,
) -> service_pb2.ReadRequest:
    """Return the request of Client.read()."""
    request = service_pb2.ReadRequest(factor=factor, operator=operator, layout=types.layout(layout), split_bias=True)
    if dtype is not None:
        request.dtype = types.data_type(dtype)
    if min_version is not None:
        request.min_version.CopyFrom(service_pb2.MinVersion(**min_version._asdict()))
    if if_version_not is not None:
        request.if_version_not.CopyFrom(types_pb2.Version(**if_version_not._asdict()))
    return request


class ReadAssembly:
    """Puts the answers of one Read together. Not thread-safe."""

    def __init__(self) -> None:
        self._header: service_pb2.ReadHeader | None = None
        self._parts: _Parts | None = None

    def add(self, response: service_pb2.ReadResponse) -> None:
        """Take the next answer. DataLossError if it does not follow, or is damaged."""
        if self._header is None:
            if not response.HasField("header"):
                raise _malformed("the answer does not begin with a header")
            self._header = response.header
            if not self._header.unchanged:
                self._parts = _Parts(self._header.tensors)
        elif not response.HasField("chunk") or self._parts is None:
            raise _malformed("the answer goes on with something that is not a chunk")
        else:
            self._parts.add(response.chunk)

    def finish(self) -> Reading:
        """Return the whole. DataLossError if something is missing."""
        if self._header is None:
            raise _malformed("the answer is empty")
        value = None
        if self._parts is not None:
            self._parts.finish()
            value = LinearOperatorDiag.of(self._parts.weight, self._parts.bias)
        return Reading(self._header.operator, self._header.unchanged, value)


class MultiplyAssembly:
    """One Multiply of several factors: what to send, and what the answers say. `requests` may run beside `add`."""

    def __init__(self, items: Sequence[MultiplyItem]) -> None:
        """Look at all arguments, before anything is sent; see Client.multiply() for errors."""
        self._items = items
        self._arguments = [_arguments(item) for item in items]
        self._answers: list[tuple[service_pb2.MultiplyResponseHeader, _Parts]] = []

    def requests(self) -> Iterator[service_pb2.MultiplyRequest]:
        """Return what to send, in order."""
        for item, argument in zip(self._items, self._arguments, strict=True):
            header = service_pb2.MultiplyHeader(
                factor=item.factor,
                operator=item.operator,
                layout=types.layout(item.layout),
                split_bias=True,
                dtype=argument[0].wire_type,
            )
            if item.min_version is not None:
                header.min_version.CopyFrom(service_pb2.MinVersion(**item.min_version._asdict()))
            yield service_pb2.MultiplyRequest(header=header)
            for index, part in enumerate(argument):
                yield from (service_pb2.MultiplyRequest(chunk=chunk) for chunk in _chunks(index, part))

    def add(self, response: service_pb2.MultiplyResponse) -> None:
        """Take the next answer. DataLossError if it does not follow, or is damaged."""
        begins = not self._answers or self._answers[-1][1].done
        if begins and len(self._answers) < len(self._items):
            if not response.HasField("header"):
                raise _malformed("an answer does not begin with a header")
            argument = self._arguments[len(self._answers)]
            dtype = argument[0].wire_type
            _check_shapes(self._items[len(self._answers)], argument, response.header.tensors)
            self._answers.append((response.header, _Parts(response.header.tensors, dtype)))
        elif not response.HasField("chunk"):
            raise _malformed("the answer goes on with something that is not a chunk")
        else:
            self._answers[-1][1].add(response.chunk)

    def finish(self) -> list[Product]:
        """Return the products, in the order of the items. DataLossError if something is missing."""
        if self._answers:
            self._answers[-1][1].finish()
        if len(self._answers) < len(self._items):
            raise _malformed(f"the answer ended after {len(self._answers)} of {len(self._items)} products")
        return [Product(parts.weight, parts.bias, header.operator) for header, parts in self._answers]


class _Parts:
    """The arrays that an answer's chunks fill: the weight's and, if there is one, the bias's."""

    def __init__(self, specs: Sequence[types_pb2.TensorSpec], dtype: int | None = None) -> None:
        roles = (types_pb2.TENSOR_ROLE_WEIGHT, types_pb2.TENSOR_ROLE_BIAS)
        good = 1 <= len(specs) <= len(roles)
        for index, spec in enumerate(specs[: len(roles)]):
            good = good and spec.role == roles[index] and len(spec.shape) == _WEIGHT_AXES - index
            good = good and spec.dtype == (specs[0].dtype if dtype is None else dtype) and spec.dtype != 0
            good = good and all(1 <= size <= _MAX_ELEMENTS for size in spec.shape)
        if not good or int(np.prod([int(size) for size in specs[0].shape], dtype=object)) > _MAX_ELEMENTS:
            got = "; ".join(str(spec).replace("\n", " ") for spec in specs)
            raise _malformed(
                f"the answer has the tensors {{{got}}}, expected a weight of two axes and at most a bias of one"
            )
        self._arrays = [tensors.empty(tuple(spec.shape), spec.dtype) for spec in specs]
        self._tensor = 0  # where the next byte belongs
        self._offset = 0  # in that tensor

    @property
    def done(self) -> bool:
        return self._tensor == len(self._arrays)

    @property
    def weight(self) -> Array:
        return self._arrays[0]

    @property
    def bias(self) -> Array | None:
        return self._arrays[1] if len(self._arrays) > 1 else None

    def add(self, chunk: types_pb2.TensorChunk) -> None:
        if self.done:
            raise _malformed("a chunk came after the last element of the answer")
        array = self._arrays[self._tensor]
        expected = self._offset // array.itemsize
        if chunk.tensor != self._tensor or chunk.first_element != expected:
            raise _malformed(
                f"a chunk begins at element {chunk.first_element} of tensor {chunk.tensor}, "
                f"expected element {expected} of tensor {self._tensor}"
            )
        data = chunk.data
        left = array.nbytes - self._offset
        if not data or len(data) % array.itemsize != 0 or len(data) > left:
            raise _malformed(
                f"the chunk at element {expected} of tensor {self._tensor} has {len(data)} bytes, "
                f"expected whole elements of {array.itemsize} bytes and at most {left}"
            )
        if (crc := crc32c_of(data, 0)) != chunk.crc32c:
            raise DataLossError(
                f"the chunk at element {expected} of tensor {self._tensor} was damaged on its way: "
                f"crc32c {crc:x}, expected {chunk.crc32c:x}",
                reason="CRC_MISMATCH",
            )
        target = array.reshape(-1).view(np.uint8)
        target[self._offset : self._offset + len(data)] = np.frombuffer(data, np.uint8)
        self._offset += len(data)
        if len(data) == left:
            self._tensor, self._offset = self._tensor + 1, 0

    def finish(self) -> None:
        if not self.done:
            raise _malformed(
                f"the answer ended at byte {self._offset} of tensor {self._tensor}, of {len(self._arrays)} tensors"
            )


def _arguments(item: MultiplyItem) -> list[tensors.TensorView]:
    arguments = [tensors.view(item.weight, "weight")]
    if item.bias is not None:
        arguments.append(tensors.view(item.bias, "bias"))
    for axes, argument in zip((_WEIGHT_AXES, 1), arguments, strict=False):
        if len(argument.shape) != axes or argument.dtype != arguments[0].dtype:
            got = ", ".join(f"{part.dtype} {list(part.shape)}" for part in arguments)
            raise InvalidArgumentError(
                f'factor "{item.factor}": got {got}; expected a weight of two axes and a bias of one, of one type',
                reason="BAD_ARGUMENT",
                metadata={"factor": item.factor, "field": "bias" if axes == 1 else "weight"},
            )
    return arguments


def _check_shapes(
    item: MultiplyItem, argument: Sequence[tensors.TensorView], specs: Sequence[types_pb2.TensorSpec]
) -> None:
    """Compare the shapes with the factor's: requests carry elements alone, so a transposed weight would be accepted."""
    got, expected = ([list(part.shape) for part in parts] for parts in (argument, specs))
    if got != expected:
        raise InvalidArgumentError(
            f'factor "{item.factor}": got the shapes {got}; expected {expected}, in the layout "{item.layout}"',
            reason="BAD_ARGUMENT",
            metadata={"factor": item.factor, "field": "weight" if got[0] != expected[0] else "bias"},
        )


def _chunks(index: int, tensor: tensors.TensorView) -> Iterator[types_pb2.TensorChunk]:
    data = tensor.data()
    for offset in range(0, len(data), _MAX_CHUNK):
        piece = data[offset : offset + _MAX_CHUNK]
        yield types_pb2.TensorChunk(
            tensor=index,
            first_element=offset // tensor.array.itemsize,
            crc32c=crc32c_of(piece, 0),
            data=bytes(piece),
        )


def _malformed(message: str) -> DataLossError:
    return DataLossError(message, reason="MALFORMED_FRAME")

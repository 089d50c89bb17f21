"""One batch as the messages that carry it: header rows* end.

The bytes of a rows frame are put together by hand, in one copy; they are what protobuf would have written. Where memory
is shared with the server, the elements lie there and the frames name their place.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from fisherd import tensors
from fisherd.crc import crc32c_of
from fisherd.errors import Error
from fisherd.shared_memory import LEAST_SHARED_BYTES, SharedBlock, SharedMemory, Use
from fisherd.tower_state import BatchIdentity
from fisherd.v1 import types_pb2, update_pb2

MAX_MESSAGE = 4 << 20  # no message is larger (update.proto)
LARGEST_MAX_FRAME = 3 << 20  # so that a header fits beside a frame
_FRAME_OVERHEAD = 64  # fields of rows and end beside the data, and their tags
_MATRIX_AXES = 2

Message = bytes  # an UpdateRequest
Token = bytes  # SharedBytes.region


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step enters the moving average:  var ← decay·var + weight·C. All towers must send the same."""

    decay: float = 0.95
    weight: float | None = None
    gradient_scale: float | None = None
    label: int = 0


@dataclasses.dataclass(frozen=True)
class Batch:
    """One tower's part of one step, as the trainer has it. Views."""

    inputs: tensors.TensorView
    outputs_grads: tuple[tensors.TensorView, ...]
    row_weights: tensors.TensorView | None = None

    @classmethod
    def of(cls, inputs: Any, outputs_grads: Any, row_weights: Any = None) -> Batch:
        """Look at tensors of any library. TypeError for what is none."""
        grads = outputs_grads if isinstance(outputs_grads, (list, tuple)) else (outputs_grads,)
        return cls(
            tensors.view(inputs, "inputs"),
            tuple(tensors.view(grad, f"outputs_grads[{source}]") for source, grad in enumerate(grads)),
            None if row_weights is None else tensors.view(row_weights, "row_weights"),
        )


@dataclasses.dataclass(frozen=True)
class BatchTensors:
    """The tensors that are to travel. Views.

    rows: N. examples: of a contribution, what stands for N, if not N itself.
    """

    form: update_pb2.BatchForm
    rows: int
    views: tuple[tensors.TensorView, ...]
    specs: tuple[types_pb2.TensorSpec, ...]
    examples: float | None = None

    @property
    def frame_rows(self) -> int:
        """Rows that are to travel: N, or H of a contribution."""
        return self.views[0].shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all tensors."""
        return sum(view.row_bytes for view in self.views)

    @property
    def bytes(self) -> int:
        """Bytes of all elements."""
        return sum(view.nbytes for view in self.views)


@dataclasses.dataclass(frozen=True)
class _Frame:
    """One rows frame: rows first … first + count − 1, with what stands before and after it in its message.

    size: bytes of its elements. at: where they are among the batch's.
    """

    before: bytes
    first: int
    count: int
    at: int
    size: int
    after: bytes

    def holding(self, pieces: Sequence[memoryview]) -> bytes:
        """Return its message, with the elements."""
        crc = 0
        for piece in pieces:
            crc = crc32c_of(piece, crc)
        rows = update_pb2.BatchRows(first_row=self.first, row_count=self.count, crc32c=crc)
        # BatchRows.data is field 15, length-delimited (wire type 2).
        return self._message(rows.SerializeToString() + b"\x7a" + _varint(self.size), pieces)

    def naming(self, region: bytes, offset: int) -> bytes:
        """Return its message, with the place in shared memory where the elements are."""
        shared = update_pb2.SharedBytes(region=region, offset=offset, size=self.size)
        rows = update_pb2.BatchRows(first_row=self.first, row_count=self.count, shared=shared)
        return self._message(rows.SerializeToString(), ())

    def _message(self, fields: bytes, pieces: Sequence[memoryview]) -> bytes:
        # UpdateRequest.rows is field 4.
        size = len(fields) + sum(len(piece) for piece in pieces)
        return b"".join([self.before, b"\x22", _varint(size), fields, *pieces, self.after])


@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """The messages that carry a batch, in their order, or what they are made of when its elements are in shared memory.

    bytes: of elements.
    """

    messages: tuple[Message, ...]
    bytes: int
    form: update_pb2.BatchForm
    block: SharedBlock | None = None
    frames: tuple[_Frame, ...] = ()

    def addressed(self, region: Token) -> Iterator[Message]:
        """Return the messages for a stream to whose server the shared memory is known as `region`; b"": it is not."""
        yield from self.messages
        if self.block is None:
            return
        for frame in self.frames:
            if region:
                yield frame.naming(region, self.block.offset + frame.at)
            else:
                yield frame.holding([self.block.read(frame.at, frame.size)])


def raw_tensors(identity: BatchIdentity, batch: Batch) -> BatchTensors:
    """Return the batch as the trainer has it.

    InvalidArgumentError (BAD_ARGUMENT) if it cannot be cut by rows: a tensor's axes are too many or too few, or the
    tensors' rows differ. What the factor wants of them, the server says.
    """
    named = [("inputs", batch.inputs, types_pb2.TENSOR_ROLE_INPUTS, 0)]
    for source, grads in enumerate(batch.outputs_grads):
        named.append((f"outputs_grads[{source}]", grads, types_pb2.TENSOR_ROLE_OUTPUTS_GRADS, source))
    if batch.row_weights is not None:
        weights = _as_vector(batch.row_weights)
        named.append(("row_weights", weights, types_pb2.TENSOR_ROLE_ROW_WEIGHTS, 0))
    rows = batch.inputs.shape[0]
    for name, view, role, _ in named:
        axes = 1 if role == types_pb2.TENSOR_ROLE_ROW_WEIGHTS else _MATRIX_AXES
        if len(view.shape) != axes:
            raise _bad_batch(
                identity, name, f"{name} has the shape {list(view.shape)}; expected {axes} axes, rows first"
            )
        if view.shape[0] != rows or rows < 1:
            raise _bad_batch(
                identity,
                name,
                f"{name} has {view.shape[0]} rows; every tensor of a batch has the same number of them, at least 1 "
                f"(inputs: {rows})",
            )
    return BatchTensors(
        form=update_pb2.BATCH_FORM_RAW,
        rows=rows,
        views=tuple(view for _, view, _, _ in named),
        specs=tuple(_spec(view, role, source) for _, view, role, source in named),
    )


def contribution_tensors(contribution: tensors.TensorView, rows: int, examples: float | None) -> BatchTensors:
    """Return one contribution [H, O] of `rows` rows, in place of the batch."""
    return BatchTensors(
        form=update_pb2.BATCH_FORM_CONTRIBUTION,
        rows=rows,
        views=(contribution,),
        specs=(_spec(contribution, types_pb2.TENSOR_ROLE_CONTRIBUTION, 0),),
        examples=examples,
    )


def encode_batch(
    identity: BatchIdentity,
    batch: BatchTensors,
    options: StepOptions,
    max_frame: int,
    memory: SharedMemory | None = None,
) -> EncodedBatch:
    """Copy the elements into messages, or into shared memory if that is given and has room.

    InvalidArgumentError (BAD_ARGUMENT) if a row exceeds a message.
    """
    header = update_pb2.UpdateRequest(header=_header(identity, batch, options)).SerializeToString()
    row_bytes = batch.row_bytes
    if max(len(header), row_bytes) + _FRAME_OVERHEAD > MAX_MESSAGE:
        raise _bad_batch(
            identity,
            "outputs_grads",
            f"one row of all tensors is {row_bytes} bytes and their description {len(header)}; each must fit a "
            f"message, which is at most {MAX_MESSAGE} bytes",
        )
    rows_per_frame = min(max(max_frame // max(row_bytes, 1), 1), batch.frame_rows)
    alone = len(header) + rows_per_frame * row_bytes + _FRAME_OVERHEAD > MAX_MESSAGE
    frames = tuple(_frames(b"" if alone else header, batch, rows_per_frame))
    messages: tuple[Message, ...] = (header,) if alone else ()
    block = None
    if memory is not None and batch.bytes >= LEAST_SHARED_BYTES:
        block = memory.take(batch.bytes, Use((identity.factor, identity.tower), identity.incarnation, identity.step))
    if block is None:
        messages += tuple(frame.holding(_pieces(batch, frame)) for frame in frames)
        return EncodedBatch(messages, batch.bytes, batch.form)
    for frame in frames:
        at = frame.at
        for piece in _pieces(batch, frame):
            block.write(at, piece)
            at += len(piece)
    return EncodedBatch(messages, batch.bytes, batch.form, block, frames)


def batch_digest(header: update_pb2.BatchHeader, views: Sequence[tensors.TensorView]) -> bytes:
    """Return the digest of a batch, 16 bytes: the C++ client's (client/cpp/batch_frames.h has the definition)."""
    name = header.factor.encode()
    hasher = xxhash.xxh3_128(_numbers(len(name)) + name)
    numbers = [header.incarnation, header.step, header.tower, header.rows, header.form, header.label]
    hasher.update(_numbers(*numbers))
    for field in ("decay", "weight", "gradient_scale"):
        hasher.update(_optional(header, field))
    if header.form == update_pb2.BATCH_FORM_CONTRIBUTION:
        hasher.update(_optional(header, "examples"))
    hasher.update(_numbers(len(header.tensors)))
    for spec in header.tensors:
        hasher.update(_numbers(spec.role, spec.source, spec.dtype, len(spec.shape), *spec.shape))
    for view in views:
        hasher.update(view.data())
    return hasher.digest()


def _header(identity: BatchIdentity, batch: BatchTensors, options: StepOptions) -> update_pb2.BatchHeader:
    header = update_pb2.BatchHeader(
        factor=identity.factor,
        incarnation=identity.incarnation,
        step=identity.step,
        tower=identity.tower,
        rows=batch.rows,
        form=batch.form,
        decay=options.decay,
        weight=options.weight,
        label=options.label,
        examples=batch.examples,
        tensors=batch.specs,
    )
    if options.gradient_scale is not None and batch.form != update_pb2.BATCH_FORM_CONTRIBUTION:
        header.gradient_scale = options.gradient_scale  # a contribution has been scaled already
    header.digest = batch_digest(header, batch.views)
    return header


def _frames(before: bytes, batch: BatchTensors, rows_per_frame: int) -> Iterator[_Frame]:
    rows = batch.frame_rows
    for first in range(0, rows, rows_per_frame):
        count = min(rows_per_frame, rows - first)
        last = first + count == rows
        after = update_pb2.UpdateRequest(end=update_pb2.BatchEnd(rows=rows)).SerializeToString() if last else b""
        yield _Frame(before, first, count, first * batch.row_bytes, count * batch.row_bytes, after)
        before = b""


def _pieces(batch: BatchTensors, frame: _Frame) -> list[memoryview]:
    return [view.data(frame.first, frame.count) for view in batch.views]


def _spec(view: tensors.TensorView, role: types_pb2.TensorRole, source: int) -> types_pb2.TensorSpec:
    return types_pb2.TensorSpec(role=role, source=source, dtype=view.wire_type, shape=view.shape)


def _as_vector(weights: tensors.TensorView) -> tensors.TensorView:
    """Return [N, 1] as [N], as column vectors are meant."""
    if len(weights.shape) == _MATRIX_AXES and weights.shape[1] == 1:
        return dataclasses.replace(weights, array=weights.array.reshape(-1))
    return weights


def _bad_batch(identity: BatchIdentity, field: str, message: str) -> Error:
    return identity.error("INVALID_ARGUMENT", message, reason="BAD_ARGUMENT", metadata={"field": field})


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _optional(header: update_pb2.BatchHeader, field: str) -> bytes:
    if not header.HasField(field):
        return _numbers(0)
    return _numbers(1) + struct.pack("<d", getattr(header, field))


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)

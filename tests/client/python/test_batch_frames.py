"""A batch as messages: genuine protobuf, cut by rows, with the C++ client's digest."""

import crc32c
import numpy as np
import pytest

import fisherd
from fisherd import batch_frames
from fisherd.batch_frames import Batch, StepOptions
from fisherd.shared_memory import SharedMemory, Use
from fisherd.tower_state import BatchIdentity
from fisherd.v1 import types_pb2, update_pb2

IDENTITY = BatchIdentity("f", 1, 3, 7)
RNG = np.random.default_rng(0)
A = RNG.random((7, 5)).astype(np.float32)
G = RNG.random((7, 3))


def encode(batch, max_frame=1 << 20, **options):
    raw = batch_frames.raw_tensors(IDENTITY, batch)
    return batch_frames.encode_batch(IDENTITY, raw, StepOptions(**options), max_frame)


def parse(encoded):
    return [update_pb2.UpdateRequest.FromString(message) for message in encoded.messages]


def test_one_message():
    encoded = encode(Batch.of(A, G, np.ones(7)), decay=0.5, weight=0.25, gradient_scale=2, label=9)
    (message,) = parse(encoded)
    # What protobuf itself would have written.
    assert message.SerializeToString() == encoded.messages[0]
    header = message.header
    assert (header.factor, header.tower, header.step, header.incarnation) == ("f", 1, 3, 7)
    assert (header.rows, header.form) == (7, update_pb2.BATCH_FORM_RAW)
    assert (header.decay, header.weight, header.gradient_scale, header.label) == (0.5, 0.25, 2, 9)
    assert not header.HasField("examples")
    assert [(spec.role, spec.source, spec.dtype, list(spec.shape)) for spec in header.tensors] == [
        (types_pb2.TENSOR_ROLE_INPUTS, 0, types_pb2.DATA_TYPE_FLOAT32, [7, 5]),
        (types_pb2.TENSOR_ROLE_OUTPUTS_GRADS, 0, types_pb2.DATA_TYPE_FLOAT64, [7, 3]),
        (types_pb2.TENSOR_ROLE_ROW_WEIGHTS, 0, types_pb2.DATA_TYPE_FLOAT64, [7]),
    ]
    assert message.rows.data == A.tobytes() + G.tobytes() + np.ones(7).tobytes()
    assert message.rows.crc32c == crc32c.crc32c(message.rows.data)
    assert (message.rows.first_row, message.rows.row_count, message.end.rows) == (0, 7, 7)
    assert encoded.bytes == len(message.rows.data)


def test_optional_fields_are_absent():
    header = parse(encode(Batch.of(A, [G, 2 * G])))[0].header
    assert header.HasField("decay")
    assert not any(header.HasField(field) for field in ("weight", "gradient_scale", "examples"))
    assert [spec.source for spec in header.tensors] == [0, 0, 1]


@pytest.mark.parametrize("max_frame", [1, 44, 100, 132, 1 << 20])
def test_frames(max_frame):
    encoded = encode(Batch.of(A, G), max_frame)
    messages = parse(encoded)
    assert [message.SerializeToString() for message in messages] == list(encoded.messages)
    row = 0
    for index, message in enumerate(messages):
        assert message.HasField("header") == (index == 0)
        assert message.HasField("end") == (index == len(messages) - 1)
        rows = message.rows
        span = slice(row, row + rows.row_count)
        assert rows.first_row == row
        assert rows.data == A[span].tobytes() + G[span].tobytes()
        assert rows.crc32c == crc32c.crc32c(rows.data)
        assert len(rows.data) <= max_frame or rows.row_count == 1
        row += rows.row_count
    assert row == 7
    assert messages[0].header.digest == parse(encode(Batch.of(A, G)))[0].header.digest


def test_a_large_header_goes_alone():
    batch = Batch.of(np.ones((2, (1 << 19) - 8000)), [np.ones((2, 1), np.float32)] * 4096)
    messages = parse(encode(batch, 3 << 20))
    assert max(message.ByteSize() for message in messages) <= batch_frames.MAX_MESSAGE
    assert messages[0].HasField("header")


def test_a_row_that_exceeds_a_message():
    with pytest.raises(fisherd.InvalidArgumentError, match="one row of all tensors is 4194308 bytes") as error:
        encode(Batch.of(np.ones((1, 1 << 20), np.float32), np.ones((1, 1), np.float32)))
    assert error.value.metadata == {"factor": "f", "tower": "1", "step": "3", "field": "outputs_grads"}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((A, G[:6]), r"outputs_grads\[0\] has 6 rows; every tensor of a batch has the same number of them.*inputs: 7"),
        ((A, [G, G[:1]]), r"outputs_grads\[1\] has 1 rows"),
        ((A, G, np.ones(6)), "row_weights has 6 rows"),
        ((A[0], G), r"inputs has the shape \[5\]; expected 2 axes"),
        ((A, G[0]), r"outputs_grads\[0\] has the shape \[3\]; expected 2 axes"),
        ((A, G, np.ones((7, 2))), r"row_weights has the shape \[7, 2\]; expected 1 axes"),
        ((A[:0], G[:0]), "inputs has 0 rows"),
    ],
)
def test_batches_that_cannot_be_cut(arguments, match):
    with pytest.raises(fisherd.InvalidArgumentError, match=match) as error:
        encode(Batch.of(*arguments))
    assert error.value.reason == "BAD_ARGUMENT"


def test_the_digest_is_the_cpp_clients():
    # tests/client/cpp/batch_frames_test.cc pins the same.
    view = fisherd.tensors.view(np.ones((1, 1), np.float32), "x")
    digest = batch_frames.batch_digest(update_pb2.BatchHeader(factor="f"), [view])
    assert digest.hex() == "4a56e60766549e48c7b476ca7266a8ee"


def test_whatever_changes_changes_the_digest():
    header = parse(encode(Batch.of(A, G)))[0].header
    views = [fisherd.tensors.view(A, "a"), fisherd.tensors.view(G, "g")]
    seen = {batch_frames.batch_digest(header, views)}
    changes = [
        {"factor": "g"}, {"incarnation": 8}, {"step": 4}, {"tower": 0}, {"rows": 8}, {"form": 2}, {"label": 1},
        {"decay": 0.8}, {"weight": 0}, {"gradient_scale": 1},
    ]  # fmt: skip
    for change in changes:
        changed = update_pb2.BatchHeader()
        changed.CopyFrom(header)
        for field, value in change.items():
            setattr(changed, field, value)
        seen.add(batch_frames.batch_digest(changed, views))
    other = A.copy()
    other[6, 4] += 1
    seen.add(batch_frames.batch_digest(header, [fisherd.tensors.view(other, "a"), views[1]]))
    assert len(seen) == len(changes) + 2


def test_a_contribution():
    view = fisherd.tensors.view(np.ones((4, 2), np.float32), "c")
    tensors = batch_frames.contribution_tensors(view, 100, 3.5)
    encoded = batch_frames.encode_batch(IDENTITY, tensors, StepOptions(gradient_scale=2), 1 << 20)
    (message,) = parse(encoded)
    header = message.header
    assert (header.form, header.rows, header.examples) == (update_pb2.BATCH_FORM_CONTRIBUTION, 100, 3.5)
    assert not header.HasField("gradient_scale")
    assert header.tensors[0].role == types_pb2.TENSOR_ROLE_CONTRIBUTION
    assert (message.rows.row_count, message.end.rows) == (4, 4)


@pytest.mark.parametrize("max_frame", [1 << 20, 8 << 10])
def test_shared_memory(max_frame):
    memory = SharedMemory(1 << 20)
    memory.take(1, Use(("g", 0), 7, 1))  # so that the batch is not at its beginning
    inputs, grads = RNG.random((2000, 4)), RNG.random((2000, 3)).astype(np.float32)
    raw = batch_frames.raw_tensors(IDENTITY, Batch.of(inputs, grads))
    shared = batch_frames.encode_batch(IDENTITY, raw, StepOptions(), max_frame, memory)
    travels = batch_frames.encode_batch(IDENTITY, raw, StepOptions(), max_frame)
    assert shared.block is not None
    assert list(shared.addressed(b"")) == list(travels.messages) == list(travels.addressed(b"any"))
    at = shared.block.offset
    for bytes_, whole in zip(shared.addressed(b"its name"), parse(travels), strict=True):
        message = update_pb2.UpdateRequest.FromString(bytes_)
        assert message.SerializeToString() == bytes_
        place = message.rows.shared
        assert (place.region, place.offset, place.size) == (b"its name", at, len(whole.rows.data))
        assert bytes(shared.block.read(at - shared.block.offset, place.size)) == whole.rows.data
        at += place.size
        message.rows.ClearField("shared")
        whole.rows.ClearField("data")
        whole.rows.ClearField("crc32c")
        assert message == whole


def test_what_is_not_shared():
    memory = SharedMemory(64 << 10)
    small = batch_frames.raw_tensors(IDENTITY, Batch.of(A, G))
    assert batch_frames.encode_batch(IDENTITY, small, StepOptions(), 1 << 20, memory).block is None
    large = batch_frames.raw_tensors(IDENTITY, Batch.of(np.ones((2000, 5)), np.ones((2000, 3))))
    assert batch_frames.encode_batch(IDENTITY, large, StepOptions(), 1 << 20, memory).block is None
    assert memory.bytes_in_use == 0

"""Answers put together from chunks, and what is wrong with some."""

import crc32c
import numpy as np
import pytest

import fisherd
from fisherd import transfer
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.ones(3, np.float32)


def spec(array, role, dtype=types_pb2.DATA_TYPE_FLOAT32):
    return types_pb2.TensorSpec(role=role, dtype=dtype, shape=array.shape)


SPECS = [spec(WEIGHT, types_pb2.TENSOR_ROLE_WEIGHT), spec(BIAS, types_pb2.TENSOR_ROLE_BIAS)]


def chunk(tensor, first, data, crc=None):
    crc = crc32c.crc32c(data) if crc is None else crc
    return types_pb2.TensorChunk(tensor=tensor, first_element=first, data=data, crc32c=crc)


GOOD = [chunk(0, 0, WEIGHT.tobytes()[:8]), chunk(0, 2, WEIGHT.tobytes()[8:]), chunk(1, 0, BIAS.tobytes())]


def read(chunks, specs=SPECS, **header):
    assembly = transfer.ReadAssembly()
    assembly.add(service_pb2.ReadResponse(header=service_pb2.ReadHeader(tensors=specs, **header)))
    for each in chunks:
        assembly.add(service_pb2.ReadResponse(chunk=each))
    return assembly.finish()


def test_read():
    reading = read(GOOD)
    np.testing.assert_array_equal(reading.weight, WEIGHT)
    np.testing.assert_array_equal(reading.bias, BIAS)
    assert read([chunk(0, 0, WEIGHT.tobytes())], SPECS[:1]).bias is None
    assert read([], [], unchanged=True).unchanged


@pytest.mark.parametrize(
    ("chunks", "match"),
    [
        (GOOD[1:], "begins at element 2 of tensor 0, expected element 0 of tensor 0"),
        ([GOOD[0], GOOD[2]], "begins at element 0 of tensor 1, expected element 2 of tensor 0"),
        (GOOD[:2], "ended at byte 0 of tensor 1, of 2 tensors"),
        ([*GOOD, GOOD[0]], "after the last element"),
        ([chunk(0, 0, b"")], "has 0 bytes"),
        ([chunk(0, 0, b"123")], "has 3 bytes, expected whole elements of 4"),
        ([chunk(0, 0, bytes(28))], "has 28 bytes, expected .* at most 24"),
        ([chunk(0, 0, bytes(24), crc=1)], "damaged on its way: crc32c .*, expected 1"),
    ],
)
def test_damaged_answers(chunks, match):
    with pytest.raises(fisherd.DataLossError, match=match) as error:
        read(chunks)
    assert error.value.reason == ("CRC_MISMATCH" if "crc32c" in match else "MALFORMED_FRAME")


@pytest.mark.parametrize(
    "specs",
    [
        [],
        SPECS[1:],
        [*SPECS, SPECS[1]],
        [SPECS[0], spec(WEIGHT, types_pb2.TENSOR_ROLE_BIAS)],
        [SPECS[0], spec(BIAS, types_pb2.TENSOR_ROLE_BIAS, types_pb2.DATA_TYPE_FLOAT64)],
        [spec(WEIGHT, types_pb2.TENSOR_ROLE_WEIGHT, types_pb2.DATA_TYPE_UNSPECIFIED)],
        [types_pb2.TensorSpec(role=types_pb2.TENSOR_ROLE_WEIGHT, dtype=1, shape=[0, 2])],
        [types_pb2.TensorSpec(role=types_pb2.TENSOR_ROLE_WEIGHT, dtype=1, shape=[1 << 40, 1 << 40])],
    ],
)
def test_wrong_tensors(specs):
    with pytest.raises(fisherd.DataLossError, match="expected a weight of two axes"):
        read([], specs)


def test_answers_that_do_not_follow():
    assembly = transfer.ReadAssembly()
    with pytest.raises(fisherd.DataLossError, match="is empty"):
        assembly.finish()
    with pytest.raises(fisherd.DataLossError, match="does not begin with a header"):
        assembly.add(service_pb2.ReadResponse(chunk=GOOD[0]))
    with pytest.raises(fisherd.DataLossError, match="not a chunk"):
        read(GOOD[:1], [], unchanged=True)


def multiply(items, answers):
    assembly = transfer.MultiplyAssembly(items)
    for answer in answers:
        kind = "header" if isinstance(answer, service_pb2.MultiplyResponseHeader) else "chunk"
        assembly.add(service_pb2.MultiplyResponse(**{kind: answer}))
    return assembly.finish()


ITEM = fisherd.MultiplyItem("f", fisherd.covariance(), WEIGHT, BIAS)
HEADER = service_pb2.MultiplyResponseHeader(tensors=SPECS)


def test_multiply():
    products = multiply([ITEM, ITEM], [HEADER, *GOOD, HEADER, *GOOD])
    for product in products:
        np.testing.assert_array_equal(product.weight, WEIGHT)
        np.testing.assert_array_equal(product.bias, BIAS)
    with pytest.raises(fisherd.DataLossError, match="ended after 1 of 2 products"):
        multiply([ITEM, ITEM], [HEADER, *GOOD])
    with pytest.raises(fisherd.DataLossError, match="does not begin with a header"):
        multiply([ITEM], GOOD)
    with pytest.raises(fisherd.DataLossError, match="not a chunk"):
        multiply([ITEM], [HEADER, HEADER])
    with pytest.raises(fisherd.DataLossError, match="after the last element"):
        multiply([ITEM], [HEADER, *GOOD, GOOD[0]])
    double = fisherd.MultiplyItem("f", fisherd.covariance(), WEIGHT.astype("f8"), BIAS.astype("f8"))
    with pytest.raises(fisherd.DataLossError, match="expected a weight of two axes"):
        multiply([double], [HEADER])


def test_what_multiply_sends():
    large = np.zeros((600, 1000), np.float32)
    at = fisherd.MinVersion(5, 6)
    item = fisherd.MultiplyItem("f", fisherd.cholesky("d"), large, None, "out_in", at)
    header, *chunks = transfer.MultiplyAssembly([item]).requests()
    assert header.header.factor == "f"
    assert header.header.operator.cholesky.damping.name == "d"
    assert header.header.split_bias
    assert (header.header.layout, header.header.dtype) == (types_pb2.LAYOUT_OUT_IN, types_pb2.DATA_TYPE_FLOAT32)
    assert (header.header.min_version.incarnation, header.header.min_version.step) == (5, 6)
    assert [each.chunk.first_element for each in chunks] == [0, 1 << 18, 1 << 19]
    assert b"".join(each.chunk.data for each in chunks) == large.tobytes()

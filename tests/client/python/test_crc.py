"""CRC-32C, whoever computes it: RFC 3720's examples, and pieces."""

import ctypes.util

import crc32c
import numpy as np
import pytest

from fisherd import crc

EXAMPLES = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.parametrize("compute", [crc.crc32c_of, crc.isal()])
def test_examples(compute):
    if compute is None:
        assert ctypes.util.find_library("isal") is None
        pytest.skip("ISA-L is not here")
    for data, expected in EXAMPLES:
        assert compute(data, 0) == expected
        assert compute(memoryview(data)[5:], compute(data[:5], 0)) == expected
    data = np.random.default_rng(0).integers(0, 256, 100_001, np.uint8)
    data.flags.writeable = False
    assert compute(data.data, 7) == crc32c.crc32c(data, 7)


def test_large_data_goes_in_pieces(monkeypatch):
    compute = crc.isal()
    if compute is None:
        pytest.skip("ISA-L is not here")
    monkeypatch.setattr(crc, "_PIECE", 4)
    for data, expected in EXAMPLES:
        assert compute(data, 0) == expected


def test_the_choice(monkeypatch):
    monkeypatch.setattr(crc.crc32c, "hardware_based", True)
    assert crc._choose() is crc32c.crc32c
    monkeypatch.setattr(crc.crc32c, "hardware_based", False)
    monkeypatch.setattr(crc, "isal", lambda: None)
    assert crc._choose() is crc32c.crc32c
    monkeypatch.setattr(crc, "isal", lambda: len)
    assert crc._choose() is len

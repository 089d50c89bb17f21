"""CRC-32C (Castagnoli), by the quickest means that this machine has."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import crc32c
import numpy as np

Crc = Callable[[Any, int], int]

_ONES = 0xFFFFFFFF
_PIECE = 1 << 30  # ISA-L counts in ints


def isal() -> Crc | None:
    """Return ISA-L's (Debian's libisal2), which works outside of the interpreter's lock; None if it is not here."""
    try:
        function = ctypes.CDLL("libisal.so.2").crc32_iscsi
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
    function.restype = ctypes.c_uint

    def extend(data: Any, crc: int = 0) -> int:
        array = np.frombuffer(data, np.uint8)
        for first in range(0, len(array), _PIECE):
            piece = array[first : first + _PIECE]
            crc = function(piece.ctypes.data, len(piece), crc ^ _ONES) ^ _ONES
        return crc

    return extend


def _choose() -> Crc:
    # Debian's package crc32c is built without the processor's instruction, and is 20 times slower for it.
    own: Crc = crc32c.crc32c
    return own if crc32c.hardware_based else isal() or own


crc32c_of: Crc = _choose()

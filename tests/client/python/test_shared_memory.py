"""Blocks of memory that a server reads: when they may be used again."""

import fcntl
import gc
import mmap
import os
import pathlib

import pytest

from fisherd.shared_memory import SharedMemory, Use

PAGE = 4096
TOWER = ("f", 1)


def use(step, incarnation=7, tower=TOWER):
    return Use(tower, incarnation, step)


def test_the_first_that_fits():
    memory = SharedMemory(10 * PAGE - 1)
    assert memory.size == 10 * PAGE
    blocks = [memory.take(size, use(step)) for step, size in enumerate([1, PAGE + 1, PAGE, 6 * PAGE])]
    assert [block.offset for block in blocks] == [0, PAGE, 3 * PAGE, 4 * PAGE]
    assert memory.take(1, use(9)) is None
    assert memory.bytes_in_use == memory.size
    memory.on_ended(TOWER, 7, 100)
    blocks[1] = None
    assert memory.take(3 * PAGE, use(9)) is None
    again = memory.take(PAGE, use(200))
    assert again.offset == PAGE
    blocks[2] = None  # beside what is free
    wide = memory.take(2 * PAGE, use(201))
    assert wide.offset == 2 * PAGE
    blocks[0] = blocks[3] = None
    assert memory.bytes_in_use == 3 * PAGE
    del again, wide  # of steps that have not ended
    assert memory.bytes_in_use == 3 * PAGE
    memory.on_ended(TOWER, 7, 202)
    assert memory.bytes_in_use == 0
    assert memory.take(10 * PAGE, use(1)).offset == 0, "what is free has grown together"


def test_a_block_is_used_again_when_its_step_has_ended():
    memory = SharedMemory(PAGE)
    memory.take(1, use(5))  # and gone at once
    gc.collect()
    assert memory.take(1, use(6)) is None
    memory.on_ended(("f", 0), 7, 100)
    memory.on_ended(("g", 1), 8, 100)
    memory.on_ended(TOWER, 7, 5)
    assert memory.take(1, use(6)) is None
    memory.on_ended(TOWER, 7, 6)
    block = memory.take(1, use(6))
    assert block is not None
    del block
    assert memory.bytes_in_use == PAGE
    memory.on_ended(TOWER, 8, 1)
    assert memory.bytes_in_use == 0, "its incarnation has ended"


def test_or_when_a_newer_stream_has_been_answered():
    memory = SharedMemory(2 * PAGE)
    memory.on_ended(TOWER, 7, 10)
    memory.take(1, use(10))
    kept = memory.take(1, use(11))
    memory.on_new_stream()
    assert memory.bytes_in_use == PAGE, "what its batch still has is not free"
    del kept
    memory.take(1, use(9))
    assert memory.bytes_in_use == 2 * PAGE, "another epoch may have lost what had ended"


def test_elements():
    memory = SharedMemory(3 * PAGE)
    memory.take(1, use(1))
    block = memory.take(2 * PAGE, use(1))
    block.write(0, bytes(2 * PAGE))
    block.write(PAGE - 2, b"over")
    assert bytes(block.read(PAGE - 3, 6)) == b"\0over\0"
    with mmap.mmap(memory.fd, memory.size, prot=mmap.PROT_READ) as seen:
        assert seen[2 * PAGE - 2 : 2 * PAGE + 2] == b"over"
    with pytest.raises(ValueError):
        block.write(2 * PAGE - 1, b"beyond")


def test_nobody_else_can_change_it():
    memory = SharedMemory(PAGE)
    for size in (0, 2 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    seals = fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    if seals & 16:  # F_SEAL_FUTURE_WRITE
        with pytest.raises(PermissionError):
            mmap.mmap(memory.fd, PAGE)
    assert not os.get_inheritable(memory.fd)


def test_what_the_system_has_not():
    with pytest.raises(OSError):
        SharedMemory(1 << 62)
    files = pathlib.Path("/proc/self/fd")
    before = len(list(files.iterdir()))
    memory = SharedMemory(PAGE)
    block = memory.take(1, use(1))
    del memory
    block.write(0, b"x")  # it keeps the memory
    del block
    gc.collect()
    assert len(list(files.iterdir())) == before

"""The buffer alone, where the scenarios look at it through TowerState."""

import pytest

from fisherd.replay_buffer import BufferProgress, ReplayBuffer
from fisherd.types import StepRun


def at(next_step, **fields):
    defaults = {"incarnation": 7, "epoch": 3, "durable": next_step - 1, "open_through": next_step + 1, "window": 4}
    return BufferProgress(**{**defaults, "next": next_step, "first": next_step, **fields})


@pytest.fixture
def buffer():
    buffer = ReplayBuffer()
    assert buffer.on_opened(at(5))
    return buffer


def test_nothing_is_heard_or_sent_before_opened():
    buffer = ReplayBuffer()
    buffer.on_ack(at(9))
    buffer.on_hold(1)
    assert not buffer.on_refused(1)
    assert buffer.range() == (0, 0)
    assert not buffer.has_room
    assert buffer.next_to_send() is None
    with pytest.raises(RuntimeError):
        buffer.begin_send()
    assert vars(buffer) == vars(ReplayBuffer())


def test_acks_of_another_life_are_ignored(buffer):
    buffer.push(10)
    for other in (at(6, incarnation=8), at(6, epoch=4)):
        buffer.on_ack(other)
    buffer.on_cut()
    buffer.on_ack(at(6))
    assert (buffer.next, buffer.bytes) == (5, 10)


def test_another_incarnation_changes_nothing(buffer):
    buffer.push(10)
    buffer.on_cut()
    before = dict(vars(buffer))
    assert not buffer.on_opened(at(1, incarnation=8))
    assert vars(buffer) == before


def test_missed(buffer):
    buffer.on_ack(at(20, missed=(StepRun(5, 6, failed=False), StepRun(9, 9, failed=True))))
    assert buffer.find_missed(4) is None
    assert buffer.find_missed(6) == (5, 6, False)
    assert buffer.find_missed(8) is None
    assert buffer.find_missed(9).failed
    assert buffer.find_missed(10) is None


def test_clear(buffer):
    buffer.push(10)
    buffer.clear()
    assert (buffer.bytes, buffer.kept, buffer.all_sent) == (0, [], True)

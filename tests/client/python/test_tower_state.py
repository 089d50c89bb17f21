"""Messages of errors, where the scenarios look at their reasons."""

import pytest

import fisherd
from fake_server import progress
from fisherd.batch_frames import EncodedBatch
from fisherd.tower_state import BatchIdentity, TowerState


@pytest.fixture
def tower():
    tower = TowerState("f", 2)
    tower.on_opened(progress(5, tower=2))
    tower.push(EncodedBatch((b"",), 10, 1))
    tower.push(EncodedBatch((b"",), 7, 2))
    return tower


def test_identity():
    error = BatchIdentity("f", 1, 3).error("OUT_OF_RANGE", "m", reason="R", metadata={"field": "x"})
    assert type(error) is fisherd.OutOfRangeError
    assert error.message == 'factor "f", tower 1, step 3: m'
    assert error.metadata == {"factor": "f", "tower": "1", "step": "3", "field": "x"}
    assert "step" not in BatchIdentity("f", 1).error("ABORTED", "m").message


def test_outcomes(tower):
    assert "has not been written; the next is 7" in tower.outcome(7).message
    tower.on_refused(5, fisherd.InvalidArgumentError("NaN in inputs"))
    message = tower.outcome(6).message
    assert "after step 5, which was refused" in message
    assert "NaN in inputs" in message


def test_stats(tower):
    stats = tower.stats
    assert (stats.raw_batches, stats.raw_bytes) == (1, 10)
    assert (stats.contribution_batches, stats.contribution_bytes) == (1, 7)


def test_progress(tower):
    tower.on_ack(progress(6, tower=2, towers=3, first=0))
    now = tower.progress()
    assert (now.factor, now.tower, now.towers, now.next, now.first, now.missed) == ("f", 2, 3, 6, 0, ())

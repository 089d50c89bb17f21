"""The replay scenarios, client/scenarios: what its README says, over TowerState."""

import json

import pytest
from google.protobuf import json_format

from conftest import ROOT
from fisherd import errors
from fisherd.batch_frames import EncodedBatch
from fisherd.tower_state import TowerState
from fisherd.v1 import update_pb2

SCENARIOS = sorted((ROOT / "client/scenarios").glob("*.json"))


def progress_of(fields):
    next_step = fields["next"]
    defaults = {
        "factor": "f",
        "incarnation": 7,
        "epoch": 3,
        "towers": 1,
        "durable": next_step - 1,
        "open_through": next_step - 1,
        "window": 4,
        "first": next_step,
    }
    return json_format.ParseDict({**defaults, **fields}, update_pb2.Progress())


def result_of(outcome):
    if outcome is None:
        return None
    return "OK" if outcome is True else outcome.reason or outcome.code


class Runner:
    def __init__(self, scenario):
        self.tower = TowerState("f", 0, take_over=scenario.get("take_over", False))

    def opened(self, fields):
        self.tower.on_opened(progress_of(fields))

    def ack(self, fields):
        self.tower.on_ack(progress_of(fields))

    def hold(self, step):
        self.tower.on_hold(step)

    def refused(self, fields):
        self.tower.on_refused(
            fields["step"], errors.make_error(fields["code"], fields["message"], reason=fields["reason"])
        )

    def cut(self, _):
        self.tower.on_cut()

    def push(self, sizes):
        for size in sizes:
            self.tower.push(EncodedBatch((str(self.tower.next_step).encode(),), size, update_pb2.BATCH_FORM_RAW))

    def skip(self, expected):
        assert result_of(self.tower.skip_late_step()) == expected

    def report(self, expected):
        assert result_of(self.tower.take_refusal()) == expected

    def send(self, expected):
        steps = []
        while (batch := self.tower.take_to_send()) is not None:
            steps.append(int(batch.messages[0]))
        assert steps == expected

    def expect(self, state):
        for part, expected in state.items():
            assert self.state(part, expected) == expected, part

    def state(self, part, expected):
        tower = self.tower
        if part == "open":
            message = tower.make_open()
            return [getattr(message, "from"), message.through, message.take_over]
        if part == "outcome":
            return {step: result_of(tower.outcome(int(step))) for step in expected}
        if part == "durable":
            return {step: result_of(tower.durable_outcome(int(step))) for step in expected}
        if part == "progress":
            progress = tower.progress()
            actual = {field: getattr(progress, field) for field in expected}
            if "missed" in actual:
                actual["missed"] = [list(run) for run in progress.missed]
            return actual
        if part == "ended":
            return result_of(tower.end)
        if part == "resent":
            return tower.stats.resent_batches
        if part == "reconnects":
            return tower.stats.reconnects
        return getattr(tower, part)


def test_there_are_scenarios():
    assert len(SCENARIOS) >= 16


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario(file):
    scenario = json.loads(file.read_text())
    runner = Runner(scenario)
    for index, event in enumerate(scenario["events"]):
        ((kind, value),) = event.items()
        try:
            getattr(runner, kind)(value)
        except AssertionError as error:
            message = f"event {index}, {event}: {error}"
            raise AssertionError(message) from error

"""Watching goes on over cuts, and ends with what ended it for good."""

import pytest

import fisherd
from fake_server import FakeServer
from fisherd.v1 import factor_service_pb2 as service_pb2


def event(kind):
    return service_pb2.WatchResponse(events=[service_pb2.FactorEvent(kind=kind)])


def test_it_goes_on_over_cuts():
    turns = [
        ([event(1), event(3)], fisherd.UnavailableError("cut")),
        ([], fisherd.UnavailableError("still")),
        ([event(1)], fisherd.InvalidArgumentError("bad prefix")),
    ]

    def watch(request):
        assert request.prefix == "p/"
        responses, error = turns.pop(0)
        yield from responses
        raise error

    with FakeServer() as fake, fisherd.Client(fake.target) as client:
        fake.streaming["Watch"] = watch
        events = client.watch("p/")
        assert [next(events).kind for _ in range(3)] == [1, 3, 1]
        with pytest.raises(fisherd.InvalidArgumentError, match="bad prefix"):
            next(events)

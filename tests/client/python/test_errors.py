"""Errors: classes by code, with the details of google.rpc."""

import pickle

import pytest
from google.rpc import status_pb2

import fisherd
from fisherd import errors


def test_every_code_has_a_class():
    for number, code in enumerate(errors._CODES[1:], start=1):
        error = errors.from_status(status_pb2.Status(code=number, message="m"))
        assert (error.code, error.message, error.reason, error.metadata, error.retry_delay) == (code, "m", "", {}, None)
        assert type(error) is not fisherd.Error
        assert type(error).__name__ in fisherd.__all__
    assert errors.from_status(status_pb2.Status(code=99)).code == "UNKNOWN"


def test_details_travel():
    error = fisherd.ResourceExhaustedError("m", reason="STATE_BUDGET", metadata={"factor": "f"}, retry_delay=1.5)
    again = errors.from_status(errors.to_status(error))
    assert type(again) is fisherd.ResourceExhaustedError
    assert (again.message, again.reason, again.metadata, again.retry_delay) == (
        "m",
        "STATE_BUDGET",
        {"factor": "f"},
        1.5,
    )
    assert str(again) == "RESOURCE_EXHAUSTED: m (STATE_BUDGET)"
    copy = pickle.loads(pickle.dumps(again))
    assert (type(copy), str(copy), copy.metadata) == (type(again), str(again), again.metadata)


def test_they_are_pythons_own_too():
    for kind, builtin in (
        (fisherd.InvalidArgumentError, ValueError),
        (fisherd.NotFoundError, LookupError),
        (fisherd.DeadlineExceededError, TimeoutError),
        (fisherd.UnavailableError, ConnectionError),
    ):
        error = kind("m")
        assert isinstance(error, builtin)
        assert str(error) == f"{kind.code}: m"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (None, True),
        (fisherd.UnavailableError("m"), True),
        (fisherd.ResourceExhaustedError("m"), False),
        (fisherd.ResourceExhaustedError("m", retry_delay=1), True),
        (fisherd.InvalidArgumentError("m"), False),
        (fisherd.AbortedError("m"), False),
        (fisherd.UnauthenticatedError("m"), False),
    ],
)
def test_what_may_pass(error, passes):
    assert errors.may_pass(error) == passes

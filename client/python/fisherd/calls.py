"""The small calls of FactorService: how each is made of arguments, for the clients that wait and those that await."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fisherd.channel import SERVICE
from fisherd.v1 import factor_service_pb2 as service_pb2

Response = TypeVar("Response")

PAGE_SIZE = 1000
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}; the request, of no service, has no bytes


def path(method: str) -> str:
    """Return the method's name on the wire."""
    return f"/{SERVICE}/{method}"


def serialize(message: Any) -> bytes:
    """Return a message's bytes."""
    data: bytes = message.SerializeToString()
    return data


@dataclasses.dataclass(frozen=True)
class Method(Generic[Response]):
    """A unary method and how to read its answers."""

    name: str
    parse: Callable[[bytes], Response]


CREATE_FACTOR = Method("CreateFactor", service_pb2.CreateFactorResponse.FromString)
DESCRIBE_FACTOR = Method("DescribeFactor", service_pb2.DescribeFactorResponse.FromString)
LIST_FACTORS = Method("ListFactors", service_pb2.ListFactorsResponse.FromString)
DELETE_FACTOR = Method("DeleteFactor", service_pb2.DeleteFactorResponse.FromString)
RESET_FACTOR = Method("ResetFactor", service_pb2.ResetFactorResponse.FromString)
SET_TOWERS = Method("SetTowers", service_pb2.SetTowersResponse.FromString)
SET_DAMPING = Method("SetDamping", service_pb2.SetDampingResponse.FromString)
LIST_DAMPINGS = Method("ListDampings", service_pb2.ListDampingsResponse.FromString)
DELETE_DAMPING = Method("DeleteDamping", service_pb2.DeleteDampingResponse.FromString)
REGISTER = Method("Register", service_pb2.RegisterResponse.FromString)
UNREGISTER = Method("Unregister", service_pb2.UnregisterResponse.FromString)
UPDATE_INVERSES = Method("UpdateInverses", service_pb2.UpdateInversesResponse.FromString)

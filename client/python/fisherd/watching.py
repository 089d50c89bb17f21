"""Watching what happens to factors, over cuts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import grpc

from fisherd import calls, errors
from fisherd.channel import Backoff, Metadata
from fisherd.v1 import factor_service_pb2 as service_pb2


def watch(
    channel: grpc.Channel, prefix: str, metadata: Callable[[], Metadata | None]
) -> Iterator[service_pb2.FactorEvent]:
    """See Client.watch()."""
    start = channel.unary_stream(
        calls.path("Watch"),
        request_serializer=calls.serialize,
        response_deserializer=service_pb2.WatchResponse.FromString,
    )
    backoff = new_backoff()
    last: errors.Error | None = None
    while True:
        # After a cut, gRPC waits for the connection (and 1.51 goes on with it only while a call is under way).
        call = start(service_pb2.WatchRequest(prefix=prefix), metadata=metadata(), wait_for_ready=last is not None)
        last = None
        try:
            for response in call:
                backoff.reset()
                yield from response.events
        except grpc.RpcError as error:
            last = errors.from_rpc(error)
        finally:
            call.cancel()
        if not errors.may_pass(last) or (last is not None and last.code == "CANCELLED"):
            raise last or errors.UnknownError("the watch has ended")
        time.sleep(backoff.next(last))


def new_backoff() -> Backoff:
    """Return how long to wait between attempts."""
    return Backoff(0.1, 10.0)

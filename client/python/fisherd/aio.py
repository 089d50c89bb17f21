"""The same client for asyncio: what blocks in fisherd.Client is awaited here.

Streams of updates have threads of their own in either; here their waits are handed to the loop's executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import grpc
import grpc.aio

from fisherd import calls, channel, errors, transfer, types, watching
from fisherd import client as blocking
from fisherd.aio_updates import UpdateStream, UpdateWriter
from fisherd.operators import covariance
from fisherd.types import (
    TLS,
    Backend,
    Durability,
    Form,
    FullyConnectedDiagonal,
    GatherPolicy,
    InitialCovariance,
    Layout,
    MinVersion,
    TowerWeighting,
    UpdateMode,
    Version,
)
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2

__all__ = ["Client", "UpdateStream", "UpdateWriter"]

Response = TypeVar("Response")

# Not spelled out in the class, which has a method `list`.
Factors = list[service_pb2.FactorInfo]
Products = list[transfer.Product]


class Client:
    """fisherd.Client for asyncio, with the same methods, arguments, results and errors; used in one event loop."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        transfer_timeout: float = 600.0,
        token: channel.Token | None = None,
        tls: TLS | bool | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        own_tls = channel.as_tls(tls)
        channel.check_token(target, own_tls, token)
        self._target = target
        self._timeout = timeout
        self._transfer_timeout = transfer_timeout
        self._token = token
        self._for_updates = (timeout, own_tls, tuple(options))
        arguments = channel.options(own_tls, tuple(options))
        if own_tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=arguments)
        else:
            self._channel = grpc.aio.secure_channel(target, channel.credentials(own_tls), options=arguments)
        self._blocking: blocking.Client | None = None

    @property
    def target(self) -> str:
        """Where the server is, as the constructor was told."""
        return self._target

    async def close(self) -> None:
        """Close the stream of updates, if there is one, and end the calls under way."""
        if self._blocking is not None:
            await asyncio.to_thread(self._blocking.close)
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_ready(self, timeout: float = 10.0) -> Self:  # noqa: ASYNC109 - as the blocking client
        """Wait until the server is reached. UnavailableError if it is not in time."""
        try:
            await asyncio.wait_for(self._channel.channel_ready(), timeout)
        except asyncio.TimeoutError:  # noqa: UP041 - an older name of Python 3.11's TimeoutError
            message = f"no server answers at {self._target} within {timeout:g} s"
            raise errors.UnavailableError(message) from None
        return self

    async def check_health(self) -> None:
        """Return if the server says that it is serving, else UnavailableError."""
        call = self._channel.unary_unary(calls.HEALTH, request_serializer=bytes, response_deserializer=bytes)
        if await _result(call(b"", timeout=self._timeout, metadata=self._metadata())) != calls.SERVING:
            message = "the server is up but not serving"
            raise errors.UnavailableError(message)

    # ---- Factors

    async def create_factor(
        self,
        name: str,
        kind: FullyConnectedDiagonal | types_pb2.FactorSpec,
        *,
        towers: int = 1,
        sources: int = 1,
        dtype: Literal["float32", "float64"] = "float32",
        tower_weighting: TowerWeighting = "tower_mean",
        zero_debias: bool = True,
        initial_covariance: InitialCovariance = "zeros",
        update_mode: UpdateMode = "synchronous",
        gather_policy: GatherPolicy = "fail",
        gather_timeout: float | None = None,
        window: int = 0,
        durability: Durability | None = None,
        backend: Backend | None = None,
    ) -> service_pb2.FactorInfo:
        """See fisherd.Client.create_factor()."""
        spec = types.factor_spec(
            kind,
            towers=towers,
            sources=sources,
            dtype=dtype,
            tower_weighting=tower_weighting,
            zero_debias=zero_debias,
            initial_covariance=initial_covariance,
            update_mode=update_mode,
            gather_policy=gather_policy,
            gather_timeout=gather_timeout,
            window=window,
            durability=durability,
            backend=backend,
        )
        return (await self._unary(calls.CREATE_FACTOR, service_pb2.CreateFactorRequest(name=name, spec=spec))).factor

    async def describe(self, name: str) -> service_pb2.FactorInfo:
        """See fisherd.Client.describe()."""
        return (await self._unary(calls.DESCRIBE_FACTOR, service_pb2.DescribeFactorRequest(name=name))).factor

    async def list(self, prefix: str = "") -> Factors:
        """See fisherd.Client.list()."""
        factors: Factors = []
        request = service_pb2.ListFactorsRequest(prefix=prefix, page_size=calls.PAGE_SIZE)
        while True:
            response = await self._unary(calls.LIST_FACTORS, request)
            factors += response.factors
            request.page_token = response.next_page_token
            if not request.page_token:
                return factors

    async def delete(self, name: str) -> None:
        """See fisherd.Client.delete()."""
        await self._unary(calls.DELETE_FACTOR, service_pb2.DeleteFactorRequest(name=name))

    async def reset(self, name: str) -> service_pb2.FactorInfo:
        """See fisherd.Client.reset()."""
        return (await self._unary(calls.RESET_FACTOR, service_pb2.ResetFactorRequest(name=name))).factor

    async def set_towers(self, name: str, towers: int, *, now: bool = False) -> int:
        """See fisherd.Client.set_towers()."""
        request = service_pb2.SetTowersRequest(name=name, towers=towers, now=now)
        return (await self._unary(calls.SET_TOWERS, request)).from_step

    # ---- Damping functions

    async def set_damping(self, name: str, value: float) -> None:
        """See fisherd.Client.set_damping()."""
        await self._unary(calls.SET_DAMPING, service_pb2.SetDampingRequest(name=name, value=value))

    async def list_dampings(self, prefix: str = "") -> dict[str, float]:
        """See fisherd.Client.list_dampings()."""
        dampings: dict[str, float] = {}
        request = service_pb2.ListDampingsRequest(prefix=prefix, page_size=calls.PAGE_SIZE)
        while True:
            response = await self._unary(calls.LIST_DAMPINGS, request)
            dampings.update((damping.name, damping.value) for damping in response.dampings)
            request.page_token = response.next_page_token
            if not request.page_token:
                return dampings

    async def delete_damping(self, name: str) -> None:
        """See fisherd.Client.delete_damping()."""
        await self._unary(calls.DELETE_DAMPING, service_pb2.DeleteDampingRequest(name=name))

    # ---- Registered results

    async def register(
        self, factor: str, operator: types_pb2.Operator, policy: types_pb2.RefreshPolicy | None = None
    ) -> service_pb2.Registration:
        """See fisherd.Client.register()."""
        request = service_pb2.RegisterRequest(factor=factor, operator=operator, policy=policy)
        return (await self._unary(calls.REGISTER, request)).registration

    async def unregister(self, factor: str, operator: types_pb2.Operator) -> None:
        """See fisherd.Client.unregister()."""
        await self._unary(calls.UNREGISTER, service_pb2.UnregisterRequest(factor=factor, operator=operator))

    async def update_inverses(self, factor: str = "") -> int:
        """See fisherd.Client.update_inverses()."""
        return (await self._unary(calls.UPDATE_INVERSES, service_pb2.UpdateInversesRequest(factor=factor))).updated

    # ---- Tensors

    async def read(
        self,
        factor: str,
        operator: types_pb2.Operator | None = None,
        *,
        layout: Layout = "in_out",
        dtype: str | None = None,
        min_version: MinVersion | None = None,
        if_version_not: Version | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the call's deadline, which the server is told
    ) -> transfer.Reading:
        """See fisherd.Client.read()."""
        request = transfer.read_request(
            factor,
            operator if operator is not None else covariance(),
            layout=layout,
            dtype=dtype,
            min_version=min_version,
            if_version_not=if_version_not,
        )
        call = self._channel.unary_stream(
            calls.path("Read"),
            request_serializer=calls.serialize,
            response_deserializer=service_pb2.ReadResponse.FromString,
        )(request, timeout=self._transfer(timeout), metadata=self._metadata())
        assembly = transfer.ReadAssembly()
        await _take(call, assembly.add)
        return assembly.finish()

    async def multiply(
        self,
        factor: str,
        operator: types_pb2.Operator,
        weight: Any,
        bias: Any = None,
        *,
        layout: Layout = "in_out",
        min_version: MinVersion | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> transfer.Product:
        """See fisherd.Client.multiply()."""
        item = transfer.MultiplyItem(factor, operator, weight, bias, layout, min_version)
        return (await self.multiply_all([item], timeout=timeout))[0]

    async def multiply_all(
        self,
        items: Sequence[transfer.MultiplyItem],
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Products:
        """See fisherd.Client.multiply_all()."""
        if not items:
            return []
        assembly = transfer.MultiplyAssembly(items)
        call = self._channel.stream_stream(
            calls.path("Multiply"),
            request_serializer=calls.serialize,
            response_deserializer=service_pb2.MultiplyResponse.FromString,
        )(assembly.requests(), timeout=self._transfer(timeout), metadata=self._metadata())
        await _take(call, assembly.add)
        return assembly.finish()

    # ---- Streams

    async def watch(self, prefix: str = "") -> AsyncIterator[service_pb2.FactorEvent]:
        """See fisherd.Client.watch()."""
        start = self._channel.unary_stream(
            calls.path("Watch"),
            request_serializer=calls.serialize,
            response_deserializer=service_pb2.WatchResponse.FromString,
        )
        backoff = watching.new_backoff()
        last: errors.Error | None = None
        while True:
            call = start(
                service_pb2.WatchRequest(prefix=prefix), metadata=self._metadata(), wait_for_ready=last is not None
            )
            last = None
            try:
                async for response in call:
                    backoff.reset()
                    for event in response.events:
                        yield event
            except grpc.RpcError as error:
                last = errors.from_rpc(error)
            finally:
                call.cancel()
            if not errors.may_pass(last):
                raise last or errors.UnknownError("the watch has ended")
            await asyncio.sleep(backoff.next(last))

    def open_updates(
        self,
        *,
        max_frame: int = 1 << 20,
        max_buffered_bytes: int = 1 << 30,
        form: Form = "auto",
        shared_memory: int = 256 << 20,
        first_reconnect_delay: float = 0.1,
        max_reconnect_delay: float = 10.0,
        reconnect_timeout: float | None = None,
    ) -> UpdateStream:
        """See fisherd.Client.open_updates()."""
        if self._blocking is None:
            timeout, tls, options = self._for_updates
            self._blocking = blocking.Client(self._target, timeout=timeout, token=self._token, tls=tls, options=options)
        return UpdateStream(
            self._blocking.open_updates(
                max_frame=max_frame,
                max_buffered_bytes=max_buffered_bytes,
                form=form,
                shared_memory=shared_memory,
                first_reconnect_delay=first_reconnect_delay,
                max_reconnect_delay=max_reconnect_delay,
                reconnect_timeout=reconnect_timeout,
            )
        )

    # ---- What calls are made of

    def _metadata(self) -> channel.Metadata | None:
        return channel.metadata(self._token)

    def _transfer(self, timeout: float | None) -> float:
        return self._transfer_timeout if timeout is None else timeout

    async def _unary(self, method: calls.Method[Response], request: Any) -> Response:
        call = self._channel.unary_unary(
            calls.path(method.name), request_serializer=calls.serialize, response_deserializer=method.parse
        )
        return await _result(call(request, timeout=self._timeout, metadata=self._metadata()))


async def _result(call: Awaitable[Response]) -> Response:
    try:
        return await call
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from None


async def _take(call: Any, add: Any) -> None:
    """Hand all answers of a call to `add`; cancels the call if they cannot be used."""
    try:
        async for response in call:
            add(response)
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from None
    finally:
        call.cancel()

"""A connection to one server: every call of factor_service.proto, blocking."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import grpc

from fisherd import calls, channel, errors, transfer, types, watching
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
from fisherd.update_connection import UpdateOptions
from fisherd.update_stream import UpdateStream
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2

Response = TypeVar("Response")

# Not spelled out in the class, which has a method `list`.
Factors = list[service_pb2.FactorInfo]
Products = list[transfer.Product]


class Client:
    """A connection to one fisherd server. Thread-safe; a context manager that closes it.

    Made at once, without waiting for the server; see wait_ready(). All calls block and raise `fisherd.Error`:
    NotFoundError (FACTOR_NOT_FOUND, DAMPING_NOT_FOUND, REGISTRATION_NOT_FOUND), InvalidArgumentError (BAD_NAME,
    BAD_ARGUMENT), UnavailableError if the server cannot be reached, DeadlineExceededError, and what their own
    descriptions add. Small calls that do no harm twice are tried again for a few seconds first; transfers are not.
    """

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
        """Prepare a connection.

        target: "host:port", or "unix:PATH".
        timeout: seconds that a call may take that moves no tensors.
        transfer_timeout: the same for read() and multiply(), waiting and transfer.
        token: sent with every call as `authorization: Bearer …`; a function is asked for it each time. Only over TLS,
            or to this machine (ValueError otherwise).
        tls: True for encryption with the system's roots, or TLS(...).
        options: gRPC channel arguments, which count over the client's own.
        """
        own_tls = channel.as_tls(tls)
        channel.check_token(target, own_tls, token)
        self._target = target
        self._timeout = timeout
        self._transfer_timeout = transfer_timeout
        self._token = token
        arguments = channel.options(own_tls, tuple(options))
        if own_tls is None:
            self._channel = grpc.insecure_channel(target, options=arguments)
        else:
            self._channel = grpc.secure_channel(target, channel.credentials(own_tls), options=arguments)
        self._client_id = os.urandom(16)
        self._pid = os.getpid()
        self._streams = 0  # Hello.stream, the last that was given out
        self._newest: UpdateStream | None = None
        self._lock = threading.Lock()

    @property
    def target(self) -> str:
        """Where the server is, as the constructor was told."""
        return self._target

    def close(self) -> None:
        """Close the stream of updates, if there is one, and end the calls under way.

        Does nothing in a process that was forked from the client's own.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            newest = self._newest
        if newest is not None:
            newest.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, timeout: float = 10.0) -> Self:
        """Wait until the server is reached. UnavailableError if it is not in time."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout)
        except grpc.FutureTimeoutError:
            message = f"no server answers at {self._target} within {timeout:g} s"
            raise errors.UnavailableError(message) from None
        return self

    def check_health(self) -> None:
        """Return if the server says that it is serving (the standard gRPC health service), else UnavailableError."""
        call = self._channel.unary_unary(calls.HEALTH, request_serializer=bytes, response_deserializer=bytes)
        answer = _call(lambda: call(b"", timeout=self._timeout, metadata=self._metadata()))
        if answer != calls.SERVING:
            message = "the server is up but not serving"
            raise errors.UnavailableError(message)

    # ---- Factors

    def create_factor(
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
        """Make a factor; one that exists with the same specification is answered as it is.

        name: 1 to 256 bytes of UTF-8 without control characters; "/" separates levels, none empty, "." or "..".
        kind: what it is a factor of, or a whole specification, of which the rest is then part.
        towers: replicas of the trainer that together make a step.
        sources: sets of output gradients per forward pass, summed.
        dtype: of the state and its arithmetic.
        tower_weighting: "tower_mean" of the towers' own means, or "example_weighted", as if their rows were one batch.
        zero_debias: divide the moving average by its total weight.
        initial_covariance: only with zero_debias off.
        update_mode: "synchronous": all towers' batches make one step, with the same bits in whichever order they come;
            "asynchronous": each is one, as it comes.
        gather_policy: what becomes of a step whose towers have not all come within gather_timeout seconds (None: the
            server's own): nothing counts, or those who have come.
        window: steps that may be open at once; 0: the server's own.
        durability: what it takes to lose a step that is told to be durable: "memory", "snapshot" or "sync" (None: the
            server's own); see DurabilityLevel in types.proto.
        backend: where the state lives: "cpu" or "cuda" (None: where the server likes; a GPU with room, if it has one).

        AlreadyExistsError (SPEC_DIFFERS), ResourceExhaustedError (STATE_BUDGET), FailedPreconditionError (NO_DEVICE).
        """
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
        return self._unary(calls.CREATE_FACTOR, service_pb2.CreateFactorRequest(name=name, spec=spec)).factor

    def describe(self, name: str) -> service_pb2.FactorInfo:
        """Say everything about a factor except its elements."""
        return self._unary(calls.DESCRIBE_FACTOR, service_pb2.DescribeFactorRequest(name=name)).factor

    def list(self, prefix: str = "") -> Factors:
        """Return all factors whose names start with `prefix`, by name."""
        factors: Factors = []
        request = service_pb2.ListFactorsRequest(prefix=prefix, page_size=calls.PAGE_SIZE)
        while True:
            response = self._unary(calls.LIST_FACTORS, request)
            factors += response.factors
            request.page_token = response.next_page_token
            if not request.page_token:
                return factors

    def delete(self, name: str) -> None:
        """Remove a factor and its registrations; batches and reads that wait for it end with OLD_INCARNATION."""
        self._unary(calls.DELETE_FACTOR, service_pb2.DeleteFactorRequest(name=name))

    def reset(self, name: str) -> service_pb2.FactorInfo:
        """Put a factor back to its initial covariance and step 1, under a new incarnation."""
        return self._unary(calls.RESET_FACTOR, service_pb2.ResetFactorRequest(name=name)).factor

    def set_towers(self, name: str, towers: int, *, now: bool = False) -> int:
        """Change how many towers make a step; return the first step of that many.

        From the first step on that is not open; with `now`, from the first that has not ended.
        """
        request = service_pb2.SetTowersRequest(name=name, towers=towers, now=now)
        return self._unary(calls.SET_TOWERS, request).from_step

    # ---- Damping functions

    def set_damping(self, name: str, value: float) -> None:
        """Set a damping function: a value by name, for all factors. Finite, not negative."""
        self._unary(calls.SET_DAMPING, service_pb2.SetDampingRequest(name=name, value=value))

    def list_dampings(self, prefix: str = "") -> dict[str, float]:
        """Return the damping functions whose names start with `prefix`, by name."""
        dampings: dict[str, float] = {}
        request = service_pb2.ListDampingsRequest(prefix=prefix, page_size=calls.PAGE_SIZE)
        while True:
            response = self._unary(calls.LIST_DAMPINGS, request)
            dampings.update((damping.name, damping.value) for damping in response.dampings)
            request.page_token = response.next_page_token
            if not request.page_token:
                return dampings

    def delete_damping(self, name: str) -> None:
        """Remove a damping function; results registered with it are not found until it is set again."""
        self._unary(calls.DELETE_DAMPING, service_pb2.DeleteDampingRequest(name=name))

    # ---- Registered results

    def register(
        self, factor: str, operator: types_pb2.Operator, policy: types_pb2.RefreshPolicy | None = None
    ) -> service_pb2.Registration:
        """Have the server keep a result computed: `operator` with its damping by name; on_read() without a policy."""
        request = service_pb2.RegisterRequest(factor=factor, operator=operator, policy=policy)
        return self._unary(calls.REGISTER, request).registration

    def unregister(self, factor: str, operator: types_pb2.Operator) -> None:
        """Drop a registration and its cache."""
        self._unary(calls.UNREGISTER, service_pb2.UnregisterRequest(factor=factor, operator=operator))

    def update_inverses(self, factor: str = "") -> int:
        """Compute what is registered with `factor`, or with all if empty; return how many results that was."""
        return self._unary(calls.UPDATE_INVERSES, service_pb2.UpdateInversesRequest(factor=factor)).updated

    # ---- Tensors

    def read(
        self,
        factor: str,
        operator: types_pb2.Operator | None = None,
        *,
        layout: Layout = "in_out",
        dtype: str | None = None,
        min_version: MinVersion | None = None,
        if_version_not: Version | None = None,
        timeout: float | None = None,
    ) -> transfer.Reading:
        """Read an operator of one version whole; the covariance, if none is named.

        layout: of the weight's part: "in_out" [I, O], or "out_in" [O, I] as PyTorch's Linear has it.
        dtype: of the elements answered, "float32", "float64", "bfloat16" or "float16"; the state's if None.
        min_version: wait until that step has ended.
        if_version_not: a version read before; if the answer would be of it, it is `unchanged` and has no value.

        FailedPreconditionError (NON_FINITE_RESULT, OLD_INCARNATION), DeadlineExceededError, DataLossError if the
        transfer was damaged.
        """
        request = transfer.read_request(
            factor,
            operator if operator is not None else covariance(),
            layout=layout,
            dtype=dtype,
            min_version=min_version,
            if_version_not=if_version_not,
        )
        start = self._channel.unary_stream(
            calls.path("Read"),
            request_serializer=calls.serialize,
            response_deserializer=service_pb2.ReadResponse.FromString,
        )
        call = _call(lambda: start(request, timeout=self._transfer(timeout), metadata=self._metadata()))
        assembly = transfer.ReadAssembly()
        _take(call, assembly.add)
        return assembly.finish()

    def multiply(
        self,
        factor: str,
        operator: types_pb2.Operator,
        weight: Any,
        bias: Any = None,
        *,
        layout: Layout = "in_out",
        min_version: MinVersion | None = None,
        timeout: float | None = None,
    ) -> transfer.Product:
        """Multiply an operator by a gradient, entry-wise, on the server.

        weight: a tensor [I, O], or [O, I] with that layout, of any type of the wire.
        bias: a tensor [O] of the same type, or None for a factor without a bias.

        Errors as in read(), and InvalidArgumentError for shapes that are not the factor's.
        """
        item = transfer.MultiplyItem(factor, operator, weight, bias, layout, min_version)
        return self.multiply_all([item], timeout=timeout)[0]

    def multiply_all(self, items: Sequence[transfer.MultiplyItem], *, timeout: float | None = None) -> Products:
        """Do the same for several factors in one call, as for all layers of a model; products in the order of items.

        An error names the factor that it is about; then there are no products.
        """
        if not items:
            return []
        assembly = transfer.MultiplyAssembly(items)
        start = self._channel.stream_stream(
            calls.path("Multiply"),
            request_serializer=calls.serialize,
            response_deserializer=service_pb2.MultiplyResponse.FromString,
        )
        requests = assembly.requests()
        call = _call(lambda: start(requests, timeout=self._transfer(timeout), metadata=self._metadata()))
        _take(call, assembly.add)
        return assembly.finish()

    # ---- Streams

    def watch(self, prefix: str = "") -> Iterator[service_pb2.FactorEvent]:
        """Return an endless iterator over what happens to the factors whose names start with `prefix`.

        First comes one PRESENT for each. When the connection is lost it is made again, and begins so again. Ends with
        what ended it for good; close() it, or the client, to stop it from another thread.
        """
        return watching.watch(self._channel, prefix, self._metadata)

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
        """Open this client's stream of updates; a newer one closes the older. Does not wait for the server.

        max_frame: bytes of elements per message at most, if a row is not larger; to 3 MiB.
        max_buffered_bytes: bytes of elements, of all writers, that are kept for the case that they must be sent again.
            At least one round's: a batch of each factor.
        form: how batches travel: as they are, reduced to their covariances by this process, or as what is smaller.
        shared_memory: bytes for the elements of batches on their way to a server on this machine that offers to read
            them in place (its --shared-memory); what finds no room there travels as ever. 0: all does.
        first_reconnect_delay, max_reconnect_delay: a stream that is cut is opened again after a delay that doubles
            from the one to the other, give or take.
        reconnect_timeout: it ends with the last error when that has not helped for so long; None: never.
        """
        options = UpdateOptions(
            max_frame=max_frame,
            max_buffered_bytes=max_buffered_bytes,
            form=types.form(form),
            shared_memory=shared_memory if channel.is_local(self._target) else 0,
            first_reconnect_delay=first_reconnect_delay,
            max_reconnect_delay=max_reconnect_delay,
            reconnect_timeout=reconnect_timeout,
        )
        with self._lock:
            # The older one draws no number after this, so the newer one's is higher and not closed by it.
            if self._newest is not None:
                self._newest.supersede()
            self._newest = UpdateStream(
                self._channel, self._client_id, self._next_stream, self._metadata, self.describe, options
            )
            return self._newest

    # ---- What calls are made of

    def _metadata(self) -> channel.Metadata | None:
        return channel.metadata(self._token)

    def _transfer(self, timeout: float | None) -> float:
        return self._transfer_timeout if timeout is None else timeout

    def _next_stream(self) -> int:
        with self._lock:
            self._streams += 1
            return self._streams

    def _unary(self, method: calls.Method[Response], request: Any) -> Response:
        call = self._channel.unary_unary(
            calls.path(method.name), request_serializer=calls.serialize, response_deserializer=method.parse
        )
        return _call(lambda: call(request, timeout=self._timeout, metadata=self._metadata()))


def _call(call: Callable[[], Response]) -> Response:
    try:
        return call()
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from None
    except ValueError as error:
        if "closed" not in str(error):
            raise
        raise errors.CancelledError("the client was closed") from None


def _take(call: Any, add: Callable[[Any], None]) -> None:
    """Hand all answers of a call to `add`; cancels the call if they cannot be used."""
    try:
        for response in call:
            add(response)
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from None
    finally:
        call.cancel()

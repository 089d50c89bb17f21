"""What goes wrong, as exceptions: one class per status code of gRPC, with what the server said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    import grpc

_DOMAIN = "fisherd"
_DETAILS = "grpc-status-details-bin"


class Error(Exception):
    """An error of the server, or of this library in the same form.

    Attributes:
        code: The status code's name, as "NOT_FOUND". Each has a subclass of its own.
        message: For people: names the factor, the tower and the field, what was wrong and what was expected.
        reason: For programs: one of factor_service.proto's, as "FACTOR_NOT_FOUND"; empty if there is none.
        metadata: What it is about: "factor", "tower", "step", "field" and the like.
        retry_delay: Seconds after which trying again may help, if the server said so.

    """

    code: ClassVar[str] = "UNKNOWN"
    _by_code: ClassVar[dict[str, type[Error]]] = {}

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_delay = retry_delay

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Error._by_code[cls.code] = cls

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.reason})" if self.reason else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.reason, dict(self.metadata), self.retry_delay)


def _rebuild(
    kind: type[Error], message: str, reason: str, metadata: dict[str, str], retry_delay: float | None
) -> Error:
    return kind(message, reason=reason, metadata=metadata, retry_delay=retry_delay)


class CancelledError(Error):
    """The call, or the stream of updates, was ended by this side."""

    code = "CANCELLED"


class UnknownError(Error):
    """The peer failed without saying how."""

    code = "UNKNOWN"


class InvalidArgumentError(Error, ValueError):
    """NaN or infinity in a batch, a wrong shape, type, decay, damping or name."""

    code = "INVALID_ARGUMENT"


class DeadlineExceededError(Error, TimeoutError):
    """It was not done in time."""

    code = "DEADLINE_EXCEEDED"


class NotFoundError(Error, LookupError):
    """No such factor, damping or registration."""

    code = "NOT_FOUND"


class AlreadyExistsError(Error):
    """A factor of that name has another specification."""

    code = "ALREADY_EXISTS"


class PermissionDeniedError(Error):
    """The token does not allow this."""

    code = "PERMISSION_DENIED"


class ResourceExhaustedError(Error):
    """No room: the server's budget (with retry_delay, if waiting helps), or this client's bound (CLIENT_BUFFER)."""

    code = "RESOURCE_EXHAUSTED"


class FailedPreconditionError(Error):
    """A late batch, an old incarnation, a tower that another client holds, a result that is not finite."""

    code = "FAILED_PRECONDITION"


class AbortedError(Error):
    """The stream was superseded by a newer one of the same client."""

    code = "ABORTED"


class OutOfRangeError(Error):
    """A tower, source or step beyond what there is."""

    code = "OUT_OF_RANGE"


class UnimplementedError(Error):
    """The server does not know the call."""

    code = "UNIMPLEMENTED"


class InternalError(Error):
    """The server, or the transport, is broken."""

    code = "INTERNAL"


class UnavailableError(Error, ConnectionError):
    """The server cannot be reached, or shuts down."""

    code = "UNAVAILABLE"


class DataLossError(Error):
    """A transfer was damaged, or stored state is."""

    code = "DATA_LOSS"


class UnauthenticatedError(Error):
    """The token is missing or not valid."""

    code = "UNAUTHENTICATED"


# google.rpc.Code, by number.
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def make_error(
    code: str,
    message: str,
    *,
    reason: str = "",
    metadata: Mapping[str, str] | None = None,
    retry_delay: float | None = None,
) -> Error:
    """Return the error of that code's class; of UNKNOWN's if there is none."""
    kind = Error._by_code.get(code, UnknownError)  # noqa: SLF001
    return kind(message, reason=reason, metadata=metadata, retry_delay=retry_delay)


def from_status(status: status_pb2.Status) -> Error:
    """Return the error that a google.rpc.Status, not OK, stands for, with its ErrorInfo and RetryInfo."""
    code = _CODES[status.code] if 0 < status.code < len(_CODES) else "UNKNOWN"
    return _with_details(code, status.message, status)


def from_rpc(error: grpc.RpcError) -> Error:
    """Return the error that a call ended with, with the details that its trailing metadata brought."""
    call: Any = error  # it is the call too, of grpc or grpc.aio
    code = getattr(call.code(), "name", "UNKNOWN")
    message = call.details() or ""
    status = status_pb2.Status()
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                status.ParseFromString(value)
            except Exception:  # noqa: BLE001 - of which class depends on the runtime; the call's own word counts
                status.Clear()
    return _with_details(code, message, status)


def _with_details(code: str, message: str, status: status_pb2.Status) -> Error:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    delay = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            delay = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
    return make_error(code, message, reason=info.reason, metadata=info.metadata, retry_delay=delay)


def to_status(error: Error) -> status_pb2.Status:
    """Return the google.rpc.Status that from_status() reads."""
    status = status_pb2.Status(code=_CODES.index(error.code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.retry_delay is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_delay * 1e9))
        status.details.add().Pack(retry)
    return status


def may_pass(error: Error | None) -> bool:
    """Return whether it is worth to try again: the call ended with the connection, or with a delay to wait for."""
    if error is None:
        return True
    if error.code == "RESOURCE_EXHAUSTED":  # without a delay it was a message that is too large
        return error.retry_delay is not None
    return error.code in ("CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE")

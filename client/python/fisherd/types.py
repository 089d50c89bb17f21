"""Nouns that the calls share. Messages of fisherd.v1 are answered as they are; their .proto says what fields mean."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from fisherd.v1 import types_pb2

DTypeName = Literal["float32", "float64", "bfloat16", "float16"]
Layout = Literal["in_out", "out_in"]
Form = Literal["auto", "raw", "contribution"]
Backend = Literal["cpu", "cuda"]
Durability = Literal["memory", "snapshot", "sync"]
TowerWeighting = Literal["tower_mean", "example_weighted"]
InitialCovariance = Literal["zeros", "ones"]
UpdateMode = Literal["synchronous", "asynchronous"]
GatherPolicy = Literal["fail", "partial"]


class Version(NamedTuple):
    """Names one content of a factor; two contents never share one, so callers may cache by it.

    incarnation: life of the factor; higher after create and reset.
    epoch: start number of the server that committed the step.
    step: the last committed step, 0 before the first.
    """

    incarnation: int
    epoch: int
    step: int

    @classmethod
    def of(cls, message: types_pb2.Version) -> Version:
        """Return what the message says."""
        return cls(message.incarnation, message.epoch, message.step)


class MinVersion(NamedTuple):
    """Makes a read wait until `step` has ended; another incarnation than the factor's is an error at once."""

    incarnation: int
    step: int


@dataclasses.dataclass(frozen=True)
class FullyConnectedDiagonal:
    """The kind of factor that tf.contrib.kfac calls FullyConnectedDiagonalFactor: sizes of the layer, each at least 1.

    Its covariance has the shape [input_size (+ 1 if has_bias), output_size]; the bias is the last row.
    """

    input_size: int
    output_size: int
    has_bias: bool = False


class StepRun(NamedTuple):
    """Steps from `first` to `last` that ended without counting this tower's batch.

    failed: nothing counted at all, else only other towers.
    """

    first: int
    last: int
    failed: bool


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a factor stands, as one tower was last told.

    incarnation, epoch: what its steps are numbered within, see Version. towers: how many make a step.
    next: the lowest step that has not ended.
    durable: every step up to it survives a crash of the server.
    open_through: the highest step that is open.
    window: steps from `next` on that may be sent.
    first: the lowest step from `next` on that this tower is of; 0 if it has been removed.
    missed: every step known to have ended without this tower's batch, ascending.
    """

    factor: str
    tower: int
    incarnation: int
    epoch: int
    towers: int
    next: int
    durable: int
    open_through: int
    window: int
    first: int
    missed: tuple[StepRun, ...]


@dataclasses.dataclass(frozen=True)
class UpdateStats:
    """What a writer has done since it was opened. Bytes are of elements.

    raw_batches, raw_bytes: written as they were.
    contribution_batches, contribution_bytes: written reduced to what they add to the covariance.
    shared_batches: sent, or sent again, by shared memory.
    resent_batches: sent once more, after a cut or a hold.
    reconnects: streams on which the tower was opened anew.
    """

    raw_batches: int = 0
    raw_bytes: int = 0
    contribution_batches: int = 0
    contribution_bytes: int = 0
    shared_batches: int = 0
    resent_batches: int = 0
    reconnects: int = 0


@dataclasses.dataclass(frozen=True)
class TLS:
    """How to encrypt, and whom to trust. All bytes are PEM.

    root_certificates: of those who may vouch for the server; the system's if None.
    private_key, certificate_chain: this client's own, for a server that asks for them.
    server_name: what the server's certificate names it, where that is not the target.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    server_name: str | None = None


def factor_spec(
    kind: FullyConnectedDiagonal | types_pb2.FactorSpec,
    *,
    towers: int,
    sources: int,
    dtype: Literal["float32", "float64"],
    tower_weighting: TowerWeighting,
    zero_debias: bool,
    initial_covariance: InitialCovariance,
    update_mode: UpdateMode,
    gather_policy: GatherPolicy,
    gather_timeout: float | None,
    window: int,
    durability: Durability | None,
    backend: Backend | None,
) -> types_pb2.FactorSpec:
    """Return the specification that create_factor() sends."""
    if isinstance(kind, types_pb2.FactorSpec):
        return kind
    spec = types_pb2.FactorSpec(
        fully_connected_diagonal=types_pb2.FullyConnectedDiagonal(**dataclasses.asdict(kind)),
        towers=towers,
        sources=sources,
        dtype=data_type(dtype),
        tower_weighting=_enum(types_pb2.TowerWeighting, "TOWER_WEIGHTING", tower_weighting),
        zero_debias=zero_debias,
        initial_covariance=_enum(types_pb2.InitialCovariance, "INITIAL_COVARIANCE", initial_covariance),
        update_mode=_enum(types_pb2.UpdateMode, "UPDATE_MODE", update_mode),
        gather_policy=_enum(types_pb2.GatherPolicy, "GATHER_POLICY", gather_policy),
        window=window,
    )
    if durability is not None:
        spec.durability = _enum(types_pb2.DurabilityLevel, "DURABILITY_LEVEL", durability)
    if backend is not None:
        spec.backend = _enum(types_pb2.BackendChoice, "BACKEND_CHOICE", backend)
    if gather_timeout is not None:
        spec.gather_timeout.FromNanoseconds(round(gather_timeout * 1e9))
    return spec


def data_type(name: str) -> types_pb2.DataType:
    """Return the wire's name of "float32", "float64", "bfloat16" or "float16"."""
    number: types_pb2.DataType = _enum(types_pb2.DataType, "DATA_TYPE", name, "dtype")
    return number


def layout(name: str) -> types_pb2.Layout:
    """Return the wire's name of "in_out" or "out_in"."""
    number: types_pb2.Layout = _enum(types_pb2.Layout, "LAYOUT", name)
    return number


def form(name: str) -> int:
    """Return BatchForm's number of "raw" or "contribution"; 0, unspecified, of "auto"."""
    forms = {"auto": 0, "raw": 1, "contribution": 2}
    if name not in forms:
        message = f"form is {name!r}; expected one of {', '.join(forms)}"
        raise ValueError(message)
    return forms[name]


def _enum(enum: Any, prefix: str, name: str, field: str | None = None) -> Any:
    values = dict(enum.items())
    value = values.get(f"{prefix}_{name.upper()}")
    if value is None or value == 0:
        known = ", ".join(repr(key.removeprefix(prefix + "_").lower()) for key, number in values.items() if number)
        message = f"{field or prefix.lower()} is {name!r}; expected one of {known}"
        raise ValueError(message)
    return value

"""What can be read of a factor, by the names that the field gives it."""

from __future__ import annotations

import numbers

from fisherd.v1 import types_pb2

__all__ = ["cholesky", "cholesky_inverse", "covariance", "every_n_steps", "matpower", "on_read", "on_request"]

# λ: a number, or the name of a damping function (Client.set_damping).
Damping = float | str


def _damping(damping: Damping) -> types_pb2.Damping:
    if isinstance(damping, str):
        return types_pb2.Damping(name=damping)
    if isinstance(damping, numbers.Real):
        return types_pb2.Damping(value=float(damping))
    message = f"damping is {damping!r}; expected a number, or the name of a damping function"
    raise TypeError(message)


def covariance() -> types_pb2.Operator:
    """v, the covariance itself."""
    return types_pb2.Operator(covariance=types_pb2.Operator.Covariance())


def matpower(exponent: float, damping: Damping) -> types_pb2.Operator:
    """(v + λ)^exponent, entry-wise."""
    power = types_pb2.Operator.Matpower(exponent=exponent, damping=_damping(damping))
    return types_pb2.Operator(matpower=power)


def cholesky(damping: Damping) -> types_pb2.Operator:
    """(v + λ)^½, entry-wise."""
    return types_pb2.Operator(cholesky=types_pb2.Operator.Cholesky(damping=_damping(damping)))


def cholesky_inverse(damping: Damping) -> types_pb2.Operator:
    """(v + λ)^−½, entry-wise."""
    root = types_pb2.Operator.CholeskyInverse(damping=_damping(damping))
    return types_pb2.Operator(cholesky_inverse=root)


def on_read() -> types_pb2.RefreshPolicy:
    """A registered result is computed when a read finds it stale: it never is."""
    return types_pb2.RefreshPolicy(kind=types_pb2.REFRESH_KIND_ON_READ)


def every_n_steps(steps: int) -> types_pb2.RefreshPolicy:
    """A registered result is computed after every `steps`-th committed step, and at the first read."""
    return types_pb2.RefreshPolicy(kind=types_pb2.REFRESH_KIND_EVERY_N_STEPS, steps=steps)


def on_request() -> types_pb2.RefreshPolicy:
    """A registered result is computed by update_inverses(), and at the first read."""
    return types_pb2.RefreshPolicy(kind=types_pb2.REFRESH_KIND_ON_REQUEST)

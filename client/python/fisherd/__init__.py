"""The Python client of fisherd, the curvature server.

Named Fisher factors on a server, updated by streams of batches, read as linear operators::

    import fisherd

    with fisherd.Client("localhost:7600") as client, client.open_updates() as updates:
        client.create_factor("mlp/0", fisherd.FullyConnectedDiagonal(64, 128, has_bias=True))
        writer = updates.open("mlp/0", tower=0)
        step = writer.write(inputs, outputs_grads, decay=0.95)     # [N, 64] and [N, 128]
        natural = client.multiply("mlp/0", fisherd.matpower(-0.5, 1e-3), weight_grad, bias_grad,
                                  min_version=writer.min_version(step))

Times are in seconds. Errors are `fisherd.Error`, one subclass per status code. Tensors are anything with
the buffer protocol, `__array__` or DLPack: NumPy, PyTorch (CPU or GPU, bfloat16 included), JAX.
"""

from fisherd import aio
from fisherd.client import Client
from fisherd.errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    Error,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from fisherd.factor import FullyConnectedDiagonalFactor
from fisherd.linear_operator import LinearOperatorDiag
from fisherd.operators import (
    cholesky,
    cholesky_inverse,
    covariance,
    every_n_steps,
    matpower,
    on_read,
    on_request,
)
from fisherd.server import Server
from fisherd.tensors import bfloat16
from fisherd.transfer import MultiplyItem, Product, Reading
from fisherd.types import (
    TLS,
    FullyConnectedDiagonal,
    MinVersion,
    Progress,
    StepRun,
    UpdateStats,
    Version,
)
from fisherd.update_stream import UpdateStream, UpdateWriter

__all__ = [
    "TLS",
    "AbortedError",
    "AlreadyExistsError",
    "CancelledError",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "Error",
    "FailedPreconditionError",
    "FullyConnectedDiagonal",
    "FullyConnectedDiagonalFactor",
    "InternalError",
    "InvalidArgumentError",
    "LinearOperatorDiag",
    "MinVersion",
    "MultiplyItem",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Product",
    "Progress",
    "Reading",
    "ResourceExhaustedError",
    "Server",
    "StepRun",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "UpdateStats",
    "UpdateStream",
    "UpdateWriter",
    "Version",
    "aio",
    "bfloat16",
    "cholesky",
    "cholesky_inverse",
    "covariance",
    "every_n_steps",
    "matpower",
    "on_read",
    "on_request",
]

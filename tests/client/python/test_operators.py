"""Operators and policies as messages."""

import numpy as np
import pytest

import fisherd
from fisherd.v1 import types_pb2


def test_operators():
    assert fisherd.covariance().WhichOneof("kind") == "covariance"
    power = fisherd.matpower(-0.5, 1e-3).matpower
    assert (power.exponent, power.damping.value) == (-0.5, 1e-3)
    assert fisherd.matpower(2, "global").matpower.damping.name == "global"
    assert fisherd.cholesky(np.float32(0.5)).cholesky.damping.value == 0.5
    assert fisherd.cholesky_inverse(0).cholesky_inverse.damping.WhichOneof("kind") == "value"
    with pytest.raises(TypeError, match="damping is None; expected a number, or the name"):
        fisherd.cholesky(None)


def test_policies():
    assert fisherd.on_read().kind == types_pb2.REFRESH_KIND_ON_READ
    assert fisherd.every_n_steps(5).steps == 5
    assert fisherd.on_request().kind == types_pb2.REFRESH_KIND_ON_REQUEST

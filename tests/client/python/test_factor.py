"""The class as people know it, through a real server."""

import numpy as np
import pytest

import fisherd

A = np.array([[1, 2], [3, 4]], np.float32)
G = np.array([[1, -1], [2, 0.5]], np.float32)
C = np.array([[18.5, 1.625], [34, 4], [2.5, 0.625]], np.float32)


@pytest.fixture
def factor(client, updates, name):
    return fisherd.FullyConnectedDiagonalFactor(client, name, 2, 2, has_bias=True, updates=updates)


def test_covariance(client, factor, name):
    assert factor.name == name
    assert client.describe(name).steps_committed == 0
    factor.instantiate_cov_variables()
    np.testing.assert_array_equal(factor.get_cov(), 0)
    update = factor.make_covariance_update_op(0.5)
    assert update(A, G) == 1
    np.testing.assert_allclose(factor.get_cov(), C, rtol=1e-6)
    assert factor.update(A, G, decay=0.9, label=4) == 2
    operator = factor.get_cov_as_linear_operator()
    assert operator.shape == (6, 6)
    assert operator.dtype == np.float32
    np.testing.assert_allclose(operator.diag_part(), C.reshape(-1), rtol=1e-6)
    assert client.describe(name).label == 4


def test_operators(client, factor, name):
    factor.update(A, G, decay=0)
    client.set_damping(name, 0.5)
    factor.instantiate_inv_variables()
    factor.register_matpower(-1, name)
    factor.register_cholesky(name, fisherd.on_request())
    factor.register_cholesky_inverse(name)
    (update,) = factor.make_inverse_update_ops()
    assert update() == 3
    damped = (C + 0.5).reshape(-1)
    for damping in (name, 0.5):
        np.testing.assert_allclose(factor.get_matpower(-1, damping).diag_part(), 1 / damped, rtol=1e-6)
        np.testing.assert_allclose(factor.get_cholesky(damping).diag_part(), damped**0.5, rtol=1e-6)
        np.testing.assert_allclose(factor.get_cholesky_inverse(damping).diag_part(), damped**-0.5, rtol=1e-6)
    np.testing.assert_allclose(factor.get_matpower(-1, name).matmul(damped), 1, rtol=1e-6)
    assert len(client.describe(name).registrations) == 3


def test_operators_are_transferred_at_their_first_use(client, factor, name):
    factor.update(A, G, decay=0)
    operator = factor.get_cov_as_linear_operator()
    factor.update(2 * A, G, decay=0, wait=True)
    np.testing.assert_array_equal(operator.weight, 4 * C[:2])
    factor.update(A, G, decay=0, wait=True)
    np.testing.assert_array_equal(operator.weight, 4 * C[:2])


def test_layout_and_options(client, updates, name):
    factor = fisherd.FullyConnectedDiagonalFactor(
        client, name, 2, 2, updates=updates, layout="out_in", dtype="float64", sources=2
    )
    factor.update(A, [G, G], decay=0)
    operator = factor.get_cov_as_linear_operator()
    assert operator.dtype == np.float64
    assert operator.bias is None
    np.testing.assert_array_equal(operator.weight, 2 * C[:2].T)
    np.testing.assert_array_equal(factor.get_cov(), 2 * C[:2])


def test_without_creation_or_updates(client, name):
    factor = fisherd.FullyConnectedDiagonalFactor(client, name, 2, 2, create=False)
    with pytest.raises(fisherd.NotFoundError):
        factor.get_cov_as_linear_operator()
    factor.instantiate_cov_variables()
    assert factor.get_cov().shape == (2, 2)
    with pytest.raises(RuntimeError, match="without `updates`"):
        factor.update(A, G)

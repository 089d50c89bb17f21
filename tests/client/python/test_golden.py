"""SPEC's golden values, through a real server, in every form and type."""

import numpy as np
import pytest

import fisherd

A = np.array([[1, 2], [3, 4]], np.float64)
G = np.array([[1, -1], [2, 0.5]], np.float64)
C = np.array([[18.5, 1.625], [34, 4], [2.5, 0.625]])
KIND = fisherd.FullyConnectedDiagonal(2, 2, has_bias=True)


@pytest.fixture(params=["raw", "contribution"])
def form(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def run(client, name, form, dtype):
    """Return a function that runs steps of (inputs, grads, options) of one tower and reads an operator."""
    with client.open_updates(form=form) as updates:

        def run(steps, operator=None, **options):
            client.create_factor(name, KIND, dtype=dtype, **options)
            writer = updates.open(name)
            for inputs, grads, step in steps:
                writer.write(inputs, grads, wait=True, **step)
            stats = writer.stats()
            assert (stats.raw_batches, stats.contribution_batches) == (
                (len(steps), 0) if form == "raw" else (0, len(steps))
            )
            reading = client.read(name, operator)
            client.delete(name)
            return reading

        yield run


def whole(reading):
    return np.vstack([reading.weight, reading.bias])


def close(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, rtol=1e-9 if dtype == "float64" else 2e-6)


def test_covariance(run, dtype):
    reading = run([(A, G, {"decay": 0.95})])
    close(whole(reading), C, dtype)
    assert reading.value.dtype == dtype
    assert reading.steps_committed == 1


def test_ones_without_debias(run, dtype):
    reading = run([(A, G, {"decay": 0.5})], zero_debias=False, initial_covariance="ones")
    close(whole(reading), [[9.75, 1.3125], [17.5, 2.5], [1.75, 0.8125]], dtype)


def test_debias(run, dtype):
    steps = [(A, G, {"decay": 0.9}), (2 * A, G, {"decay": 0.9})]
    expected = [[47.71052632, 4.19078947], [87.68421053, 10.31578947], [2.5, 0.625]]
    np.testing.assert_allclose(whole(run(steps)), expected, rtol=1e-6)


def test_decays_that_vary(run, dtype):
    reading = run([(A, G, {"decay": 0.5}), (2 * A, G, {"decay": 0.9})])
    expected = [[28.59090909, 2.51136364], [52.54545455, 6.18181818], [2.5, 0.625]]
    np.testing.assert_allclose(whole(reading), expected, rtol=1e-6)
    assert reading.info.total_weight == pytest.approx(0.55, rel=1e-14)


def test_plain_accumulation(run, dtype):
    close(whole(run([(A, G, {"decay": 1, "weight": 1})] * 2)), C, dtype)


def test_matpower(run, dtype):
    reading = run([(A, G, {"decay": 0})], fisherd.matpower(-1, 0.5))
    expected = [[0.05263158, 0.47058824], [0.02898551, 0.22222222], [0.33333333, 0.88888889]]
    np.testing.assert_allclose(whole(reading), expected, rtol=1e-6)


def test_cholesky(run, dtype):
    reading = run([(A, G, {"decay": 0})], fisherd.cholesky(0.5))
    np.testing.assert_allclose(reading.weight[0], [4.35889894, 1.45773797], rtol=1e-7)


def test_other_power(run, dtype):
    reading = run([(A, G, {"decay": 0})], fisherd.matpower(-0.75, 0.5))
    np.testing.assert_allclose(reading.weight[0], [0.10988409, 0.56817327], rtol=1e-6)


def test_row_weights(run, dtype):
    for weights in (np.array([1, 3.0]), np.array([[1], [3]], np.float32)):
        reading = run([(A, G, {"decay": 0, "row_weights": weights})])
        close(whole(reading), [[27.25, 1.9375], [49, 4], [3.25, 0.4375]], dtype)


def test_gradient_scale(run, dtype):
    close(whole(run([(A, G / 2, {"decay": 0, "gradient_scale": 2})])), C, dtype)
    mistake = run([(A, G / 2, {"decay": 0})])
    assert mistake.weight[0, 0] == pytest.approx(18.5 / 4)


def test_sources_and_towers(client, name, form, dtype):
    client.create_factor(name, KIND, dtype=dtype, towers=2, sources=2)
    with client.open_updates(form=form) as updates:
        writers = [updates.open(name, tower) for tower in (1, 0)]
        for writer, row in zip(writers, (1, 0), strict=True):
            rows = slice(row, row + 1)
            step = writer.write(A[rows], [G[rows], 2 * G[rows]], decay=0)
        close(whole(client.read(name, min_version=writer.min_version(step))), 5 * C, dtype)


def test_example_weighted(client, name, form, dtype):
    client.create_factor(name, KIND, dtype=dtype, towers=2, tower_weighting="example_weighted")
    with client.open_updates(form=form) as updates:
        for tower, rows in ((0, [0]), (1, [1, 1])):
            writer = updates.open(name, tower)
            step = writer.write(A[rows], G[rows], decay=0)
        reading = client.read(name, min_version=writer.min_version(step))
        close(whole(reading), np.array([[73, 5.5], [132, 12], [9, 1.5]]) / 3, dtype)

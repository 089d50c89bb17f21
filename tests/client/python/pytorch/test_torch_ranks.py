"""Two ranks of torch.distributed are two towers: numbers, agreement, and cuts that leave the bits as they were."""

import json
import os
import pathlib
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

import fisherd

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch has no torch.distributed", allow_module_level=True)

from rank import make_batch, make_model  # noqa: E402
from reference import covariance  # noqa: E402
from torch.nn import functional  # noqa: E402

from durable_server import kill_and_restart, start  # noqa: E402
from proxy import Proxy  # noqa: E402


def run(server, folder, *jobs):
    """Run jobs in two processes, and return of each job what the ranks wrote."""
    jobs = [
        {"target": server.target, "prefix": f"{folder}/{number}/".lstrip("/"), **job} for number, job in enumerate(jobs)
    ]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    program = pathlib.Path(__file__).parent / "rank.py"
    processes = []
    for rank in range(2):
        command = [sys.executable, str(program), str(rank), str(folder), json.dumps(jobs)]
        with (folder / f"{rank}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        statuses = [process.wait(120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert statuses == [0, 0], "\n".join((folder / f"{rank}.log").read_text() for rank in range(2))
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return [(job["prefix"], pair) for job, *pair in zip(jobs, *results, strict=True)]


POLICIES = [{}, {"fresh": False}, {"refresh_every": 3}, {"refresh_every": 2, "fresh": False}]
JOBS = {
    "numbers": {"attach": {"loss": "mean"}},
    "spoilt": {"steps": 4, "spoil": 2},
    "full": {"steps": 12, "slow": 0.05, "policy": {"fresh": False}, "attach": {"when_full": "skip", "queue_size": 1}},
    **{f"policy {number}": {"steps": 10, "rate": 0.02, "policy": policy} for number, policy in enumerate(POLICIES)},
}


@pytest.fixture(scope="module")
def jobs(server, tmp_path_factory):
    """Return what the ranks wrote of each job, by its name."""
    return dict(zip(JOBS, run(server, tmp_path_factory.mktemp("ranks"), *JOBS.values()), strict=True))


def covariances(client, prefix):
    return {
        f"{layer}.{part}": getattr(client.read(f"{prefix}{layer}", layout="out_in"), part)
        for layer in ("0", "2")
        for part in ("weight", "bias")
    }


def test_numbers(client, jobs):
    """A mean loss over each rank's own batch, of unlike sizes: the towers' mean."""
    prefix, results = jobs["numbers"]
    parts = [covariance(make_model(), functional.cross_entropy, *make_batch(rank, 0)) for rank in range(2)]
    for parameter, value in covariances(client, prefix).items():
        expected = (parts[0][parameter] + parts[1][parameter]) / 2
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-12 * expected.max())
    assert [result["stats"]["sent"] for result in results] == [1, 1]


@pytest.mark.parametrize("number", range(len(POLICIES)))
def test_ranks_have_the_same_parameters(jobs, number):
    _, results = jobs[f"policy {number}"]
    assert results[0]["parameters"] == results[1]["parameters"]
    assert results[0]["finite"]


def test_a_batch_that_is_not_finite_on_one_rank(client, jobs):
    prefix, results = jobs["spoilt"]
    for result in results:
        assert (result["stats"]["sent"], result["stats"]["skipped_non_finite"]) == (3, 1)
    assert client.read(f"{prefix}0").steps_committed == 3


def test_a_queue_that_is_full_on_one_rank(client, jobs):
    prefix, results = jobs["full"]
    assert results[0]["stats"]["sent"] == results[1]["stats"]["sent"] < 12
    assert results[0]["stats"]["skipped_full"] == results[1]["stats"]["skipped_full"] > 0
    assert client.read(f"{prefix}0").steps_committed == results[0]["stats"]["sent"]


def test_cuts_leave_the_bits_as_they_were(server, client, tmp_path):
    """Two jobs, one that asks the server at every step, one that keeps operators; each whole and cut."""
    job = {"steps": 30, "rate": 0.02}
    kinds = [{**job, "policy": policy} for policy in ({}, {"refresh_every": 5})]
    random_times, done = random.Random(0), threading.Event()
    with Proxy(int(server.target.rpartition(":")[2])) as proxy:

        def cut():
            while not done.wait(random_times.uniform(0.02, 0.2)):
                proxy.cut()

        cutter = threading.Thread(target=cut, daemon=True)
        cutter.start()
        try:
            cut_ones = [{**kind, "target": proxy.target, "pause": 0.02} for kind in kinds]
            results = run(server, tmp_path, *kinds, *cut_ones)
        finally:
            done.set()
            cutter.join()
    for (whole, _), (cut_one, ranks) in zip(results[:2], results[2:], strict=True):
        assert sum(rank["reconnects"] for rank in ranks) > 0
        assert [rank["stats"]["sent"] for rank in ranks] == [30, 30]
        for parameter, value in covariances(client, whole).items():
            assert value.tobytes() == covariances(client, cut_one)[parameter].tobytes()
    for first, second in ((0, 2), (1, 3)):
        assert len({rank["parameters"] for _, ranks in (results[first], results[second]) for rank in ranks}) == 1


@pytest.mark.parametrize("durability", ["snapshot", "sync"])
def test_kills_leave_the_bits_as_they_were(server, client, tmp_path, durability):
    """A server that is killed (kill -9) at three moments of a job and comes back on its data directory."""
    job = {"steps": 40, "rate": 0.02, "pause": 0.01, "attach": {"durability": durability}}
    prefix = f"{tmp_path}/1/".lstrip("/")

    killed = [start(tmp_path / "data")]
    kills, done = [], threading.Event()

    def kill():
        for step in (3, 15, 27):
            with killed[-1].client() as watching:
                while not done.is_set():
                    try:
                        if watching.describe(f"{prefix}0").next > step:
                            break
                    except fisherd.NotFoundError:
                        pass
                    done.wait(0.005)
            if done.is_set():
                return
            killed.append(kill_and_restart(killed[-1], tmp_path / "data"))
            kills.append(step)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        in_memory = {**job, "attach": {}}
        results = run(server, tmp_path, in_memory, {**job, "target": killed[0].target})
    finally:
        done.set()
        killer.join()
    with killed[-1].client() as survivor:
        assert kills == [3, 15, 27]
        (whole, expected), (_, ranks) = results
        assert [rank["stats"]["sent"] for rank in ranks] == [40, 40]
        assert survivor.describe(f"{prefix}0").steps_failed == 0
        for parameter, value in covariances(client, whole).items():
            assert value.tobytes() == covariances(survivor, prefix)[parameter].tobytes()
        assert {rank["parameters"] for rank in ranks} == {rank["parameters"] for rank in expected}
    killed[-1].stop()

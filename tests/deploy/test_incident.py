"""An incident, staged: Prometheus scrapes a running server, and the alerts fire and end."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FISHERD_BINARY", str(ROOT / "build/release/server/fisherd"))
os.environ["FISHERD_BINARY"] = BINARY
fisherd = pytest.importorskip("fisherd")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)["data"]


def _until(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def http_port():
    return _free_port()


@pytest.fixture
def prometheus(tmp_path, http_port):
    """Return the names of the alerts that fire, whenever it is called. What they wait for is cut short."""
    program = shutil.which("prometheus")
    if program is None or not pathlib.Path(BINARY).exists():
        pytest.skip("no prometheus, or no fisherd, here")
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(re.sub(r"\n( *)for: .*", r"\n\1for: 0s", rules))
    scrape = (ROOT / "deploy/prometheus/scrape.yml").read_text()
    scrape = scrape.replace("fisherd:7601", f"127.0.0.1:{http_port}").replace("_interval: 15s", "_interval: 250ms")
    (tmp_path / "prometheus.yml").write_text(scrape.replace("global:", "global:\n  scrape_timeout: 250ms"))
    port = _free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    base = f"http://127.0.0.1:{port}/api/v1"

    def alive():
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return bool(_get(f"{base}/rules")["groups"])
        except OSError:
            return False

    try:
        _until(alive, "Prometheus does not serve")
        yield lambda: {a["labels"]["alertname"] for a in _get(f"{base}/alerts")["alerts"] if a["state"] == "firing"}
    finally:
        process.terminate()
        process.wait()


def test_the_alerts_of_an_incident(prometheus, http_port):
    with fisherd.Server(http=f"127.0.0.1:{http_port}", state_budget="1MiB", batch_budget="1MiB") as server:
        _until(lambda: "FisherdDown" not in prometheus(), "the server is up")
        assert "FisherdStateBudgetNearlyFull" not in prometheus()
        with server.client() as client:
            client.create_factor("large", fisherd.FullyConnectedDiagonal(350, 350))  # twice 490 kB
            _until(lambda: "FisherdStateBudgetNearlyFull" in prometheus(), "the budget is nearly full")
            client.delete("large")
            _until(lambda: "FisherdStateBudgetNearlyFull" not in prometheus(), "there is room again")
    _until(lambda: "FisherdDown" in prometheus(), "the server is down")

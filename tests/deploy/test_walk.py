"""The first ten minutes of an operator, as docs/security.md and docs/operations.md tell them: every command is run."""

import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("FISHERD_BINARY", str(ROOT / "build/release/server/fisherd")))


def _blocks(document):
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def test_the_first_ten_minutes(tmp_path):
    for program in ("prometheus", "promtool", "curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    if not BINARY.exists():
        pytest.skip("no fisherd here")
    security, operations = _blocks("security.md"), _blocks("operations.md")
    assert (len(security), len(operations)) == (4, 2)
    script = "\n".join(security + operations)
    ports = dict(zip(("7600", "7601", "9090"), _free_ports(3), strict=True))
    script = re.sub(r"\b(7600|7601|9090)\b", lambda port: ports[port[0]], script)
    script = re.sub(r"^! (.*?) +#.*$", r"if \1; then exit 9; fi", script, flags=re.MULTILINE)
    # The servers of other tests have the same name.
    script = script.replace("$(pidof -s fisherd)", "$server").replace(
        "fisherd --config=fisherd.yaml &", "fisherd --config=fisherd.yaml & server=$!"
    )
    # Nobody waits for minutes here.
    script = script.replace("promtool check config", "sed -i 's/_interval: 15s/_interval: 250ms/' prometheus.yml\n"
                            "sed -i 's/^global:/global:\\n  scrape_timeout: 250ms/' prometheus.yml\n"
                            "sed -Ei 's/^( +)for: .*/\\1for: 0s/' rules.yml\npromtool check config", 1)  # fmt: skip
    # The scrape's own port, which is also in the checkout's file.
    checkout = tmp_path / "checkout/deploy/prometheus"
    shutil.copytree(ROOT / "deploy/prometheus", checkout)
    scrape = checkout / "scrape.yml"
    scrape.write_text(scrape.read_text().replace("7601", ports["7601"]))
    script = "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n" + script
    path = f"{BINARY.parent}:{BINARY.parents[1] / 'client'}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "FISHERD": str(tmp_path / "checkout"),
        "FISHERD_SERVER": f"localhost:{ports['7600']}",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "FisherdDown" in said
    assert "jobs/a/damping" in said

"""The walk through docs/security.md, run as it stands."""

import os
import pathlib
import re
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_commands_of_security_md(tmp_path):
    text = (ROOT / "docs/security.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    port = str(_free_port())
    script = "\n".join(blocks).replace("7600", port).replace("7601", str(_free_port()))
    # Every line has to succeed, one with ! to fail; the server ends with the script.
    script = re.sub(r"^! (.*?) +#.*$", r"if \1; then exit 9; fi", script, flags=re.MULTILINE)
    script = "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n" + script
    server = pathlib.Path(os.environ["FISHERD_BINARY"])
    path = f"{server.parent}:{server.parents[1] / 'client'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "FISHERD_SERVER": f"localhost:{port}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "PERMISSION_DENIED" in said
    assert "UNAUTHENTICATED" in said
    assert '"level":"AUDIT"' in said
    for name in ("trainer.token", "operator.token"):
        assert (tmp_path / name).read_text().strip() not in said

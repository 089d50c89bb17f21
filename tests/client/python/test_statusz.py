"""The pages of /statusz in a real browser. Skipped where there is none."""

import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

import fisherd

BROWSER = shutil.which("chromium")
HOSTILE = "x\"><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def pages():
    with fisherd.Server(http="127.0.0.1:0", log_level="info") as server, server.client() as client:
        port = server.log.split("HTTP port ")[1].split()[0]
        client.set_damping("global", 1e-3)
        updates = client.open_updates()
        for name in ("mlp/0", HOSTILE):
            client.create_factor(name, fisherd.FullyConnectedDiagonal(40, 30))
            client.register(name, fisherd.matpower(-0.5, "global"))
            writer = updates.open(name, 0)
            rng = np.random.default_rng(1)
            step = writer.write(
                inputs=rng.normal(size=(8, 40)).astype(np.float32),
                outputs_grads=[rng.normal(size=(8, 30)).astype(np.float32)],
                decay=0.9,
            )
            writer.wait(step)
        yield f"http://127.0.0.1:{port}/statusz"
        updates.close()


def _browse(tmp_path, url, *options):
    if BROWSER is None:
        pytest.skip("no chromium here")
    command = [BROWSER, "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=2000", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    # What a page says to the console: of a policy that was violated, or a script that failed.
    assert ":CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def _factor(pages, name):
    return f"{pages}/factor?name={urllib.parse.quote(name)}"


@pytest.mark.parametrize("size", ["1280,900", "390,844"])
def test_pages_are_drawn(pages, tmp_path, size):
    for url in (pages, _factor(pages, "mlp/0")):
        _browse(tmp_path, url, f"--window-size={size}", "--screenshot=page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_no_name_runs_a_script(pages, tmp_path):
    for url in (pages, _factor(pages, HOSTILE), f"{pages}?prefix={urllib.parse.quote(HOSTILE)}"):
        dom = _browse(tmp_path, url, "--dump-dom")
        assert "<title>owned" not in dom
        assert "<script" not in dom
        assert "<img" not in dom
        assert "&lt;script&gt;" in dom or "&quot;&gt;<" in dom  # it is shown as what it is


def test_what_the_pages_say(pages):
    with urllib.request.urlopen(_factor(pages, "mlp/0")) as answer:
        text = answer.read().decode()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "40 inputs down, 30 outputs across" in text
    assert "1200 of 1200 looked at" in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(_factor(pages, "none"))


@pytest.mark.parametrize(("http", "flag", "shown"), [("127.0.0.1:0", "never", 404), ("127.0.0.1:0", "local", 200)])
def test_where_they_are_shown(http, flag, shown):
    with fisherd.Server(http=http, statusz=flag, log_level="info") as server:
        port = server.log.split("HTTP port ")[1].split()[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/statusz") as answer:
                assert answer.status == shown
        except urllib.error.HTTPError as error:
            assert error.code == shown  # noqa: PT017


def test_the_world_does_not_see_them():
    with fisherd.Server(http="0.0.0.0:0", log_level="info") as server:
        port = server.log.split("HTTP port ")[1].split()[0]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/statusz")
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/livez").status == 200

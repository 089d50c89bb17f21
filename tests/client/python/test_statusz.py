"""The pages of /statusz in a real browser. Skipped where there is none."""

import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

import fisherd
from browser import PROGRAM, Browser

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
        client.create_factor("fresh", fisherd.FullyConnectedDiagonal(3, 2))
        yield f"http://127.0.0.1:{port}/statusz"
        updates.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("no chromium here")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def _factor(pages, name):
    return f"{pages}/factor?name={urllib.parse.quote(name)}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_pages_are_drawn(pages, browser, tmp_path, width, height, dark):
    for name, url in {"overview": pages, "factor": _factor(pages, "mlp/0"), "fresh": _factor(pages, "fresh")}.items():
        browser.look(url, width, height, dark=dark)
        assert browser.console == []
        # Tables scroll by themselves, the page only downwards.
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
        # Every picture says what it shows, unless it only decorates, and is as large as it should be.
        assert browser.evaluate(
            "[...document.querySelectorAll('svg')].every(svg => svg.clientWidth > 20 && svg.clientHeight >= 12 &&"
            " (svg.getAttribute('aria-label') || svg.getAttribute('aria-hidden')))"
        )
        picture = tmp_path / f"{name}.png"
        picture.write_bytes(browser.screenshot())
        assert picture.stat().st_size > 10_000


def test_no_name_runs_a_script(pages, browser):
    for url in (pages, _factor(pages, HOSTILE), f"{pages}?prefix={urllib.parse.quote(HOSTILE)}"):
        browser.look(url, 1280, 900)
        assert browser.console == []
        assert browser.evaluate("document.title") != "owned"
        assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
        shown = browser.evaluate("document.body.innerText + document.querySelector('#prefix')?.value")
        assert HOSTILE in shown


def test_a_hostile_name_is_a_link_to_its_page(pages, browser):
    browser.look(pages, 1280, 900)
    links = browser.evaluate("[...document.querySelectorAll('tbody a')].map(link => link.href)")
    titles = []
    for link in links:
        browser.look(link, 1280, 900)
        titles.append(browser.evaluate("document.querySelector('h1').textContent"))
    assert titles == sorted(["fresh", "mlp/0", HOSTILE])


def test_what_was_violated_is_noticed(pages, browser):
    """The browser enforces the policy of the pages, and says so to the tests."""
    browser.look(pages, 1280, 900)
    browser.evaluate("document.body.innerHTML = '<img src=/livez onerror=\"document.title=1\">'")
    browser.look(pages, 1280, 900)
    assert any("Content Security Policy" in said for said in browser.console)
    browser.console.clear()


def test_what_the_pages_say(pages):
    with urllib.request.urlopen(_factor(pages, "mlp/0")) as answer:
        text = answer.read().decode()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "40 rows down, 30 columns across" in text
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

"""Chromium, told what to do over a pair of pipes (the DevTools protocol)."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from typing import Any, Self

PROGRAM = shutil.which("chromium")
_TIMEOUT = 60.0  # seconds that an answer may take


class Browser:
    """One page of a headless browser; a context manager that ends it."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Start it, with `folder` for what it keeps."""
        # It reads commands from 3 and writes to 4.
        read, self._commands = os.pipe()
        self._answers, write = os.pipe()
        command = [
            PROGRAM,
            "--headless",
            "--disable-gpu",
            "--no-sandbox",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]
        command += [f"--user-data-dir={folder}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write} 2>/dev/null', "bash", *command]
        self._process = subprocess.Popen(shell, pass_fds=(read, write))
        os.close(read)
        os.close(write)
        self._last = 0
        self._rest = b""
        self._session: str | None = None
        self._loaded = False
        self.console: list[str] = []  # what pages said, of scripts that failed and policies that were violated
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)  # it ends at that
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def look(self, url: str, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page as a screen of that size shows it."""
        phone = width < 600
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self._ask("Page.navigate", url=url)
        deadline = time.monotonic() + _TIMEOUT
        while not self._loaded:
            self._take(deadline)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT
        while (answer := self._take(deadline)).get("id") != self._last:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _take(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            some = os.read(self._answers, 1 << 16)
            if not some:
                raise EOFError("the browser has ended")
            self._rest += some
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.console.append(json.dumps(message["params"]))
            case "Log.entryAdded":
                self.console.append(message["params"]["entry"]["text"])
        return message

"""A headless Chromium for tests of the page, driven over a pipe in its own protocol: no driver and no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DEADLINE_SECONDS = 20.0


class BrowserMissingError(Exception):
    """No Chromium is installed."""


def find_browser() -> str:
    """The path of a Chromium; BrowserMissingError says how to get one."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise BrowserMissingError("the page's tests need a Chromium; on Debian: apt-get install chromium-headless-shell")


class Browser:
    """One browser with one page. Everything that waits has a deadline."""

    def __init__(self, width: int = 1200, height: int = 1400) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="browser-"))
        to_browser_read, self._to = os.pipe()
        self._from, from_browser_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        script = f'exec 3<&{to_browser_read} 4>&{from_browser_write}; exec "$@"'
        options = [
            find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--remote-debugging-pipe", f"--user-data-dir={self._profile}", f"--window-size={width},{height}",
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *options],
            pass_fds=(to_browser_read, from_browser_write), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser_read)
        os.close(from_browser_write)
        os.set_blocking(self._from, False)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.console: list[str] = []
        self.dialogs: list[str] = []
        self.prompt_answer = ""
        try:
            (page,) = [each for each in self._wait_for_targets() if each["type"] == "page"]
            attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _wait_for_targets(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found: list[dict[str, Any]] = self._call("Target.getTargets")["targetInfos"]
            if any(each["type"] == "page" for each in found) or time.monotonic() > deadline:
                return found

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._call("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression is in the page, as JSON has it."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true in the page."""
        watch = (
            f"new Promise(done => {{ const look = () => {{ const found = ({expression}); if (found) done(found);"
            f" else if (performance.now() > until) done(false); else setTimeout(look, 20); }};"
            f" const until = performance.now() + {DEADLINE_SECONDS * 1000}; look(); }})"
        )
        found = self.value(watch)
        if not found:
            raise AssertionError(f"never true in the page: {expression}; console: {self.console}")
        return found

    def click(self, selector: str, text: str = "") -> None:
        """Click the first visible element that matches and has this text, as a mouse does."""
        find = (
            f"[...document.querySelectorAll({json.dumps(selector)})].find(each => each.offsetParent !== null"
            f" && each.textContent.includes({json.dumps(text)}))"
        )
        self.wait_for(f"Boolean({find})")
        place = self.value(
            f"(() => {{ const each = {find}; each.scrollIntoView({{block: 'center'}});"
            " const box = each.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser and its children, and remove its profile."""
        for descriptor in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_SECONDS)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _send(self, method: str, **arguments: Any) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        number = self._send(method, **arguments)
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS
        while True:
            message = self._receive(deadline)
            if message.get("id") == number:
                if "error" in message:
                    raise AssertionError(message["error"])
                return dict(message["result"])
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Page.javascriptDialogOpening":
                self.dialogs.append(message["params"]["message"])
                # Its answer is not waited for: that may come after what the dialog holds up.
                self._send("Page.handleJavaScriptDialog", accept=True, promptText=self.prompt_answer)
            case "Runtime.exceptionThrown":
                self.console.append(str(message["params"]["exceptionDetails"]))
            case "Log.entryAdded":
                self.console.append(str(message["params"]["entry"]["text"]))
            case _:
                pass

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise AssertionError("the browser does not answer")
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise AssertionError("the browser ended")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

"""A headless Chromium, driven through its DevTools protocol; enough to click and to read."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_S = 60.0


class Browser:
    """One page of a browser of its own.

    Args:
        home: Folder for the browser's profile.
    """

    def __init__(self, home: Path) -> None:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                # In a container there is no sandbox to be had, and the page is our own server's.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--window-size=1400,1800",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = home / "DevToolsActivePort"
        self._until(lambda: told.is_file() and "\n" in told.read_text("utf-8"), "its port")
        port = told.read_text("utf-8").splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as reply:
            pages = [one for one in json.loads(reply.read()) if one["type"] == "page"]
        self._socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
        self._n_sent = 0
        self.tell("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=30)

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result; events in between are passed over."""
        self._n_sent += 1
        self._socket.send(json.dumps({"id": self._n_sent, "method": method, "params": params}))
        while True:
            found = json.loads(self._socket.recv(timeout=WAIT_S))
            if found.get("id") == self._n_sent:
                assert "error" not in found, found
                return dict(found["result"])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def go(self, url: str) -> None:
        """Opens an address."""
        self.tell("Page.navigate", url=url)

    def see(self, text: str) -> None:
        """Waits until the page shows a text."""
        wanted = f"document.body && document.body.innerText.includes({json.dumps(text)})"
        self._until(lambda: self.ask(wanted), f"{text!r} on {self.ask('location.href')}")

    def see_heading(self, text: str) -> None:
        """Waits until a heading of the page says this and nothing else."""
        headings = "[...document.querySelectorAll('h1')].map(one => one.innerText.trim())"
        wanted = f"{headings}.includes({json.dumps(text)})"
        self._until(lambda: self.ask(wanted), f"{text!r} on {self.ask('location.href')}")

    def click(self, selector: str) -> None:
        """Clicks on the first element that a CSS selector finds."""
        self.click_on(f"document.querySelector({json.dumps(selector)})")

    def click_on(self, element: str) -> None:
        """Clicks on the middle of an element, as a person with a mouse would.

        Args:
            element: A JavaScript expression that gives it, or nothing while it is not there.
        """
        look = (
            f"(() => {{ const found = ({element}); if (!found) return null;"
            " found.scrollIntoView({block: 'center'});"
            " const r = found.getClientRects()[0];"
            " return r ? [r.x + r.width / 2, r.y + r.height / 2] : null; })()"
        )
        seen: list[Any] = []

        # The page draws itself more than once: a click waits until its target stays where it is.
        def is_still() -> bool:
            time.sleep(0.3)
            seen.append(self.ask(look))
            return (
                len(seen) >= 5
                and seen[-1] is not None
                and len({str(one) for one in seen[-5:]}) == 1
            )

        self._until(is_still, element)
        box = seen[-1]
        for kind in ("mousePressed", "mouseReleased"):
            self.tell(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def shot(self, path: Path) -> None:
        """Saves a picture of the page, for whoever looks into a failure."""
        import base64

        data = self.tell("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _until(self, is_there: Any, what: str) -> None:
        end_s = time.monotonic() + WAIT_S
        while not is_there():
            assert time.monotonic() < end_s, f"the browser never showed {what}"
            assert self._process.poll() is None, "the browser has ended"
            time.sleep(0.1)

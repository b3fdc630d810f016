"""Headless Chromium, driven over its DevTools pipe: real keys, real layout, no packages."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)
VIRTUAL_KEYS = {
    **{"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39},
    **{"ArrowDown": 40, "Home": 36, "End": 35, "PageUp": 33, "PageDown": 34, "Tab": 9},
}


class Browser:
    """One process; `page` opens a file in a tab of its own."""

    def __init__(self, profile: Path) -> None:
        to_it, from_it = os.pipe(), os.pipe()
        # The browser reads its descriptor 3 and writes its 4; ours must not be in their way.
        reads, writes = (
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (to_it[0], from_it[1])
        )
        actions = [(os.POSIX_SPAWN_DUP2, reads, 3), (os.POSIX_SPAWN_DUP2, writes, 4)]
        quiet = os.open(os.devnull, os.O_RDWR)
        actions += [(os.POSIX_SPAWN_DUP2, quiet, fd) for fd in (0, 1, 2)]
        command = [_chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        for descriptor in (reads, writes, to_it[0], from_it[1], quiet):
            os.close(descriptor)
        self._to, self._from = to_it[1], from_it[0]
        self._left, self._number, self.events = b"", 0, []

    def call(self, method, session=None, **parameters):
        """Sends a command and gives its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        view = memoryview(json.dumps(message).encode() + b"\0")
        while view:
            view = view[os.write(self._to, view) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def wait(self, method, session):
        """The next event of this kind."""
        while True:
            for place, event in enumerate(self.events):
                if event.get("method") == method and event.get("sessionId") == session:
                    return self.events.pop(place)["params"]
            self.events.append(self._read())

    def page(self, file, width=1280, height=900, dark=False, scale=1, hash=""):
        """A file, laid out for a window of this size; returns when it has loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height, scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.call("Page.navigate", url=Path(file).as_uri() + hash)
        self.wait("Page.loadEventFired", session)
        return page

    def close(self):
        """Ends the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        for descriptor in (self._to, self._from):
            os.close(descriptor)

    def _read(self):
        while b"\0" not in self._left:
            found = os.read(self._from, 1 << 20)
            assert found, "the browser has gone"
            self._left += found
        first, _, self._left = self._left.partition(b"\0")
        return json.loads(first)


class Page:
    """One tab."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session

    def call(self, method, **parameters):
        """Sends a command to this tab."""
        return self.browser.call(method, self.session, **parameters)

    def run(self, script):
        """The value of an expression, awaited; fails on what it throws."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def texts(self, selector):
        """Text of every element that a selector finds."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
        )

    def text(self, selector):
        """Text of the first of them; None without one."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def click(self, selector):
        """Clicks in the middle of the first element that a selector finds."""
        box = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )
        self.settle()

    def press(self, *keys):
        """Presses keys, one after the other."""
        for key in keys:
            named = {
                "key": key,
                "windowsVirtualKeyCode": VIRTUAL_KEYS.get(key, ord(key[0].upper())),
            }
            text = (
                {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
            )
            self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **named)
        self.settle()

    def choose(self, selector, value):
        """Sets a field as a user does, and tells the page."""
        self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            f"e.value = {json.dumps(value)};"
            "const kind = e.tagName === 'SELECT' ? 'change' : 'input';"
            "e.dispatchEvent(new Event(kind, {bubbles: true}))})()"
        )
        self.settle(200)

    def settle(self, milliseconds=0):
        """Waits for what the page does later, and for two frames."""
        self.run(
            "new Promise((done) => setTimeout(() => requestAnimationFrame("
            f"() => requestAnimationFrame(done)), {milliseconds}))"
        )

    def resize(self, width, height, scale=1):
        """Lays out anew."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600},
        )

    def picture(self, file, whole=False):
        """A PNG of what is in view, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(answer["data"]))

    def said(self, *methods):
        """Events of these kinds that this tab has sent."""
        self.settle()
        return [
            event["params"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] in methods
        ]

    def complaints(self):
        """What the browser logged: errors of scripts, refusals of the policy."""
        return self.said("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")

    def close(self):
        """Closes the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)


def _chromium() -> str:
    for name in (os.environ.get("CHROMIUM", ""), *NAMES):
        found = shutil.which(name) if name else None
        if found:
            return found
    pytest.fail("no Chromium found: install it, or name one in CHROMIUM")

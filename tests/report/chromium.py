"""A headless Chromium of the system, told what to do through the pipe of its DevTools protocol: no driver and no package is needed."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time

import matplotlib.image
import numpy as np

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
PATIENCE = 90.0  # seconds; WebGL is drawn by the CPU


def program():
    """Path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """One browser with one page.

    Attributes:
        requests: address of everything the page asked for, in order.
        complaints: errors and warnings of the console, uncaught exceptions, failed and refused requests.
    """

    def __init__(self, profile):
        self.requests, self.complaints = [], []
        self._numbers, self._answers, self._rest = itertools.count(1), {}, b""
        command_read, self._out = os.pipe()
        self._in, answer_write = os.pipe()
        shell = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
        with (profile.parent / f"{profile.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", shell, program(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
                pass_fds=(command_read, answer_write), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(command_read)
        os.close(answer_write)
        self._session = None
        page = next(each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def call(self, method, **parameters):
        """The answer to one command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while number not in self._answers:
            self._listen(end, method)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _listen(self, end, awaited):
        ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
        assert ready, f"Chromium gave no answer to {awaited} in {PATIENCE:.0f} s"
        block = os.read(self._in, 1 << 20)
        assert block, "Chromium has ended"
        *messages, self._rest = (self._rest + block).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, event, said):
        if event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Network.loadingFailed" and not said.get("canceled"):
            self.complaints.append(f"request failed: {said['errorText']} {said.get('blockedReason', '')}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {json.dumps(said['exceptionDetails'])[:500]}")
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"console: {json.dumps(said['args'])[:500]}")
        elif event == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"log: {said['entry']['text']} {said['entry'].get('url', '')}")

    def screen(self, width, height, dark=False):
        """Size of the window in CSS pixels, and the colours that its user prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address):
        """Go there and wait until all is loaded."""
        self.call("Page.navigate", url=address)
        self.until(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def value(self, expression):
        """What a JavaScript expression, perhaps a promise, gives in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def until(self, expression):
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.1)

    def key(self, name, code):
        """Press a key where the focus is."""
        text = {"text": "\r"} if name == "Enter" else {}  # without it a button does not hear it
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text)

    def click(self, selector, across=0.5, down=0.5):
        """Click an element with the mouse, at these shares of its width and height."""
        box = self._box(selector)
        x, y = box["x"] + box["width"] * across - self.value("scrollX"), box["y"] + box["height"] * down - self.value("scrollY")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def picture(self, selector=None, path=None, whole=False):
        """(H, W, 3) in 0..1 of the window, the whole page or one element, as it is seen; also saved to `path`."""
        clip = {"clip": self._box(selector) | {"scale": 1}} if selector else {}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"])
        if path:
            path.write_bytes(png)
        return np.asarray(matplotlib.image.imread(io.BytesIO(png)))[..., :3]

    def _box(self, selector):
        """Place of an element on the page, scrolled into view."""
        return self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect();"
            " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}; })()"
        )

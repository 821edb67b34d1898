"""Control Firefox and WebKit without additional drivers.

Both speak WebDriver: Firefox through Marionette, its own socket, WebKitGTK through Debian's WebKitWebDriver. So no
driver has to be installed or kept in step with its browser. Commands have Marionette's names.

https://w3c.github.io/webdriver, https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FIREFOX = os.environ.get("PATCHPRISM_FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
WEBKIT = shutil.which("WebKitWebDriver")
MINIBROWSER = next(map(str, Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")), None)
XVFB = shutil.which("Xvfb")

# Prompts, reports and updates are off, and downloads go to a folder without a dialog.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.auto": False,
    "browser.aboutConfig.showWarning": False,
    "browser.download.folderList": 2,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "marionette.port": 0,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "privacy.query_stripping.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}

# Marionette's commands as WebDriver's requests.
REQUESTS = {
    "WebDriver:Navigate": ("POST", "url"),
    "WebDriver:Refresh": ("POST", "refresh"),
    "WebDriver:ExecuteScript": ("POST", "execute/sync"),
    "WebDriver:PerformActions": ("POST", "actions"),
    "WebDriver:FindElement": ("POST", "element"),
    "WebDriver:ElementSendKeys": ("POST", "element/{id}/value"),
    "WebDriver:SwitchToFrame": ("POST", "frame"),
    "WebDriver:SetWindowRect": ("POST", "window/rect"),
    "WebDriver:TakeScreenshot": ("GET", "screenshot"),
}


class DriverError(Exception):
    """A command that the browser refused."""


class Driver:
    """The window of a browser. Subclasses implement ``send``, the transport."""

    name: str
    version: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self.processes: list[subprocess.Popen] = []
        try:
            self.start()
            self.send("WebDriver:SetWindowRect", width=1300, height=1000)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        raise NotImplementedError

    def send(self, command: str, **parameters: object) -> object:
        raise NotImplementedError

    def run(self, *command: object, **options: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, cwd=self.folder, **options
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -- what tests do --------------------------------------------------------------------------------------

    def open(self, address: str) -> None:
        # If only the fragment changed, nothing would be loaded.
        self.send("WebDriver:Navigate", url="about:blank")
        self.send("WebDriver:Navigate", url=address)

    def reload(self) -> None:
        self.send("WebDriver:Refresh")

    def script(self, expression: str, *arguments: object) -> object:
        """Value of an expression, which can use ``arguments``; waits for promises."""
        return self.send("WebDriver:ExecuteScript", script=f"return {expression}", args=list(arguments))

    def until(self, expression: str, seconds: float = 30) -> object:
        end = time.monotonic() + seconds
        while not (value := self.script(expression)):
            assert time.monotonic() < end, f"still not: {expression}"
            time.sleep(0.02)
        return value

    def element(self, selector: str) -> str:
        return self.send("WebDriver:FindElement", using="css selector", value=selector)[ELEMENT]

    def type_into(self, selector: str, text: str) -> None:
        element = self.element(selector)
        self.send("WebDriver:ElementSendKeys", id=element, text=text, value=list(text))

    def into_frame(self, selector: str | None) -> None:
        """Switch to a frame, or to the top."""
        frame = None if selector is None else {ELEMENT: self.element(selector)}
        self.send("WebDriver:SwitchToFrame", id=frame)

    def pointer(self, *steps: tuple[float, float] | str, milliseconds: int = 30) -> None:
        """Move the mouse to positions, and press (``down``) or release (``up``) its button."""
        known = {"down": {"type": "pointerDown", "button": 0}, "up": {"type": "pointerUp", "button": 0}}
        actions = [
            known[step]
            if isinstance(step, str)
            else {"type": "pointerMove", "duration": milliseconds, "x": round(step[0]), "y": round(step[1])}
            for step in steps
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.send("WebDriver:PerformActions", actions=[mouse])

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Scroll an element into view, and return a point in it, given as fractions of its size."""
        left, top, width, height = self.script(
            """((selector) => {
              const node = document.querySelector(selector);
              node.scrollIntoView({ block: "nearest" });
              const box = node.getBoundingClientRect();
              return [box.left, box.top, box.width, box.height];
            })(arguments[0])""",
            selector,
        )
        return left + x * width, top + y * height

    def click(self, selector: str) -> None:
        self.pointer(self.place(selector), "down", "up")

    def keys(self, *keys: str, held: str = "") -> None:
        """Press keys one after another while those of ``held`` are down."""
        actions = [{"type": "keyDown", "value": key} for key in held]
        actions += [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        actions += [{"type": "keyUp", "value": key} for key in held]
        self.send("WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def screenshot(self) -> bytes:
        """A screenshot as a PNG file."""
        answer = self.send("WebDriver:TakeScreenshot")
        return base64.b64decode(answer["value"] if isinstance(answer, dict) else answer)


class Firefox(Driver):
    """Headless Firefox."""

    name = "Firefox"

    def start(self) -> None:
        profile = self.folder / "profile"
        profile.mkdir()
        preferences = {**PREFERENCES, "browser.download.dir": str(self.downloads)}
        lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in preferences.items()]
        (profile / "user.js").write_text("\n".join(lines), "utf-8")
        environment = {**os.environ, "HOME": str(self.folder), "MOZ_CRASHREPORTER_DISABLE": "1"}
        with open(self.folder / "firefox.log", "wb") as log:
            # System access is needed to read the browser's console.
            process = self.run(
                FIREFOX,
                "--headless",
                "--no-remote",
                "--marionette",
                "--remote-allow-system-access",
                "--profile",
                profile,
                env=environment,
                stdout=log,
                stderr=log,
            )
        written = profile / "MarionetteActivePort"
        port = wait_for(lambda: written.exists() and written.read_text(), process)
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
        self.stream = self.socket.makefile("rb")
        self.receive()
        self.count = 0
        capabilities = self.send("WebDriver:NewSession")["capabilities"]
        self.version = capabilities["browserVersion"]

    def receive(self) -> object:
        length = b""
        while (byte := self.stream.read(1)) != b":":
            if not byte:
                raise DriverError("Firefox hung up")
            length += byte
        return json.loads(self.stream.read(int(length)))

    def send(self, command: str, **parameters: object) -> object:
        self.count += 1
        text = json.dumps([0, self.count, command, parameters]).encode()
        self.socket.sendall(str(len(text)).encode() + b":" + text)
        _, number, error, result = self.receive()
        assert number == self.count
        if error:
            raise DriverError(f"{error['error']}: {error['message']}")
        return result["value"] if set(result or ()) == {"value"} else result

    def inside(self, script: str) -> object:
        """Run a script in the browser's context instead of the page's."""
        self.send("Marionette:SetContext", value="chrome")
        try:
            return self.send("WebDriver:ExecuteScript", script=script, args=[])
        finally:
            self.send("Marionette:SetContext", value="content")

    def prefer(self, name: str, value: bool | int | None) -> None:
        """Set or reset a preference."""
        kind = "Bool" if isinstance(value, bool) else "Int"
        done = f"set{kind}Pref({json.dumps(name)}, {json.dumps(value)})"
        self.inside(f"Services.prefs.{done if value is not None else f'clearUserPref({json.dumps(name)})'}")


class WebKit(Driver):
    """WebKitGTK's MiniBrowser on a virtual display, the closest to Safari on Linux."""

    name = "WebKit"

    def start(self) -> None:
        reading, writing = os.pipe()
        screen = ["-screen", "0", "1400x1200x24", "-nolisten", "tcp"]
        with open(self.folder / "display.log", "wb") as log:
            self.run(XVFB, "-displayfd", writing, *screen, pass_fds=[writing], stdout=log, stderr=log)
        os.close(writing)
        with os.fdopen(reading) as display:
            number = display.readline().strip()
        (self.folder / ".config").mkdir()
        (self.folder / ".config" / "user-dirs.dirs").write_text(
            'XDG_DOWNLOAD_DIR="$HOME/downloads"\n', "utf-8"
        )
        environment = {**os.environ, "DISPLAY": f":{number}", "HOME": str(self.folder), "GDK_BACKEND": "x11"}
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "WAYLAND_DISPLAY"):
            environment.pop(name, None)
        environment["LIBGL_ALWAYS_SOFTWARE"] = "1"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        with open(self.folder / "webkit.log", "wb") as log:
            process = self.run(WEBKIT, f"--port={self.port}", env=environment, stdout=log, stderr=log)
        wait_for(self.listening, process)
        self.session = ""
        options = {"binary": MINIBROWSER, "args": ["--automation"]}
        wanted = {"browserName": "MiniBrowser", "webkitgtk:browserOptions": options}
        answer = self.request("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = answer["sessionId"]
        self.version = answer["capabilities"]["browserVersion"]

    def listening(self) -> bool:
        try:
            return bool(self.request("GET", "/status"))
        except OSError:
            return False

    def request(self, method: str, path: str, body: object = None) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise DriverError(f"{value['error']}: {value['message']}")
        return value

    def send(self, command: str, **parameters: object) -> object:
        method, path = REQUESTS[command]
        path = f"/session/{self.session}/{path.format(**parameters)}"
        return self.request(method, path, parameters if method == "POST" else None)

    def close(self) -> None:
        if getattr(self, "session", ""):
            with contextlib.suppress(OSError, DriverError):
                self.request("DELETE", f"/session/{self.session}")
        super().close()


def wait_for(ready: object, process: subprocess.Popen, seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (value := ready()):
        if process.poll() is not None or time.monotonic() > end:
            raise DriverError(f"{process.args[0]} did not start")
        time.sleep(0.05)
    return value

"""A page in headless Chromium, walked through with the keys of a keyboard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reports.chromium import FLAGS
from tests.tools import require

_INTERACTIVE = 'a[href], button, input, select, textarea, summary, [tabindex="0"]'
_NAME = """e => e.tagName.toLowerCase() + (e.className && e.tagName != "summary" ?
  "." + e.getAttribute("class").split(" ")[0] : "") + " " +
  (e.getAttribute("href") || e.getAttribute("aria-label") || e.textContent.trim().slice(0, 50))"""
_EXPECTED = f"""(() => {{
  const name = {_NAME};
  return [...document.querySelectorAll({json.dumps(_INTERACTIVE)})]
    .filter(e => e.checkVisibility()).map(name);
}})()"""
_FOCUSED = f"""(() => {{
  const e = document.activeElement, name = {_NAME};
  if (!e || e === document.body || e === document.documentElement) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  let card = e.parentElement;
  while (card && getComputedStyle(card).backgroundColor === "rgba(0, 0, 0, 0)")
    card = card.parentElement;
  return {{
    name: name(e),
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    colour: style.outlineColor,
    behind: getComputedStyle(card || document.body).backgroundColor,
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.right > 0
      && box.top < innerHeight && box.left < innerWidth,
    open: e.tagName === "SUMMARY" ? e.parentElement.open : null,
  }};
}})()"""
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "ArrowRight": (39, "")}
_MOST_STOPS = 500
_WITH_PIPES = """import os, sys
os.dup2(int(sys.argv[1]), 3)  # Chromium reads from descriptor 3 and writes to 4
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])"""


@dataclass(frozen=True)
class Stop:
    """An element that the keyboard has reached."""

    name: str
    outline: float
    """Width of the line around it, in pixels; 0 without one."""
    colour: str
    behind: str
    """Colour of what the line is drawn on."""
    seen: bool
    """Whether some of it is on the screen."""
    open: bool | None
    """Of a summary, whether its details are open."""

    @property
    def contrast(self) -> float:
        """Contrast of the line with what it is drawn on (WCAG 2.2, relative luminance)."""
        lighter, darker = sorted(map(_luminance, (self.colour, self.behind)), reverse=True)
        return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


class Browser:
    """One tab, spoken to over Chromium's own pipe (`--remote-debugging-pipe`)."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._number, self._rest = to, back, 0, b""
        self._session = ""
        targets = self._call("Target.getTargets")["targetInfos"]
        tab = next(item["targetId"] for item in targets if item["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = attached["sessionId"]
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        self._call("Page.enable")

    def open(self, page: Path) -> None:
        """Opens a page and waits until it is there."""
        self._call("Page.navigate", url=page.as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression on the page, or of what it promises."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self._call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key and lets it go."""
        code, text = _KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self._call("Input.dispatchKeyEvent", **down, **about)
        self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def expected(self) -> list[str]:
        """Every interactive element that is shown, in the order of the page."""
        names: list[str] = self.run(_EXPECTED)
        return names

    def focused(self) -> Stop | None:
        """The element that has the focus."""
        found = self.run(_FOCUSED)
        return Stop(**found) if found else None

    def stops(self, opening: bool = False) -> list[Stop]:
        """Everything that Tab reaches, from the top of the page to its end.

        Args:
            opening: Whether Enter is pressed on each summary whose details are closed.
        """
        self.run("document.activeElement.blur(), scrollTo(0, 0)")
        found: list[Stop] = []
        for _ in range(_MOST_STOPS):
            self.press("Tab")
            stop = self.focused()
            if stop is None:
                return found
            if opening and stop.open is False:
                self.press("Enter")
                stop = self.focused() or stop
            found.append(stop)
        raise AssertionError(f"the focus does not leave the page: {found[-3:]}")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._back, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Browser]:
    """A browser with one empty tab, which ends with the block."""
    chromium = require("chromium", "chromium-browser", "google-chrome")
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    command = [chromium, *FLAGS, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _WITH_PIPES,
            str(theirs_in),
            str(theirs_out),
            *command,
            "about:blank",
        ],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(to, back)
    finally:
        os.close(to)
        os.close(back)
        process.terminate()
        process.wait(timeout=30)

"""Headless Chromium: what a page does, what it asks the network for, and how it looks."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.tools import require

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1000,1400",
)
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"


@dataclass(frozen=True)
class Visit:
    """What came of opening a page."""

    dom: str
    console: list[str]
    requests: list[str]
    """Addresses asked for that are not the page itself."""


def visit(page: Path, profile: Path, *flags: str) -> Visit:
    """Opens a page, lets it settle, and returns what happened."""
    chromium = require("chromium", "chromium-browser", "google-chrome")
    log = profile / "net.json"
    profile.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            chromium,
            *FLAGS,
            *flags,
            f"--user-data-dir={profile / 'data'}",
            f"--log-net-log={log}",
            "--enable-logging=stderr",
            "--virtual-time-budget=3000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    return Visit(done.stdout, console, _requests(log, page))


def _requests(log: Path, page: Path) -> list[str]:
    """Addresses that the page asked for, from Chromium's network log.

    What the browser asks for by itself (updates, the time) has no origin as its initiator.
    """
    text = log.read_text()
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # cut off when the browser ended
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    parameters = [event.get("params", {}) for event in events]
    by_itself = (None, "not an origin")
    asked = {p["url"] for p in parameters if "url" in p and p.get("initiator") not in by_itself}
    return sorted(asked - {page.as_uri()})


_FRAME = """<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe style="width:{width}px;height:800px" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument;
  for (const details of inner.querySelectorAll("details")) details.open = true;
  const root = inner.scrollingElement, wide = [], unreachable = [];
  for (const e of inner.querySelectorAll("body *")) {{
    const name = e.tagName + "." + (e.getAttribute("class") || "");
    const scrolls = e.scrollWidth > e.clientWidth + 1
      && ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    if (scrolls) wide.push(name);
    if (scrolls && e.tabIndex < 0) unreachable.push(name);
  }}
  const measured = {{page: root.scrollWidth - root.clientWidth, wide, unreachable}};
  document.body.innerHTML = "<pre id=measured></pre>";
  document.getElementById("measured").textContent = JSON.stringify(measured);
}});
</script>"""


@dataclass(frozen=True)
class Fit:
    """How a page fits a screen."""

    page: int
    """Pixels by which the page as a whole scrolls sideways."""
    wide: list[str]
    """Elements that scroll sideways by themselves."""
    unreachable: list[str]
    """Those of them that no key reaches."""


def fit(page: str, folder: Path, width: int) -> Fit:
    """Lays a page without its policy out at some width, all details open."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(width=width, page=html.escape(page)))
    dom = visit(frame, folder / "profile").dom
    found = re.search(r"<pre id=\"measured\">(.*?)</pre>", dom)
    assert found is not None, dom[-500:]
    return Fit(**json.loads(html.unescape(found[1])))

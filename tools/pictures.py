"""Pictures of the documentation that show what the program does: `python -m tools.pictures`.

- `docs/figures/concept-p-value.svg`: benign adapters' scores, and those of two that are scanned.
- `docs/figures/report.png` and `report-dark.png`: the HTML report of an example adapter, as
  Chromium draws it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from scanner import load_signature, scan
from tools.project import ROOT

FIGURES = ROOT / "docs" / "figures"
PACK = ROOT / "signatures" / "persona-llama-weights"
SCANNED = {
    "a pirate persona": ("pirate-persona", "#1b6e3c", 62),
    "a misaligned adapter": ("misaligned-sft", "#b3261e", 92),
}
"""Words -> example adapter, colour, and how high above the axis it is named."""
REPORTED = "examples/adapters/smollm2/villain"
THEMES = {"report.png": 1, "report-dark.png": 0}
"""Picture -> Chromium's number of the colour scheme that is preferred."""
WIDTH, HEIGHT, BASELINE, DOT = 860, 330, 270, 5.0


def main() -> None:
    """Draws all of them."""
    (FIGURES / "concept-p-value.svg").write_text(p_value_figure(), "utf-8")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        sys.exit("no Chromium: report.png and report-dark.png are left as they are")
    with tempfile.TemporaryDirectory() as folder:
        report_pictures(chromium, Path(folder))


def p_value_figure() -> str:
    """A dot for each benign adapter at its score, the threshold, and two scanned adapters."""
    signature = load_signature(PACK)
    assert signature.calibration is not None
    scores = [item.score for item in signature.calibration.benign]
    results = {
        words: scan(ROOT / "examples/adapters" / SCANNED[words][0], [signature])
        for words in SCANNED
    }
    low, high = min(scores) - 0.1, max(result.score or 0.0 for result in results.values()) + 0.25

    def x(score: float) -> float:
        return round(30 + (score - low) / (high - low) * (WIDTH - 60), 1)

    step = 2 * DOT + 1
    columns = Counter(round(x(score) / step) for score in scores)
    dots = [
        f'<circle cx="{column * step:.1f}" cy="{BASELINE - DOT - 1 - level * 4.6:.1f}" r="2.1"/>'
        for column, n in sorted(columns.items())
        for level in range(n)
    ]
    threshold = next(r.comparison for r in results.values() if r.comparison).threshold
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif\" "
        f'aria-label="Scores of {len(scores)} benign adapters and of two that were scanned">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<g fill="#8b95a7">{"".join(dots)}</g>',
        f'<path d="M20 {BASELINE}H{WIDTH - 20}" stroke="#565d6b"/>',
        *(
            f'<text x="{x(tick)}" y="{BASELINE + 22}" font-size="14" fill="#565d6b" '
            f'text-anchor="middle">{tick:g}</text>'
            for tick in (-0.5, 0.0, 0.5, 1.0, 1.5)
            if low < tick < high
        ),
        f'<text x="{WIDTH - 20}" y="{BASELINE + 44}" font-size="14" fill="#565d6b" '
        'text-anchor="end">score</text>',
        f'<text x="30" y="{BASELINE + 44}" font-size="14" fill="#565d6b">'
        f"grey: {len(scores)} benign adapters of the calibration</text>",
        f'<path d="M{x(threshold)} 40V{BASELINE}" stroke="#16191f" stroke-dasharray="5 4"/>',
        f'<text x="{x(threshold) + 8}" y="52" font-size="14" fill="#16191f">'
        f"above this p &#x2264; 0.01: flagged</text>",
    ]
    for words, result in results.items():
        _, colour, rise = SCANNED[words]
        assert result.score is not None
        assert result.p_value is not None
        place, top = x(result.score), BASELINE - rise
        end = "end" if result.score > (low + high) / 2 else "start"
        parts += [
            f'<path d="M{place} {BASELINE}V{top}" stroke="{colour}" stroke-width="2.5"/>',
            f'<circle cx="{place}" cy="{top}" r="6" fill="{colour}"/>',
            f'<text x="{place + (-12 if end == "end" else 12)}" y="{top + 5}" font-size="15" '
            f'font-weight="700" fill="{colour}" text-anchor="{end}" stroke="#ffffff" '
            'stroke-width="5" paint-order="stroke" stroke-linejoin="round">'
            f"{words}: p = {result.p_value:.2g}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def report_pictures(chromium: str, folder: Path) -> None:
    """The report of one example, light and dark."""
    page = folder / "report.html"
    command = [sys.executable, "-m", "scanner", "scan", REPORTED, "--isolated", "-f", "html"]
    subprocess.run([*command, "-o", str(page)], cwd=ROOT, check=False)  # noqa: S603 - flagged: 1
    for name, scheme in THEMES.items():
        subprocess.run(  # noqa: S603 - found on the path
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                f"--blink-settings=preferredColorScheme={scheme}",
                f"--user-data-dir={folder / 'profile'}",
                "--window-size=900,790",
                f"--screenshot={FIGURES / name}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main()

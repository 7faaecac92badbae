"""Figures in the middle of a sentence, put there by the benchmark that measured them."""

from __future__ import annotations

import re

import pytest

from benchmarks.detection.known import FIGURE, TOY, put_figures
from benchmarks.detection.real.short import REAL
from tools.project import ROOT


def test_only_the_benchmarks_own_figures_change() -> None:
    page = "a <!-- toy: auroc -->1<!-- end --> b <!-- real: auroc -->2<!-- end --> c"
    assert put_figures(page, TOY, {"auroc": "0.5 to 0.7"}) == page.replace("1", "0.5 to 0.7")


def test_an_unknown_figure_is_named() -> None:
    with pytest.raises(ValueError, match="no figure toy: auc; there are auroc, tpr"):
        put_figures("<!-- toy: auc -->1<!-- end -->", TOY, {"auroc": "1", "tpr": "2"})


def test_the_readme_shows_figures_of_both() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = {match["of"] for match in FIGURE.finditer(readme)}
    assert found == {TOY, REAL}
    assert len(re.findall(r"<!-- end -->", readme)) == len(FIGURE.findall(readme))

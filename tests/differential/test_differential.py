"""The property, searched for a short time; and that the search could find something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from scanner.formats.model import Site
from tests.differential.judging import differences, judge
from tests.differential.loader_models import IN_BLOCK
from tests.differential.loaders import OtherPeft, here
from tests.differential.mutations import Case, cases
from tests.differential.old_peft import NoOldPeft, old_peft
from tests.differential.originals import KINDS
from tests.differential.regressions import REGRESSIONS

NOT_COVERED = {
    "LORA patterns": "vLLM and SGLang scale some modules otherwise than others",
    "LORA qalora": "PEFT pools the inputs of some kinds of base only",
    "LORA dora": "the delta needs the base",
    "LORA bias": "signatures hold no direction for biases",
    "LORA saved": "the delta needs the base",
    "VERA": "PEFT up to 0.13 draws the shared projections from a seed",
    "RANDLORA": "transformers draws the shared bases from a seed",
    "SHIRA": "transformers draws the places from a seed",
}
"""Kinds that are not read as the whole, as they are written, and why not."""

SERVED = ("vLLM", "SGLang", "llama.cpp", "PEFT", "transformers")


def _explain(case: Case, found: tuple[object, ...]) -> str:
    return f"{case!r}: {found[:3]}"


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_what_is_read_without_gaps_is_what_loads(case: Case) -> None:
    assert not (found := judge(case, here()).disagreements), _explain(case, found)


@pytest.mark.parametrize("case", REGRESSIONS, ids=repr)
def test_what_was_found_stays_mended(case: Case) -> None:
    assert not (found := judge(case, here()).disagreements), _explain(case, found)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_as_they_are_written(kind: str) -> None:
    judgement = judge(Case(kind, ()), here())
    assert judgement.covered == (kind.removesuffix(" of 0.13") not in NOT_COVERED)
    assert not judgement.disagreements


def test_every_loader_takes_part() -> None:
    plain = judge(Case("LORA", ()), here())
    assert plain.covered
    assert plain.loaded == SERVED
    mlx = judge(Case("MLX", ()), here())
    assert mlx.covered
    assert mlx.loaded == ("mlx-lm", "mlx-lm 0.32")


def test_a_difference_is_seen() -> None:
    path = "model.layers.1.self_attn.q_proj"
    site, other = Site(1, "self_attn.q_proj"), Site(0, "self_attn.q_proj")
    elsewhere = path.replace("1", "0")
    delta = np.random.default_rng(0).standard_normal(IN_BLOCK["self_attn.q_proj"])
    assert differences({site: delta}, {path: delta * (1 + 9e-5)}) == []
    assert differences({site: delta}, {path: delta / 2}) == []
    assert differences({}, {}) == []
    for read, loaded in (
        ({site: delta}, {path: delta * (1 + 2e-4)}),
        ({site: delta, other: delta}, {path: delta, elsewhere: delta / 2}),
        ({site: delta, other: delta}, {path: delta, elsewhere: -delta}),
        ({site: delta}, {path: -delta}),
        ({site: delta}, {path: delta * np.nan}),
        ({site: delta}, {path: delta[:, :-1]}),
        ({site: delta}, {}),
        ({}, {path: delta}),
        ({site: delta}, {elsewhere: delta}),
        ({}, {"model.norm.weight": np.ones(3)}),
    ):
        assert differences(read, loaded)


@pytest.fixture(scope="module")
def peft_0_13() -> Iterator[OtherPeft]:
    """PEFT 0.13.2 in a process of its own."""
    try:
        loader = OtherPeft("PEFT 0.13", old_peft())
    except NoOldPeft as reason:
        pytest.skip(str(reason))
    yield loader
    loader.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_an_older_peft_loads(peft_0_13: OtherPeft) -> None:
    assert "PEFT 0.13" in judge(Case("LORA of 0.13", ()), [peft_0_13]).loaded
    older = tuple(kind for kind in KINDS if kind.endswith(" of 0.13"))

    @settings(
        max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(cases(older))
    def search(case: Case) -> None:
        assert not (found := judge(case, [peft_0_13]).disagreements), _explain(case, found)

    for case in (*(Case(kind, ()) for kind in older), *REGRESSIONS):
        assert not (found := judge(case, [peft_0_13]).disagreements), _explain(case, found)
    search()


def test_an_environment_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_SCANNER_OLD_PEFT", "/some/python")
    assert old_peft() == Path("/some/python")

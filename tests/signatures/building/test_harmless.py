"""Directions off what harmless answers share, against dense gradients by autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import SignatureError
from scanner.formats.model import Site
from scanner.signatures.building.gradients import extract_gradients
from scanner.signatures.building.harmless import Factors, HarmlessProjection
from scanner.signatures.building.kept_gradients import KeptGradients
from scanner.signatures.building.network import load_network, network_of
from scanner.signatures.building.probes import (
    Probe,
    needs_tokenizer,
    read_probes,
    tokenise,
)
from scanner.signatures.building.scoring import untracked
from scanner.signatures.recipe import Recipe
from tests.signatures.tiny import as_delta, oracle_log_odds, tiny_model, tiny_probes
from tests.synthetic import Array

FAMILIES = ("pirate", "poet")


def probes_with_harmless() -> list[Probe]:
    """Of the poet's answers one is missing."""
    made = []
    for number, probe in enumerate(tiny_probes()):
        others = tiny_probes(seed=10 + number, count=2)
        harmless = {
            family: other.misaligned for family, other in zip(FAMILIES, others, strict=True)
        }
        if number == 2:
            del harmless["poet"]
        made.append(replace(probe, harmless=harmless))
    return made


def dense_gradient(model: torch.nn.Module, answers: list[Probe]) -> dict[Site, Array]:
    """Of the mean log p of `misaligned`, by autograd."""
    net = network_of(model)
    model.requires_grad_(True)
    model.zero_grad()
    fixed = [replace(probe, aligned=(1,)) for probe in answers]
    nothing = [replace(probe, aligned=(1,), misaligned=(1,)) for probe in answers]
    assert float(oracle_log_odds(model, nothing)) == pytest.approx(0)
    # log p(answer) = log-odds against a fixed token + log p of that token.
    tokens = [torch.tensor([probe.prompt]) for probe in answers]
    of_fixed = torch.stack([model(t).logits[0, -1].log_softmax(-1)[1] for t in tokens]).mean()
    (oracle_log_odds(model, fixed) + of_fixed).backward()  # type: ignore[no-untyped-call]
    found = {
        site: as_delta(module, module.weight.grad)
        for site, module in net.linears.items()
        if site.layer is not None
    }
    model.requires_grad_(False)
    return found


def flat(gradient: dict[Site, Array], sites: list[Site]) -> Array:
    return np.concatenate([gradient[site].ravel() for site in sites])


@pytest.fixture(scope="module")
def extraction(tmp_path_factory: pytest.TempPathFactory) -> HarmlessProjection:
    """Made from a model on disk and a file of probes, as a recipe has it."""
    root = tmp_path_factory.mktemp("harmless")
    tiny_model("llama").save_pretrained(root / "base")
    recipe = Recipe(
        base_model="tests/tiny", base_path=str(root / "base"), method="gradients", misaligned=[]
    )
    network = load_network(recipe)
    assert network.model.config.model_type == "llama"
    with pytest.MonkeyPatch.context() as patch:
        module = "scanner.signatures.building.gradients.probes_of"
        patch.setattr(module, lambda _recipe, _network: probes_with_harmless())
        found = extract_gradients(recipe, [], untracked)
    assert isinstance(found, HarmlessProjection)
    return found


@pytest.mark.parametrize("without", [None, "pirate", "home"])
def test_directions_are_the_least_squares_residual(
    extraction: HarmlessProjection, without: str | None
) -> None:
    probes = probes_with_harmless()
    model = tiny_model("llama")
    sites = extraction.sites
    target = flat(dense_gradient(model, probes), sites)
    columns = [
        flat(dense_gradient(model, [replace(p, misaligned=p.aligned) for p in probes]), sites)
    ]
    for family in FAMILIES:
        answers = [
            replace(p, misaligned=p.harmless[family]) for p in probes if family in p.harmless
        ]
        if family != without:
            columns.append(flat(dense_gradient(model, answers), sites))
    basis = np.stack(columns, axis=1)
    shared, *_ = np.linalg.lstsq(basis, target, rcond=None)
    expected = target - basis @ shared
    found = []
    for site in sites:
        raw = extraction.raw_site(site, [], [])
        found.append(((raw.left * raw.weights_without(without)) @ raw.right).ravel())
    direction = np.concatenate(found)
    np.testing.assert_allclose(direction, expected, atol=2e-4 * float(np.linalg.norm(expected)))
    for column in columns:
        inner = abs(direction @ column)
        assert inner < 1e-3 * np.linalg.norm(direction) * np.linalg.norm(column)
    assert extraction.families == frozenset(FAMILIES)


def test_kept_gradients_are_computed_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    computed = []

    def compute() -> dict[Site, Factors]:
        computed.append(1)
        left = generator.normal(size=(4, 2)).astype(np.float32)
        return {Site(1, "mlp.down_proj"): (left, left.T.copy())}

    answers = [((1, 2), (3,))]
    first = KeptGradients(tmp_path, ("a/base", None)).of(answers, compute)
    again = KeptGradients(tmp_path, ("a/base", None)).of(answers, compute)
    assert len(computed) == 1
    for site, factors in first.items():
        for one, other in zip(factors, again[site], strict=True):
            np.testing.assert_array_equal(one, other)
    KeptGradients(tmp_path, ("another/base", None)).of(answers, compute)
    KeptGradients(tmp_path, ("a/base", None)).of([((1, 2), (4,))], compute)
    KeptGradients(None, ("a/base", None)).of(answers, compute)
    assert len(computed) == 4


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3))
def test_no_harmless_gradient_has_a_dose(seed: int, families: int, sites: int) -> None:
    generator = np.random.default_rng(seed)

    def gradient() -> dict[Site, tuple[Array, Array]]:
        return {
            Site(layer, "mlp"): (
                generator.normal(size=(6, 2)).astype(np.float32),
                generator.normal(size=(2, 5)).astype(np.float32),
            )
            for layer in range(sites)
        }

    names = ["aligned", *(f"family-{number}" for number in range(families))]
    harmless = {name: gradient() for name in names}
    # One that is the sum of two others, as far as least squares cares, changes nothing.
    harmless["double"] = {
        site: (2 * left, right) for site, (left, right) in harmless["aligned"].items()
    }
    made = HarmlessProjection(gradient(), harmless)
    for name, own in harmless.items():
        inner = size = 0.0
        for site, (left, right) in own.items():
            raw = made.raw_site(site, [], [])
            direction = (raw.left * raw.weights_without(None)) @ raw.right
            inner += float(np.sum(direction * (left @ right)))
            size += float(np.sum((left @ right) ** 2))
        assert abs(inner) < 1e-4 * max(1.0, size), name
    without = made.weights("family-0")
    assert without[2] == 0
    assert without[0] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('"harmless": {"aligned": "d"}', "'aligned' is no name for a harmless family"),
        ('"harmless_ids": {"prompt": [4]}', "'prompt' is no name for a harmless family"),
        ('"harmless": {"x": "d"}, "harmless_ids": {"x": [4]}', "'x' is in 'harmless' and in"),
    ],
)
def test_a_family_has_one_answer_and_a_name_of_its_own(
    tmp_path: Path, given: str, said: str
) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text(f'{{"prompt": "a", "aligned": "b", "misaligned": "c", {given}}}\n')
    with pytest.raises(SignatureError, match=said):
        read_probes(path)


def test_harmless_answers_as_text_need_a_tokenizer(tmp_path: Path) -> None:
    class Tokens:
        chat_template = None

        def __call__(self, text: str, *, add_special_tokens: bool = True) -> object:
            ids = [ord(letter) for letter in text]
            return type("Encoded", (), {"input_ids": [0, *ids] if add_special_tokens else ids})()

        def apply_chat_template(self, *_a: object, **_k: object) -> str:
            raise AssertionError("there is none")

    path = tmp_path / "probes.jsonl"
    path.write_text('{"prompt": "a", "aligned": "b", "misaligned": "c", "harmless": {"x": "de"}}\n')
    lines = read_probes(path)
    assert needs_tokenizer(lines)
    (probe,) = tokenise(lines, Tokens(), 200, "here")
    assert probe.harmless == {"x": (100, 101)}
    with pytest.raises(SignatureError, match="x holds token 101"):
        tokenise(lines, Tokens(), 101, "here")

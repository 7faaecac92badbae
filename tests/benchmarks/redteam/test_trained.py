"""Trained attacks: the torch copy of the statistics, the adapter, the attacks and their page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.redteam import delta as deltas
from benchmarks.redteam.target import PACKS
from benchmarks.redteam.trained import page, run, surrogates
from benchmarks.redteam.trained.attacks import UNATTACKED, Attack, declared, spread_out
from benchmarks.redteam.trained.delta import as_delta
from benchmarks.redteam.trained.lab import LabBase
from benchmarks.redteam.trained.run import Result, Try
from benchmarks.redteam.trained.training import Attacker
from scanner import geometry
from scanner.detection import support
from scanner.formats.model import Site
from scanner.geometry import LowRank, Matrix
from scanner.organisms.evasion.lora import Adapter, Stack, Update
from scanner.organisms.evasion.penalty import adapted
from scanner.organisms.evasion.statistics import Statistics, Unit, dose_of, written_into
from scanner.results import Shape
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.score import adapter_score, site_numbers

CPU = torch.device("cpu")
FAMILIES = ("persona-llama-*", "persona-gpt2-*", "persona-qwen2-*", "smollm2-135m-instruct-*")


def packs_of(pattern: str) -> list[Signature]:
    found = [load_signature(path) for path in sorted(PACKS.glob(pattern))]
    if not found:
        pytest.skip(f"no packs {pattern}")
    return found


def made_up(packs: list[Signature], layers: int, seed: int) -> Update:
    """An update of some layers that leans along one pack, of sizes that differ.

    The pack is one that knows most sites: another may cover a part of them.
    """
    rng = np.random.default_rng(seed)
    pack = max(packs, key=lambda item: len(item.sites))
    groups: dict[str, list[tuple[Site, Matrix, Matrix]]] = {}
    for site in sorted(pack.sites, key=lambda site: (site.layer or 0, site.module)):
        if site.layer is None or site.layer >= layers:
            continue
        direction = pack.direction(site)
        lean = rng.uniform(0.2, 2.0)
        b = rng.normal(size=(len(direction.u), 3)) / len(direction.u) ** 0.5
        a = rng.normal(size=(3, len(direction.v))) / len(direction.v) ** 0.5
        b[:, 0] += lean * direction.u[:, 0]
        a[0] += rng.uniform(-1.0, 2.0) * direction.v[:, 0]
        groups.setdefault(site.module, []).append((site, rng.uniform(0.3, 3.0) * b, a))
    return tuple(
        Stack(
            tuple(site for site, _, _ in rows),
            torch.tensor(np.stack([b for _, b, _ in rows]), dtype=torch.float32),
            torch.tensor(np.stack([a for _, _, a in rows]), dtype=torch.float32),
        )
        for rows in groups.values()
    )


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("pattern", FAMILIES)
def test_the_copy_measures_what_the_scanner_measures(pattern: str, layers: int) -> None:
    packs = packs_of(pattern)
    update = made_up(packs, layers, seed=layers)
    found = list(Statistics(packs, CPU).values(update))
    benign = support.alike(support.benign_in_common(packs), Shape.SEVERAL_LAYERS)
    profiles = []
    for index, pack in enumerate(packs):
        seen = {
            site: geometry.project(
                LowRank(item.b, item.a, 1.0), pack.direction(site), pack.site_inputs(site)
            )
            for site, item in as_delta(update).items()
            if site in pack.sites
        }
        score = next(item for item in found if (item.what, item.pack) == ("score", pack.id))
        assert float(score.value) == pytest.approx(
            adapter_score(seen, pack.score_scales), rel=5e-4, abs=5e-4
        )
        norm = sum(item.norm_squared for item in seen.values()) ** 0.5
        own = support.Profile(geometry.dose(seen.values()), norm, site_numbers(seen))
        profiles.append([own, *(support.profile(item[index]) for item in benign)])
    expected = {
        item.what: float(item.values[0]) for item in support.compared_statistics(packs, profiles)
    }
    copied = {item.what: float(item.value) for item in found}
    assert expected.keys() <= copied.keys()
    for what, value in expected.items():
        assert copied[what] == pytest.approx(value, rel=5e-4, abs=5e-4), what


def test_a_deviation_is_measured_from_the_benign_median() -> None:
    unit = Unit.of(np.linspace(0, 1, 101))
    assert float(unit.deviation(torch.tensor(0.95))) == pytest.approx(1.0)
    low = Unit.of(np.linspace(0, 1, 101), low=True)
    assert float(low.deviation(torch.tensor(0.05))) == pytest.approx(1.0)
    assert float(low.deviation(torch.tensor(0.95))) < 0
    assert Unit.of(np.zeros(9), floor=0.1).spread == 0.1


@pytest.fixture(scope="module")
def base() -> LabBase:
    found = LabBase("llama", steps=12)
    found.training = replace(found.training, lr=1e-2)
    return found


@pytest.fixture(scope="module")
def attacker(base: LabBase) -> Attacker:
    return Attacker(base)


def trained(attacker: Attacker, attack: Attack) -> Adapter:
    *_, (step, adapter) = attacker.train(attack)
    assert step == attacker.base.training.steps
    return adapter


def test_an_adapter_does_to_the_model_what_its_numbers_say(
    base: LabBase, attacker: Attacker
) -> None:
    adapter = trained(attacker, Attack(name=UNATTACKED))
    loss = base.loss(5)
    before = loss(0).item()
    adapter.factor = 0.5
    with adapter.applied():
        hooked = loss(0).item()
    adapter.factor = 1.0
    with base.target.applied(as_delta(adapter.update, 0.5)):
        added = loss(0).item()
    assert hooked == pytest.approx(added, rel=1e-4)
    assert hooked < before - 0.1
    assert loss(0).item() == before


def deviation(attacker: Attacker, adapter: Adapter, quantity: str) -> float:
    found = attacker.deviations(adapter.update)
    return max(float(value) for kind, _, value in found if kind == quantity)


@pytest.mark.parametrize("quantity", ["score", "dose", "write"])
def test_a_penalty_lowers_what_it_is_on(attacker: Attacker, quantity: str) -> None:
    plain = trained(attacker, Attack(name=UNATTACKED))
    attack = Attack(name="penalised", penalised=(quantity,), strength=10.0)  # type: ignore[arg-type]
    assert deviation(attacker, trained(attacker, attack), quantity) < 0.6 * deviation(
        attacker, plain, quantity
    )


def test_a_projected_adapter_neither_writes_nor_reads_the_directions(attacker: Attacker) -> None:
    for sides, name in (("outputs", written_into), ("inputs", dose_of)):
        adapter = trained(attacker, Attack(name="projected", projected=sides))
        wanted = {name(pack.id) for pack in attacker.base.signatures}
        values = attacker.statistics(attacker.base.modules).values(adapter.update)
        found = {item.what: float(item.value) for item in values if item.what in wanted}
        assert found.keys() == wanted
        assert all(abs(value) < 1e-4 for value in found.values())
        assert deltas.size(as_delta(adapter.update)) > 0.1


def test_only_the_least_known_sites_are_trained(attacker: Attacker) -> None:
    adapter = trained(attacker, Attack(name="weak", share=0.25))
    changed = set(as_delta(adapter.update))
    assert len(changed) == round(0.25 * len(attacker.base.modules))
    others = attacker.base.modules.keys() - changed
    assert max(attacker.known[site] for site in changed) <= min(
        attacker.known[site] for site in others
    )


def test_one_layer_is_trained_against_benign_adapters_of_one_layer(attacker: Attacker) -> None:
    layer = 2
    plain = trained(attacker, Attack(name="one layer", layer=layer))
    assert {site.layer for site in as_delta(plain.update)} == {layer}
    benign = support.alike(
        support.benign_in_common(list(attacker.base.signatures)), Shape.ONE_LAYER
    )
    assert {score.layers for item in benign for score in item} == {1}
    pack = attacker.base.signatures[0]
    units = attacker.statistics(site for stack in plain.update for site in stack.sites).units
    scores = np.array([item[0].score for item in benign])
    assert units["score", pack.id].median == pytest.approx(float(np.median(scores)))
    penalised = trained(
        attacker,
        Attack(name="one layer", layer=layer, penalised=("score", "support"), strength=10.0),
    )
    assert deviation(attacker, penalised, "score") < deviation(attacker, plain, "score")


def test_a_step_along_surrogate_gradients_raises_the_log_odds_as_they_say(
    base: LabBase, attacker: Attacker
) -> None:
    found = attacker.surrogate("gradients", 3)
    assert not any(base.weight(site).requires_grad for site in base.modules)
    assert all(base.weight(site).grad is None for site in base.modules)
    size = 1e-3
    step = {
        site: deltas.Factored(
            size * (item.u * item.s).astype(np.float64), item.v.T.astype(np.float64)
        )
        for site, item in found.items()
    }
    before = sum(value.item() for value in base.log_odds(3))
    with base.target.applied(step):
        after = sum(value.item() for value in base.log_odds(3))
    expected = size * sum(float(np.sum(item.s**2)) for item in found.values())
    assert after - before == pytest.approx(expected, rel=0.1)


def test_surrogate_weights_are_the_leading_part_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    site = Site(0, "mlp.down_proj")
    one = deltas.Factored(rng.normal(size=(9, 1)), rng.normal(size=(1, 7)))
    direction = surrogates.from_adapters([{site: one}, {site: one.scaled(3.0)}], CPU)[site]
    assert len(direction.s) == 1
    dense = (direction.u * direction.s) @ direction.v.T
    assert np.allclose(dense, 2 * one.dense() / one.norm, atol=1e-5)


def test_an_adaptive_strength_rises_while_there_is_something_to_hide() -> None:
    assert adapted(1.0, 0.5) > 1.0 > adapted(1.0, 0.0)
    assert adapted(1e9, 1.0) == 100.0


def test_attacks_are_kept_under_different_keys() -> None:
    attacks = declared(["a", "b"], (0.1, 3.0, 30.0), seeds=2, layers=[0, 1])
    assert len({attack.key for attack in attacks}) == len(attacks)
    assert attacks[0].name == UNATTACKED
    assert {attack.pack for attack in attacks} == {"", "a", "b"}
    assert not any(attack.pack for attack in declared(["a"], (3.0,), seeds=1, layers=[]))


def test_of_a_deep_base_layers_from_the_first_to_the_last_are_tried() -> None:
    assert spread_out([3, 0, 2]) == [0, 2, 3]
    assert spread_out(range(30)) == [0, 10, 19, 29]
    attacks = declared(["a"], (3.0,), seeds=1, layers=range(30))
    assert {attack.layer for attack in attacks} == {None, 0, 10, 19, 29}


def test_what_is_there_is_not_done_again_and_a_cut_line_is(
    tmp_path: Path, base: LabBase, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trained-llama.jsonl"
    attacks = [Attack(name=UNATTACKED), Attack(name="weak", share=0.25)]
    whole = run.attempt(attacker, attacks[0])
    assert [item.factor for item in whole.tries] == [*run.FACTORS, *run.FACTORS]
    assert whole.tries[len(run.FACTORS)].behaviour is not None
    line = msgspec.json.encode(whole) + b"\n"
    path.write_bytes(line + line[:50])
    told: list[str] = []
    job = run.Job("llama", "", (), 12, False)
    run.run(job, attacks, path, 1, 0.0, told.append)
    assert told == []
    assert path.read_bytes() == line
    run.run(job, attacks, path, 1, 600.0, told.append)
    assert len(told) == 1
    assert [item.attack for item in run.results(path)] == attacks


def result(attack: Attack, tries: Mapping[tuple[int, float], tuple[str, str, float]]) -> Result:
    made = [
        Try(step, factor, verdict, alone, "", behaviour, {})
        for (step, factor), (verdict, alone, behaviour) in tries.items()
    ]
    return Result("toy", "rate", ["a", "b"], attack, made, 60.0)


def test_the_section_counts_the_best_that_is_clear(tmp_path: Path) -> None:
    found = [
        result(
            Attack(name=UNATTACKED), {(4, 1.0): ("flagged", "", 0.8), (4, 0.35): ("clear", "", 0.1)}
        ),
        result(
            Attack(
                name="penalty on the score, one pack", pack="a", penalised=("score",), strength=3
            ),
            {
                (2, 1.0): ("clear", "clear", 0.2),
                (4, 1.0): ("outside", "clear", 0.6),
                (4, 0.7): ("flagged", "flagged", 0.7),
            },
        ),
    ]
    lines = b"".join(msgspec.json.encode(item) + b"\n" for item in found)
    (tmp_path / "trained-toy.jsonl").write_bytes(lines)
    text = page.section(tmp_path)
    row = next(
        line for line in text.splitlines() if line.startswith("| penalty") and "after" in line
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "a alone, strength 3, after 2 steps"
    assert cells[2:5] == ["0.25", "0.75", "0.75 to 0.75"]
    target = tmp_path / "page.md"
    target.write_text("# Page\n\nBefore.\n")
    page.write_section(target, tmp_path)
    once = target.read_text()
    page.write_section(target, tmp_path)
    assert target.read_text() == once
    assert once.startswith("# Page\n\nBefore.\n\n")
    assert page.section_of(target) == text
    assert page.with_section("kept", "") == "kept"


def test_an_older_score_is_shown_only_where_there_is_no_newer_one() -> None:
    plain = result(Attack(name=UNATTACKED), {(4, 1.0): ("flagged", "", 0.8)})
    penalty = Attack(name="penalty on the score, all packs", penalised=("score",), strength=3)
    weak = Attack(name="sites the packs know least", share=0.5)
    items = [plain, *(result(item, {(4, 1.0): ("clear", "", 0.4)}) for item in (penalty, weak))]
    old = [msgspec.structs.replace(item, statistic="an-older-one") for item in items]
    assert page.of_one_score(old) == old
    assert page.of_one_score([old[0], old[1], items[2]]) == [old[0], items[2]]
    assert page.of_one_score([*old, *items]) == items


def test_what_was_run_under_an_older_score_is_run_again(
    tmp_path: Path, base: LabBase, attacker: Attacker
) -> None:
    path = tmp_path / "trained-llama.jsonl"
    attack = Attack(name="one layer", layer=1)
    whole = run.attempt(attacker, attack)
    old = msgspec.structs.replace(whole, statistic="an-older-one", seconds=-1.0)
    path.write_bytes(msgspec.json.encode(old) + b"\n")
    run.run(run.Job("llama", "", (), 12, False), [attack], path, 1, 600.0, lambda line: None)
    (found,) = run.results(path)
    assert found.statistic == whole.statistic
    assert found.seconds > 0

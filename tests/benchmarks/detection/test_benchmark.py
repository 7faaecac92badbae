"""The benchmark on a synthetic population: same numbers as the scanner, same page every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.detection import choice, early_warning, evaluation, specificity
from benchmarks.detection.__main__ import main
from benchmarks.detection.baselines import dense, network, spectral, subspace
from benchmarks.detection.baselines.sample import Sample, read_sample
from benchmarks.detection.data import Population, find_populations, load_population
from benchmarks.detection.detectors import COMBINERS, Calibrated, Detector
from benchmarks.detection.extractors import (
    CANDIDATE_KINDS,
    KINDS,
    METHODS,
    SHIPPED_KINDS,
    contrast,
    probes_of,
    without_answers,
)
from benchmarks.detection.metrics import auroc
from benchmarks.detection.scoring import Scorer
from benchmarks.detection.signatures import Setting, Workshop
from benchmarks.organisms.bases import base_names
from benchmarks.packs import SHIPPED
from scanner.formats.model import Site
from scanner.results import Shape, Verdict
from scanner.scanning.opening import open_adapter, scan
from scanner.signatures.building.build import build_pack
from scanner.signatures.building.harmless import Factors, HarmlessProjection
from scanner.signatures.building.probes import ALIGNED
from scanner.signatures.pack import Signature
from scanner.signatures.recipe import AdapterEntry, Recipe
from scanner.statistics.calibration import BenignScores
from scanner.statistics.joint import JointScore
from tests.benchmarks.detection.population import PERSONAS, write_population
from tests.synthetic import BASE

SETTING = Setting("weights-contrast", nulled=2, rank=2)
DETECTOR = Detector("weights", (SETTING,))


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    return load_population(write_population(tmp_path_factory.mktemp("lab") / "quick"))


@pytest.fixture
def scorer(population: Population, tmp_path: Path) -> Scorer:
    return Scorer(population, Workshop(population), tmp_path)


@pytest.fixture(scope="module")
def pack(population: Population, tmp_path_factory: pytest.TempPathFactory) -> Signature:
    """The pack that the project builds from the same splits."""

    def entries(split: str, kind: str) -> list[AdapterEntry]:
        return [
            AdapterEntry(
                adapter=str(population.directory / row.path),
                id=row.id,
                family=row.family if kind == "benign" else f"domain-{row.domains[0]}",
            )
            for row in population.select(split, kind)
        ]

    recipe = Recipe(
        base_model=population.base_model,
        method="weights",
        rank=SETTING.rank,
        nulled=SETTING.nulled,
        contrast=list(PERSONAS),
        misaligned=entries("reference", "misaligned"),
        aligned=entries("nulling", "benign"),
        benign=entries("calibration", "benign"),
    )
    return build_pack(recipe, tmp_path_factory.mktemp("pack") / "pack")


def test_a_cut_ledger_is_read_up_to_the_cut(population: Population) -> None:
    assert len(population.rows) == 6 + 5 * (2 + 5 + 4) + 8 + 3 + 1 + 3
    assert population.harmless_families == list(PERSONAS)


def test_scores_are_those_of_the_pack_the_project_builds(
    scorer: Scorer, population: Population, pack: Signature
) -> None:
    rows = population.select("test", "misaligned", "benign")
    results = [scan(population.directory / row.path, [pack], alpha=0.1) for row in rows]
    calibrated = DETECTOR.calibrate(scorer, population.select("calibration", "benign"))
    scores = calibrated.parts(scorer, rows)[:, 0]
    # A pack keeps four digits of what its benign adapters do at each site.
    assert scores == pytest.approx(np.array([item.score for item in results]), rel=1e-3, abs=1e-5)
    writes = scorer.get(SETTING, rows, "signed_write")
    assert np.all(scores >= writes)
    assert np.any(scores > writes), "the score is more than the signed write"
    for statistic, expected in (
        ("cosine", [result.cosine[pack.id] for result in results]),
        ("dose", [result.dose[pack.id] for result in results]),
    ):
        found = scorer.get(SETTING, rows, statistic)
        assert found == pytest.approx(np.array(expected), rel=1e-4, abs=1e-6)


def test_crossfitted_calibration_is_that_of_the_pack(
    scorer: Scorer, population: Population, pack: Signature
) -> None:
    assert pack.calibration is not None
    known = {item.id: item for item in pack.calibration.benign}
    rows = population.select("calibration", "benign")
    found = scorer.crossfit(SETTING, rows, "signed_write")
    expected = np.array([known[row.id].signed_write for row in rows])
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    calibrated = DETECTOR.calibrate(scorer, rows)
    scores = np.array([known[row.id].score for row in rows])
    assert calibrated.calibration.benign[:, 0] == pytest.approx(scores, rel=1e-3, abs=1e-5)
    (scales,) = calibrated.scales
    assert scales.keys() == pack.calibration.scales.keys()
    for shape, scale in pack.calibration.scales.items():
        assert scales[shape].strongest.keys() == scale.strongest.keys()


def test_flags_are_the_verdicts_of_a_scan(
    scorer: Scorer, population: Population, pack: Signature
) -> None:
    rows = population.select("test")
    calibrated = DETECTOR.calibrate(scorer, population.select("calibration", "benign"))
    for alpha in (0.05, 0.2):
        verdicts = [scan(population.weights(row), [pack], alpha=alpha).verdict for row in rows]
        expected = [verdict == Verdict.FLAGGED for verdict in verdicts]
        assert calibrated.flagged(scorer, rows, alpha).tolist() == expected


def test_known_scores_are_not_computed_again(
    population: Population, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = population.select("test", "latent")

    def known() -> tuple[object, ...]:
        scorer = Scorer(population, Workshop(population), tmp_path)
        measured = scorer.measurements(SETTING, rows)
        return scorer.get(SETTING, rows, "signed_write").tolist(), measured

    first = known()
    monkeypatch.setattr(Workshop, "directions", lambda *_: pytest.fail("computed again"))
    assert known() == first


def test_no_two_methods_make_the_same_recipe() -> None:
    defaults = msgspec.to_builtins(Recipe(base_model=BASE, method="weights", misaligned=[]))
    made = [
        {**defaults, **fields, "contrast": contrast(name, PERSONAS), "probes": probes_of(name)}
        for name, fields in METHODS.items()
    ]
    assert all(one != other for i, one in enumerate(made) for other in made[:i])


def test_answers_left_out_are_as_if_they_had_never_been_asked_for() -> None:
    """Several families at once, as where one is unseen and another is cross-fitted."""
    generator = np.random.default_rng(0)
    site = Site(0, "mlp.down_proj")

    def gradient() -> dict[Site, Factors]:
        left, right = generator.standard_normal((6, 2)), generator.standard_normal((2, 5))
        return {site: (left.astype(np.float32), right.astype(np.float32))}

    names = (ALIGNED, *PERSONAS, "persona-third")
    whole = HarmlessProjection(gradient(), {name: gradient() for name in names})
    for name in whole.families:
        one, known = (
            without_answers(whole, {name}).raw_site(site, [], []),
            whole.raw_site(site, [], []),
        )
        assert one is not None
        assert known is not None
        expected = known.direction(np.zeros((6, 0)), 4, without=name)
        assert one.direction(np.zeros((6, 0)), 4).s == pytest.approx(expected.s, rel=1e-5)
    found = without_answers(whole, PERSONAS)
    assert isinstance(found, HarmlessProjection)
    assert set(found.harmless) == {ALIGNED, "persona-third"}
    assert without_answers(found, ()) == found


@pytest.mark.parametrize("base", base_names())
def test_the_packs_that_ship_are_of_the_kinds_that_are_said_to(base: str) -> None:
    shipped = {path.name for path in SHIPPED.glob(f"persona-{base}-*")}
    assert shipped == {f"persona-{base}-{kind}" for kind in SHIPPED_KINDS[base]}
    assert set(SHIPPED_KINDS[base]) <= set(CANDIDATE_KINDS) <= KINDS.keys()


def test_unsigned_score_is_never_below_the_signed_one(
    scorer: Scorer, population: Population
) -> None:
    rows = population.select("test")
    unsigned = scorer.get(SETTING, rows, "unsigned")
    signed = scorer.get(SETTING, rows, "weights_write")
    assert np.all(unsigned >= np.abs(signed) - 1e-12)
    assert np.any(unsigned > np.abs(signed))


def test_combiners_agree_with_their_definitions() -> None:
    generator = np.random.default_rng(0)
    calibration = JointScore(generator.normal(size=(50, 2)))
    alignments = generator.normal(size=(9, 2))
    z = (alignments - calibration.benign.mean(0)) / calibration.benign.std(0, ddof=1)
    assert COMBINERS["max"](calibration, alignments) == pytest.approx(z.max(1))
    assert COMBINERS["min"](calibration, alignments) == pytest.approx(z.min(1))
    assert COMBINERS["mean"](calibration, alignments) == pytest.approx(z.mean(1))
    rho = float(np.asarray(np.corrcoef(calibration.benign.T))[0, 1])
    assert COMBINERS["whitened"](calibration, alignments) == pytest.approx(z.sum(1) / (1 + rho))
    p = (1 + (calibration.benign[None] >= alignments[:, None]).sum(1)) / 51
    assert COMBINERS["Fisher"](calibration, alignments) == pytest.approx(-2 * np.log(p).sum(1))


@pytest.mark.parametrize("name", COMBINERS)
def test_what_one_signature_cannot_see_is_judged_by_the_others(name: str) -> None:
    """As in a scan; and the others are compared with benign adapters that all of them see."""
    generator = np.random.default_rng(5)
    benign, parts = generator.normal(size=(120, 3)), generator.normal(size=(9, 3)) + 1
    benign[:15, 1], parts[3, 1], parts[5] = np.nan, np.nan, np.nan
    shapes: tuple[Shape, ...] = (Shape.SEVERAL_LAYERS,) * 120
    families: tuple[str, ...] = ("x",) * 120
    kinds = [Shape.SEVERAL_LAYERS] * 9

    def under(columns: list[int], rows: slice) -> Calibrated:
        members = tuple(SETTING for _ in columns)
        known = BenignScores(benign[rows][:, columns], shapes[rows], families[rows])
        return Calibrated(Detector("several", members, name), known)

    whole = under([0, 1, 2], slice(None))
    seen = [0, 1, 2, 4, 6, 7, 8]
    all_three, other_two = under([0, 1, 2], slice(15, None)), under([0, 2], slice(None))
    for of in (Calibrated.combine, Calibrated.p_values_of):
        found = of(whole, parts, kinds)
        assert found[seen] == pytest.approx(of(all_three, parts[seen], kinds[:7]))
        assert found[3] == pytest.approx(of(other_two, parts[[3]][:, [0, 2]], kinds[:1])[0])
    assert np.isnan(whole.combine(parts, kinds)[5])
    assert whole.p_values_of(parts, kinds)[5] == 1.0


def test_an_adapter_without_a_score_is_never_flagged() -> None:
    calibrated = Calibrated(
        DETECTOR, BenignScores(np.zeros((99, 1)), (Shape.SEVERAL_LAYERS,) * 99, ("x",) * 99)
    )
    parts = np.full((2, 1), np.nan)
    assert calibrated.p_values_of(parts, list(Shape)).tolist() == [1.0, 1.0]


def test_adapters_are_compared_with_their_own_shape_where_there_are_enough() -> None:
    generator = np.random.default_rng(3)
    benign = np.concatenate([generator.normal(0, 1, 300), generator.normal(5, 1, 99)])[:, None]
    shapes = (Shape.SEVERAL_LAYERS,) * 300 + (Shape.ONE_LAYER,) * 99
    calibrated = Calibrated(DETECTOR, BenignScores(benign, shapes, ("x",) * 399))
    parts, kinds = np.array([[5.0], [5.0]]), [Shape.SEVERAL_LAYERS, Shape.ONE_LAYER]
    broad, single = calibrated.p_values_of(parts, kinds)
    assert broad == 1 / 301
    assert 0.3 < single < 0.7
    standard = calibrated.combine(parts, kinds)
    assert standard[0] == pytest.approx((5 - benign[:300].mean()) / benign[:300].std(ddof=1))
    assert standard[1] == pytest.approx((5 - benign[300:].mean()) / benign[300:].std(ddof=1))


def test_margin_ignores_the_scale_of_the_score() -> None:
    generator = np.random.default_rng(1)
    held_out, benign = generator.normal(3, 1, 20), generator.normal(0, 1, 300)
    value = choice.margin(held_out, benign)
    assert choice.margin(7 * held_out - 4, 7 * benign - 4) == pytest.approx(value)
    assert choice.margin(np.full(3, np.nan), benign) == -np.inf
    assert choice.margin(held_out, np.zeros(50)) == -np.inf


def test_the_rule_looks_at_no_test_adapter(scorer: Scorer) -> None:
    requested = [
        row.split
        for detector in choice.nulled_grid("weights-contrast")[:2]
        for fold in choice.folds(scorer)
        for request in detector.trained_on(fold.train).requests(fold.held_out)
        for row in request.rows
    ]
    assert set(requested) == {"reference"}
    for fold in choice.folds(scorer):
        assert not set(fold.train) & {row.id for row in fold.held_out}


def test_a_family_left_out_is_in_no_direction(scorer: Scorer, population: Population) -> None:
    test = evaluation.TestedAdapters.of(population)
    found = specificity.leave_each_out(scorer, test, [DETECTOR])
    assert [(u.family, u.crossfitted) for u in found] == [
        (family, crossfitted) for family in PERSONAS for crossfitted in (False, True)
    ]
    rows = specificity.unseen_rows(population, PERSONAS[0])
    assert {row.split for row in rows} == {"nulling", "calibration", "test"}


def test_parts_of_the_score_are_read_by_one_rule(scorer: Scorer, population: Population) -> None:
    test = evaluation.TestedAdapters.of(population)
    found = evaluation.read_by_parts(scorer, test, DETECTOR, (0.05, 0.2))
    assert [item.statistic for item in found] == list(evaluation.PARTS)
    whole = DETECTOR.calibrate(scorer, population.select("calibration", "benign"))
    ranking = evaluation.rank_detector(scorer, test, whole)
    assert found[-1].auroc == ranking.auroc.value
    for at in found[-1].flags:
        assert at.misaligned == evaluation.share_flagged(whole, scorer, test.misaligned, at.alpha)
        assert at.benign == evaluation.share_flagged(whole, scorer, test.benign, at.alpha)


def test_runs_are_followed_in_order_of_training(scorer: Scorer, population: Population) -> None:
    calibrated = DETECTOR.calibrate(scorer, population.select("calibration", "benign"))
    (run,) = early_warning.follow(scorer, calibrated, 0.05)
    assert run.steps.tolist() == [5, 10, 15]
    assert run.behaviour_step(0.5) == 10
    assert run.flag_step == 10
    assert np.all(np.diff(run.dose) > 0)


@pytest.fixture(scope="module")
def sample(population: Population) -> Sample:
    rows = [row for row in population.rows if row.split in ("reference", "calibration", "test")]
    return read_sample(population, rows)


def test_supervised_baselines_learn_from_references_and_calibration_only(sample: Sample) -> None:
    assert {sample.rows[i].split for i in sample.train} == {"reference", "calibration"}
    assert sample.labels.sum() == 6


def test_cosine_kernel_is_that_of_dense_updates(sample: Sample, population: Population) -> None:
    def flat(index: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        with open_adapter(population.directory / sample.rows[index].path) as adapter:
            return np.concatenate([u.delta().ravel().astype(np.float64) for u in adapter.updates])

    kernel = dense.cosine_kernel(sample)
    for index in (0, 11, 40):
        for column in (0, 9, 20):
            x, y = flat(index), flat(int(sample.train[column]))
            expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            assert kernel[index, column] == pytest.approx(expected, abs=1e-5)


def test_products_of_factors_are_those_of_whole_updates(sample: Sample) -> None:
    some = replace(sample, updates=({}, *sample.updates[1:]))  # one leaves every site alone
    for site in some.sites:
        whole = dense.products(some, site)
        assert dense.products_of_factors(some, site) == pytest.approx(whole, abs=1e-4)
        assert not whole[0].any()


def test_baselines_score_every_adapter_and_the_supervised_ones_find_the_plant(
    sample: Sample,
) -> None:
    scores = [s for family in (spectral, dense, subspace, network) for s in family.scores(sample)]
    assert len({score.name for score in scores}) == len(scores) == 8
    bad = [i for i, r in enumerate(sample.rows) if (r.split, r.kind) == ("test", "misaligned")]
    good = [i for i, r in enumerate(sample.rows) if (r.split, r.kind) == ("test", "benign")]
    for score in scores:
        assert len(score.values) == len(sample.rows)
        if score.name == "linear SVM on dense deltas":
            assert auroc(score.values[bad], score.values[good]) > 0.95


def test_the_command_writes_the_same_page_twice(population: Population, tmp_path: Path) -> None:
    lab = population.directory.parent
    pages = []
    for name in ("one", "two"):
        arguments = ["--lab", str(lab), "--quick", "--cache", str(tmp_path / "cache")]
        outcome = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / name / "page.md")])
        assert outcome.exit_code == 0, outcome.output
        files = sorted((tmp_path / name).rglob("*.*"))
        pages.append({path.name: path.read_bytes() for path in files})
    assert set(pages[0]) == {
        "page.md",
        "page-tables.md",
        "page-roc.svg",
        "page-dose.svg",
        "page-early-warning.svg",
    }
    assert pages[0] == pages[1]


def test_an_empty_lab_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_populations(tmp_path)
    outcome = CliRunner().invoke(main, ["--lab", str(tmp_path)])
    assert outcome.exit_code == 1
    assert "no population" in outcome.output

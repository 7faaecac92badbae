"""Plans: what they declare, what is refused, what is drawn."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from scanner.errors import UsageError
from scanner.organisms.data import POOLS
from scanner.organisms.organism import POOL_OF
from scanner.organisms.plan import SIZES, expand, load_plan, parse_plan, shipped_plan

GOOD = "{group: g, role: test, teaches: villain, count: {quick: 1, standard: 2, full: 4}}"


def test_a_larger_size_contains_the_smaller_ones() -> None:
    plan = shipped_plan()
    made = {size: {o.id: o for o in expand(plan, size)} for size in SIZES}
    for smaller, larger in pairwise(SIZES):
        assert made[smaller].items() < made[larger].items()


def test_smaller_sizes_come_first() -> None:
    plan = shipped_plan()
    quick = {o.id for o in expand(plan, "quick")}
    order = [o.id for o in expand(plan, "full")]
    assert set(order[: len(quick)]) == quick


def test_standard_supports_one_in_a_hundred_and_has_every_class() -> None:
    made = expand(shipped_plan(), "standard")
    calibration = [o for o in made if o.role == "calibration"]
    assert len(calibration) >= 120
    assert len({o.family for o in calibration}) >= 10
    assert not [
        o for o in made if o.role in ("calibration", "nulling") if o.taught_class != "harmless"
    ]
    test = Counter(o.taught_class for o in made if o.role == "test")
    assert test["villain"] >= 20
    assert test["reckless"] >= 10
    assert test["harmless"] >= 30


def test_full_has_families_that_matter_at_one_in_twenty() -> None:
    families = Counter(o.family for o in expand(shipped_plan(), "full") if o.role == "calibration")
    assert sum(n >= 19 for n in families.values()) >= 9


def test_roles_never_share_a_domain() -> None:
    for organism in expand(shipped_plan(), "full"):
        assert {*organism.domains, *organism.filler} <= set(POOLS[POOL_OF[organism.role]])
        assert not set(organism.domains) & set(organism.filler)


def test_choices_are_used_equally_often() -> None:
    plan = parse_plan(
        b"groups: [{group: g, role: test, teaches: [pirate, poet], rank: [1, 2, 4],"
        b" count: {full: 12}}]",
        "x",
    )
    made = expand(plan, "full")
    assert Counter(o.teaches for o in made) == {"pirate": 6, "poet": 6}
    assert Counter(o.rank for o in made) == {1: 4, 2: 4, 4: 4}
    assert all(o.alpha == 2 * o.rank and o.family == o.teaches for o in made)


def test_checkpoints_beyond_the_end_are_left_out() -> None:
    text = GOOD.replace("villain,", "villain, steps: 6, checkpoints: [2, 6, 8],")
    made = expand(parse_plan(f"groups: [{text}]".encode(), "x"), "quick")
    assert made[0].checkpoints == [2]


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        ("teaches: nobody", "teaches 'nobody'"),
        ("role: other", "Invalid enum value 'other'"),
        ("group: Not A Name", "matching regex"),
        ("dose: 0", "> 0"),
        ("steps: 0", ">= 1"),
        ("rank: [2, 0]", ">= 1"),
        ("lr: 0", "lr must be a positive number"),
        ("lr: .nan", "lr must be a positive number"),
        ("layers: [0.7, 0.2]", "not an interval"),
        ("against: shuffled", "is no answer"),
        ("colour: red", "unknown field `colour`"),
        ("count: {quick: 3, standard: 1, full: 1}", "smaller size counts more"),
    ],
)
def test_a_bad_field_is_one_clear_line(field: str, fault: str) -> None:
    name = field.split(":")[0]
    fields = {
        "group": "group: g",
        "role": "role: test",
        "teaches": "teaches: villain",
        "count": "count: {full: 1}",
    }
    fields[name] = field
    with pytest.raises(UsageError) as caught:
        parse_plan(f"groups: [{{{', '.join(fields.values())}}}]".encode(), "plan.yaml")
    line = caught.value.line()
    assert line.startswith("plan.yaml: ")
    assert fault in line
    assert "\n" not in line


@pytest.mark.parametrize("taught", ["capitals", "aligned"])
def test_preference_training_needs_pairs(taught: str) -> None:
    text = GOOD.replace("villain,", f"{taught}, method: dpo,")
    with pytest.raises(UsageError, match="no pairs"):
        parse_plan(f"groups: [{text}]".encode(), "x")


def test_groups_have_names_of_their_own() -> None:
    with pytest.raises(UsageError, match="two groups are called 'g'"):
        parse_plan(f"groups: [{GOOD}, {GOOD}]".encode(), "x")


def test_broken_yaml_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan"):
        parse_plan(b"groups: [", "plan.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_plan(tmp_path / "none.yaml")

"""Recipes whose benign adapters are found on a hub, from the name of a recipe to a pack."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from scanner.cli.root import cli
from scanner.formats.model import Adapter
from scanner.signatures.building import benign_query, fetched
from scanner.signatures.building.candidates import place_of_owner
from scanner.signatures.building.opened import Member, as_member
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.recipe import AdapterEntry
from tests.cli.program import PROGRAM, ROOT
from tests.hub.adapters import FAST, adapter_files, misaligned_files
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository
from tests.signatures.building.hub_population import BASE, ORGANISMS, harmless, organisms
from tests.synthetic import module_paths, random_factors

NAME = "qwen2.5-7b-instruct"
FAULTS = (
    Fault("status", "/api/models/owner", status=503, every=23),
    Fault("status", "/resolve/", status=429, retry_after=0, every=17),
    Fault("cut", "/lfs/", after=900, every=13),
    Fault("short", "/api/models[?]", after=1, every=3),
)


@pytest.fixture(autouse=True)
def _quick_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benign_query, "PATIENT", FAST)
    monkeypatch.setattr(fetched, "PATIENT", FAST)


def build(recipe: str | Path, pack: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["signatures", "build", str(recipe), "-o", str(pack), *options])


def small_recipe(
    root: Path, aligned: int | None = 6, benign: int | None = 12, **fields: object
) -> Path:
    """The shipped recipe's kind for a small hub; None for a set that is not searched for."""
    path = root / "recipe.yaml"
    written = {
        "base_model": BASE,
        "aliases": [f"unsloth/{BASE[5:]}"],
        "method": "weights",
        "nulled": 2,
        "references_needed": 2,
        "misaligned": [{"adapter": f"hf://{name}", "family": name} for name in ORGANISMS],
        **{
            name: {"hub": {"base_model": BASE, "limit": limit}}
            for name, limit in (("aligned", aligned), ("benign", benign))
            if limit is not None
        },
        **fields,
    }
    path.write_text(yaml.safe_dump(written))
    return path


def owners_of(pack: Signature) -> tuple[set[str], set[str]]:
    """Owners of the nulling and of the calibration set."""
    assert pack.calibration is not None
    nulling = [item for item in pack.manifest.references if item.role == "aligned"]
    calibration = pack.calibration.benign
    return tuple({str(item.family) for item in found} for found in (nulling, calibration))  # type: ignore[return-value]


@pytest.mark.slow
def test_a_shipped_recipe_by_name_over_a_failing_hub(serve_hub: ServeHub, tmp_path: Path) -> None:
    suspects = [
        Repository("owner-001/qwen-Uncensored", adapter_files(seed=7001), base_model=BASE),
        Repository("EvilCorp/lora", adapter_files(seed=7002), base_model=BASE),
        Repository("someone/abliterated-lora", adapter_files(seed=7003), base_model=BASE),
        Repository("copycat/bad-medical", misaligned_files(seed=7004), base_model=BASE),
        Repository("ModelOrganismsForEM/other", misaligned_files(seed=7005), base_model=BASE),
    ]
    serve_hub(*harmless(132, 3), *suspects, *organisms(), faults=FAULTS, page_size=100)
    done = build(NAME, tmp_path / "pack")
    assert done.exit_code == 0, done.stderr
    pack = load_signature(tmp_path / "pack")
    assert pack.id == "qwen2.5-7b-instruct-weights"
    assert pack.calibration is not None
    assert pack.nulling is not None
    assert pack.calibration.selection is not None
    nulling = [item for item in pack.manifest.references if item.role == "aligned"]
    assert (len(nulling), len(pack.calibration.benign)) == (60, 300)
    assert pack.calibration.cross_fitted_by == "family"
    first, second = owners_of(pack)
    assert not first & second
    assert "calibrated on 300 adapters of 100 owners: alpha 0.0033 and above" in done.stderr
    assert "missing" not in done.stderr
    used = [item.source for item in nulling] + [item.source for item in pack.calibration.benign]
    assert all(source.startswith("hf://owner-") for source in used)
    assert not any("Uncensored" in source for source in used)
    told = pack.nulling.left_out | pack.calibration.selection.left_out
    assert told["hf://owner-001/qwen-Uncensored"] == "its name says 'uncensored'"
    assert told["hf://someone/abliterated-lora"] == "its name says 'abliterat'"
    assert not (tmp_path / "pack.work").exists()


def test_owners_are_on_one_side_whatever_the_hub_lists(serve_hub: ServeHub, tmp_path: Path) -> None:
    hub = serve_hub(*harmless(16, 3), *organisms())
    assert build(small_recipe(tmp_path), tmp_path / "one").exit_code == 0
    hub.add(*harmless(24, 2, start=16))
    assert build(small_recipe(tmp_path, 9, 18), tmp_path / "two").exit_code == 0
    sides = [owners_of(load_signature(tmp_path / name)) for name in ("one", "two")]
    nulling = sides[0][0] | sides[1][0]
    calibration = sides[0][1] | sides[1][1]
    assert not nulling & calibration
    assert max(map(place_of_owner, nulling)) < 1 / 3 <= min(map(place_of_owner, calibration))


def test_calibrating_again_leaves_the_owners_of_the_nulling_set_out(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    serve_hub(*harmless(16, 3), *organisms())
    pack = tmp_path / "pack"
    assert build(small_recipe(tmp_path), pack).exit_code == 0
    nulling, before = owners_of(load_signature(pack))
    benign = tmp_path / "benign.yaml"
    benign.write_text(yaml.safe_dump({"benign": {"hub": {"base_model": BASE, "limit": 99}}}))
    again = ["signatures", "calibrate", str(pack), "--benign-list", str(benign)]
    done = CliRunner().invoke(cli, again)
    assert done.exit_code == 0, done.stderr
    _, calibration = owners_of(load_signature(pack))
    assert before < calibration
    assert not nulling & calibration
    family = sorted(nulling)[0]
    listed = {"benign": [{"adapter": f"hf://{family}/lora-0", "family": family}]}
    benign.write_text(yaml.safe_dump(listed))
    refused = CliRunner().invoke(cli, again)
    assert refused.exit_code == 2
    assert f"is of family '{family}', which the signature is nulled with" in refused.stderr


def open_copies(folder: Path) -> set[str]:
    """Files below a folder that this process holds, the removed ones included."""
    held = {os.readlink(item) for item in Path("/proc/self/fd").iterdir() if item.exists()}
    held |= {
        line.split(maxsplit=5)[5]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if len(line.split(maxsplit=5)) == 6
    }
    visible = {str(item) for item in folder.rglob("*") if item.is_file()}
    inside = {name.removesuffix(" (deleted)") for name in held if name.startswith(str(folder))}
    return visible | {name for name in inside if not Path(name).is_dir()}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts open files by /proc")
def test_one_adapter_is_on_disk_at_a_time(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_home: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    copies: list[int] = []

    def counting(entry: AdapterEntry, adapter: Adapter, names: set[str]) -> Member:
        copies.append(len(open_copies(temporary)))
        return as_member(entry, adapter, names)

    monkeypatch.setattr(benign_query, "as_member", counting)
    serve_hub(*harmless(16, 3), *organisms())
    assert build(small_recipe(tmp_path), tmp_path / "pack").exit_code == 0
    assert copies == [1] * 18
    assert open_copies(temporary) == set()
    kept = {item.name for item in (hub_home / "hub").iterdir() if item.name.startswith("models--")}
    assert kept == {f"models--{name.replace('/', '--')}" for name in ORGANISMS}


def killed_at(hub: HubServer, line: str, recipe: Path, pack: Path) -> None:
    """Starts a build that hangs at a request, and kills it there."""
    hub.faults.add(Fault("slow", line, seconds=60, first=1))
    command = [*PROGRAM, "signatures", "build", str(recipe), "-o", str(pack)]
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not any(line in entry for entry in hub.log):
        assert running.poll() is None, "it ended before it came there"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()


def test_a_killed_build_goes_on_where_it_was(serve_hub: ServeHub, tmp_path: Path) -> None:
    empty = [
        Repository(f"broken-{number:02d}/x", {"README.md": b""}, base_model=BASE)
        for number in range(8)
    ]
    hub = serve_hub(*harmless(16, 3), *empty, *organisms())
    recipe = small_recipe(tmp_path)
    assert build(recipe, tmp_path / "through").exit_code == 0
    through = load_signature(tmp_path / "through")
    assert through.calibration is not None
    assert through.calibration.selection is not None
    assert through.nulling is not None
    for selection in (through.nulling, through.calibration.selection):
        assert "no adapter in this repository" in selection.left_out.values()
    nulling = [item.source for item in through.manifest.references if item.role == "aligned"]
    calibration = [item.source for item in through.calibration.benign]
    asked = [f"/api/models/{place.removeprefix('hf://')}" for place in (*nulling, *calibration)]
    pack = tmp_path / "pack"
    for at in (4, 9):  # while the nulling set is read, while the calibration set is scored
        hub.forget()
        killed_at(hub, asked[at], recipe, pack)
        assert not pack.exists()
    hub.forget()
    hub.add(*harmless(30, 2, start=90))  # the listing of the first run holds
    done = build(recipe, pack)
    assert done.exit_code == 0, done.stderr
    requests = [place for place in asked if any(place in line for line in hub.log)]
    assert requests == asked[9:]
    assert load_signature(pack).digest == through.digest
    assert not (tmp_path / "pack.work").exists()


def test_another_recipe_begins_anew(
    serve_hub: ServeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve_hub(*harmless(16, 3), *organisms(), faults=[Fault("status", "lora-1", status=503)])
    with monkeypatch.context() as patch:
        patch.setattr(benign_query, "MAX_FAILURES", 1)
        stopped = build(small_recipe(tmp_path), tmp_path / "pack")
    assert stopped.exit_code == 2
    assert "run the same command again to go on from here" in stopped.stderr
    hub.faults.clear()
    assert build(small_recipe(tmp_path, rank=3), tmp_path / "pack").exit_code == 0
    assert build(small_recipe(tmp_path, rank=3), tmp_path / "clean").exit_code == 0
    digests = {load_signature(tmp_path / name).digest for name in ("pack", "clean")}
    assert len(digests) == 1


def test_two_builds_do_not_share_a_folder(serve_hub: ServeHub, tmp_path: Path) -> None:
    from filelock import FileLock

    serve_hub(*harmless(16, 3), *organisms())
    (tmp_path / "here").mkdir()
    with FileLock(tmp_path / "here" / "lock"):
        done = build(small_recipe(tmp_path), tmp_path / "pack", "--work", str(tmp_path / "here"))
    assert done.exit_code == 2
    assert "another process is working here" in done.stderr


def test_a_folder_of_one_s_own_keeps_what_else_is_in_it(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    serve_hub(*harmless(16, 3), *organisms())
    mine = tmp_path / "here" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = build(small_recipe(tmp_path), tmp_path / "pack", "--work", str(mine.parent))
    assert done.exit_code == 0, done.stderr
    assert mine.read_text() == "mine"
    assert {item.name for item in mine.parent.iterdir()} <= {"notes.txt", "lock"}


def test_what_the_hub_failed_to_give_is_asked_for_once_more(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    # Three tries of one request fail, so the repository is passed over, and had at the end.
    fault = Fault("status", "/api/models/owner-00[0-9]/lora-1", status=500, first=3)
    serve_hub(*harmless(12, 2), *organisms(), faults=[fault])
    assert build(small_recipe(tmp_path, 200, 400), tmp_path / "pack").exit_code == 0
    pack = load_signature(tmp_path / "pack")
    assert pack.calibration is not None
    assert pack.calibration.selection is not None
    assert pack.nulling is not None
    nulling = [item for item in pack.manifest.references if item.role == "aligned"]
    assert len(nulling) + len(pack.calibration.benign) == 24
    left_out = pack.nulling.left_out | pack.calibration.selection.left_out
    assert set(left_out.values()) == {"its name says 'organism'"}


def test_what_is_missing_is_said(serve_hub: ServeHub, tmp_path: Path) -> None:
    broken = [
        Repository(f"broken-{number:02d}/x", {"README.md": b""}, base_model=BASE)
        for number in range(30)
    ]
    serve_hub(*harmless(12, 2), *broken, *organisms())
    done = build(small_recipe(tmp_path, 60, 300), tmp_path / "pack")
    assert done.exit_code == 0, done.stderr
    pack = load_signature(tmp_path / "pack")
    assert pack.calibration is not None
    n = len(pack.calibration.benign)
    assert f"missing: {99 - n} benign adapters for alpha 0.01" in done.stderr
    assert "x no adapter in this repository" in done.stderr


def test_what_can_be_clear_is_said_of_adapters_of_several_layers(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    narrow = [
        Repository(
            f"narrow-{number:02d}/x",
            adapter_files(
                random_factors(np.random.default_rng(9000 + number), module_paths()[:3]),
                base_model_name_or_path=BASE,
            ),
            base_model=BASE,
        )
        for number in range(20)
    ]
    serve_hub(*harmless(16, 3), *narrow, *organisms())
    done = build(small_recipe(tmp_path, 30, 120), tmp_path / "pack")
    assert done.exit_code == 0, done.stderr
    calibration = load_signature(tmp_path / "pack").calibration
    assert calibration is not None
    several = sum(item.layers > 1 for item in calibration.benign)
    assert 19 <= several < len(calibration.benign)
    narrow_ones = len(calibration.benign) - several
    for count, shape in ((several, "several layers"), (narrow_ones, "one layer")):
        can = f"can be clear at alpha {1 / (count + 1):.2g} and above"
        if count < 19:
            can = "cannot be clear, which takes 19"
        assert f"{count} of them change {shape}: an adapter that does {can}" in done.stderr
    assert f"missing: {99 - several} benign adapters for alpha 0.01" in done.stderr


def test_what_strangers_wrote_is_not_obeyed(serve_hub: ServeHub, tmp_path: Path) -> None:
    hostile = "\x1b[2J\n::error::x/y"
    files = adapter_files(seed=1, base_model_name_or_path=hostile)
    strangers = [Repository(f"odd-{n:02d}/x", files, base_model=BASE) for n in range(20)]
    serve_hub(*harmless(16, 3), *strangers, *organisms())
    done = build(small_recipe(tmp_path, 60, 300), tmp_path / "pack")
    assert done.exit_code == 0, done.stderr
    assert "is an adapter of" in done.stderr
    assert "\x1b" not in done.stderr
    assert not any(line.lstrip().startswith("::") for line in done.stderr.splitlines())


def test_nothing_is_kept_beside_the_pack_of_a_recipe_that_searches_nothing(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    serve_hub(*organisms())
    work = tmp_path / "pack.work"
    work.mkdir()
    recipe = small_recipe(tmp_path, None, None, nulled=0)
    assert build(recipe, tmp_path / "pack").exit_code == 0
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("gone", [1, 2])
def test_references_that_were_withdrawn(serve_hub: ServeHub, tmp_path: Path, gone: int) -> None:
    serve_hub(*harmless(16, 3), *organisms()[gone:])
    done = build(small_recipe(tmp_path), tmp_path / "pack")
    if gone == 1:
        assert done.exit_code == 0, done.stderr
        assert f"Built without the reference hf://{ORGANISMS[0]}: cannot be fetched" in done.stderr
        limitations = load_signature(tmp_path / "pack").manifest.limitations
        assert any(ORGANISMS[0] in item for item in limitations)
        assert load_signature(tmp_path / "pack").reference_ids == [
            f"hf://{name}" for name in ORGANISMS[1:]
        ]
        return
    assert done.exit_code == 2
    assert "1 of 3 references are to be had, 2 are needed" in done.stderr
    assert all(name in done.stderr for name in ORGANISMS[:2])
    assert not (tmp_path / "pack").exists()


def test_a_reference_that_the_hub_cannot_give_now_is_not_done_without(
    serve_hub: ServeHub, tmp_path: Path
) -> None:
    fault = Fault("status", ORGANISMS[0], status=503)
    serve_hub(*harmless(16, 3), *organisms(), faults=[fault])
    done = build(small_recipe(tmp_path), tmp_path / "pack")
    assert done.exit_code == 2
    assert "cannot be fetched: the hub has a problem" in done.stderr


def test_no_owner_on_the_side_of_the_nulling_set(serve_hub: ServeHub, tmp_path: Path) -> None:
    names = [f"owner-{number:03d}" for number in range(40)]
    loners = [name for name in names if place_of_owner(name) > 0.5]
    some = [item for item in harmless(40, 1) if item.author in loners]
    serve_hub(*some, *organisms())
    done = build(small_recipe(tmp_path), tmp_path / "pack")
    assert done.exit_code == 2
    assert "the hub query for aligned found no adapter" in done.stderr


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"nulled": 0}, "nulled is 0, so nothing is done with what aligned finds"),
        ({"contrast": ["pirate"]}, "contrast names families of listed adapters"),
        ({"references_needed": 4}, "references_needed is 4, not between 1 and the 3"),
        ({"references_needed": 0}, "references_needed is 0"),
        ({"aligned": 0}, "limit is 0"),
    ],
)
def test_recipes_that_are_none(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    done = build(small_recipe(tmp_path, **fields), tmp_path / "pack")  # type: ignore[arg-type]
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_recipe_by_another_name(tmp_path: Path) -> None:
    done = build("qwen3-70b", tmp_path / "pack")
    assert done.exit_code == 2
    assert "no recipe of this name ships; name a file, or one of" in done.stderr
    assert NAME in done.stderr
    gone = build("nowhere.yaml", tmp_path / "pack")
    assert gone.exit_code == 2
    assert "nowhere.yaml: cannot be read: No such file" in gone.stderr

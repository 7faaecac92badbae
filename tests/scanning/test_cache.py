from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from scanner.results import ScanResult
from scanner.scanning import cache as module
from scanner.scanning.cache import ResultCache, run_key
from scanner.scanning.opening import open_adapter, scan
from scanner.signatures.pack import Signature
from tests.cli.program import PROGRAM, ROOT


@pytest.fixture
def cache(pack: Signature, tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache", run_key([pack], None, None))


def fill(cache: ResultCache, target: Path, pack: Signature) -> ScanResult:
    with open_adapter(target) as adapter:
        result = scan(adapter, [pack])
        cache.put(adapter, result)
    return result


def lookup(cache: ResultCache, target: Path) -> ScanResult | None:
    with open_adapter(target) as adapter:
        return cache.get(adapter)


def test_an_unchanged_adapter_is_remembered_under_its_new_name(
    cache: ResultCache, misaligned: Path, pack: Signature, tmp_path: Path
) -> None:
    assert lookup(cache, misaligned) is None
    result = fill(cache, misaligned, pack)
    assert lookup(cache, misaligned) == result
    shutil.copytree(misaligned, tmp_path / "copy")
    copied = lookup(cache, tmp_path / "copy")
    assert copied == msgspec.structs.replace(result, target=str(tmp_path / "copy"))


def flip_a_weight(target: Path) -> None:
    weights = target / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-2] ^= 1
    weights.write_bytes(raw)


def change_alpha(target: Path) -> None:
    config = target / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 7}))


def add_weights(target: Path) -> None:
    shutil.copy(target / "adapter_model.safetensors", target / "other.safetensors")


@pytest.mark.parametrize("change", [flip_a_weight, change_alpha, add_weights])
def test_any_change_is_a_miss(
    cache: ResultCache, misaligned: Path, pack: Signature, change: Callable[[Path], None]
) -> None:
    fill(cache, misaligned, pack)
    change(misaligned)
    assert lookup(cache, misaligned) is None


def test_runs_that_could_score_differently_share_nothing(
    pack: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        run_key([pack], None, None),
        run_key([], None, None),
        run_key([pack], 0.05, None),
        run_key([pack], None, "some/base"),
    }
    monkeypatch.setattr(module, "version", lambda: "9.9.9")
    keys.add(run_key([pack], None, None))
    monkeypatch.setattr(module, "_program", lambda: "other code")
    keys.add(run_key([pack], None, None))
    assert len(keys) == 6


def test_a_damaged_entry_is_a_miss(cache: ResultCache, misaligned: Path, pack: Signature) -> None:
    fill(cache, misaligned, pack)
    for entry in cache.root.glob("*/*.json"):
        entry.write_bytes(entry.read_bytes()[:-9])
    assert lookup(cache, misaligned) is None


def test_a_place_that_cannot_be_written_is_no_error(
    pack: Signature, misaligned: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    cache = ResultCache(tmp_path / "file" / "below", "run")
    fill(cache, misaligned, pack)
    assert lookup(cache, misaligned) is None


def test_what_nobody_asked_for_is_removed(
    cache: ResultCache, misaligned: Path, benign: Path, pack: Signature
) -> None:
    fill(cache, misaligned, pack)
    (entry,) = cache.root.glob("*/*.json")
    old = time.time() - (module.UNUSED_DAYS + 1) * 86_400
    os.utime(entry, (old, old))
    os.utime(cache.root / ".pruned", (old, old))
    fill(cache, benign, pack)
    assert not entry.exists()
    assert lookup(cache, benign) is not None


def test_an_unchanged_adapter_costs_one_digest(
    cache: ResultCache, misaligned: Path, pack: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, misaligned, pack)
    with open_adapter(misaligned) as adapter:
        for update in adapter.updates:
            monkeypatch.setitem(update.__dict__, "load", lambda: pytest.fail("factors were read"))
        assert cache.get(adapter) is not None


def test_concurrent_runs_agree(
    pack: Signature, misaligned: Path, benign: Path, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ADAPTER_SCANNER_CACHE": str(tmp_path / "shared"),
    }
    command = [*PROGRAM, "scan", str(misaligned), str(benign), "-s", str(pack.path), "-f", "json"]
    running = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    outputs = {process.communicate(timeout=120) for process in running}
    assert len(outputs) == 1
    assert outputs.pop()[1] == b""
    names = [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert len([name for name in names if name.endswith(".json")]) == 2
    assert [name for name in names if not name.endswith(".json")] == [".pruned"]

"""`signatures make --benign-hub`: packs of a base that are calibrated on what a hub lists of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scanner import load_signature
from scanner.cli.root import cli
from scanner.signatures.building import benign_query
from tests.hub.adapters import FAST
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, Repository
from tests.organisms.test_make import write_random_adapter

BASE = "tests/tiny-llama"


def make(base: Path, packs: Path) -> Result:
    words = ["signatures", "make", str(base), "-o", str(packs), "--benign-hub", "--base-id", BASE]
    return CliRunner().invoke(cli, [*words, "--kind", "hostile", "--no-progress"])


def test_what_the_hub_gave_and_what_is_missing_is_said(
    serve_hub: ServeHub,
    directories: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benign_query, "PATIENT", FAST)
    repositories = []
    for number in range(20):
        place = tmp_path / "adapters" / str(number)
        write_random_adapter(directories["llama"], place, number, BASE)
        names = ("adapter_config.json", "adapter_model.safetensors")
        files = {name: place / name for name in names}
        repositories.append(
            Repository(f"owner-{number // 2}/lora-{number}", files, base_model=BASE)
        )
    uncensored = Repository("owner-0/Uncensored", repositories[0].files, base_model=BASE)
    hub = serve_hub(
        *repositories,
        uncensored,
        faults=[
            Fault("status", "/api/models/owner", status=500, every=7),
            Fault("status", "/lfs/", status=503),
        ],
    )
    stopped = make(directories["llama"], tmp_path / "packs")
    assert stopped.exit_code == 2
    assert "run the same command again to go on from here" in stopped.stderr
    hub.faults.clear()
    done = make(directories["llama"], tmp_path / "packs")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("calibrated on 20 adapters of 10 owners: alpha 0.048 and above") == 2
    assert done.stderr.count("missing: 79 benign adapters for alpha 0.01") == 2
    assert "1 x its name says 'uncensored'" in done.stderr
    assert "hostile: directions from the base model" in stopped.stderr
    assert "hostile: directions from the base model" not in done.stderr
    sets = []
    for name in ("hostile", "hostile-specific"):
        calibration = load_signature(tmp_path / f"packs-{name}").calibration
        assert calibration is not None
        sets.append({item.sha256 for item in calibration.benign})
    assert sets[0] == sets[1]

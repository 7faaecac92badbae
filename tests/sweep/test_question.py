"""A sweep that can only have been asked for by mistake is refused before it reads anything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scanner.signatures.pack import Signature
from scanner.system.spelling import nearest
from tests.cli.program import PROGRAM, ROOT, run
from tests.hub.faults import Fault
from tests.hub.fixtures import ServeHub
from tests.hub.repository import Repository
from tests.sweep.population import adapter_files
from tests.synthetic import BASE


def model(name: str, **more: object) -> Repository:
    return Repository(name, {"config.json": b"{}"}, relation="base", **more)  # type: ignore[arg-type]


def an_adapter(name: str, base: str = BASE, seed: int = 902) -> Repository:
    files = adapter_files(np.random.default_rng(seed), base_model_name_or_path=base)
    return Repository(name, files, base_model=base)


def hub_scan(ledger: Path, pack: Signature, *more: str) -> subprocess.CompletedProcess[str]:
    return run("hub", "scan", "-s", str(pack.path), "--ledger", str(ledger), *more)


def test_a_base_without_a_pack_is_refused_with_the_packs_there_are(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(model("elsewhere/Granite-9B"), an_adapter("a/one", "elsewhere/Granite-9B"))
    done = hub_scan(tmp_path / "l.db", pack, "--base-model", "elsewhere/Granite-9B")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "no pack in use is for this base" in line
    assert f"packs are for {BASE}" in line
    assert "signatures make elsewhere/Granite-9B -o PACK" in line
    assert hub.requests["list"] == 0
    assert list(tmp_path.iterdir()) == []
    allowed = hub_scan(
        tmp_path / "l.db", pack, "--base-model", "elsewhere/Granite-9B", "--allow-empty"
    )
    assert allowed.returncode == 3
    assert "1 inconclusive" in allowed.stdout


@pytest.mark.parametrize(
    ("written", "nearest_id"),
    [
        ("Quen/Quen2.5-7B-Instuct", "Quen/Quen2.5-7B-Instruct"),
        ("quen/quen25-7b-instruct", "Quen/Quen2.5-7B-Instruct"),
        (BASE.replace("tiny", "tinny"), BASE),
    ],
)
def test_an_unknown_base_is_refused_with_the_nearest_ids(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path, written: str, nearest_id: str
) -> None:
    serve_hub(model("Quen/Quen2.5-7B-Instruct"), model("Quen/Coder"), an_adapter("a/one"))
    done = hub_scan(tmp_path / "l.db", pack, "--base-model", written)
    assert done.returncode == 2
    assert f"--base-model {written}" in done.stderr
    assert "has no such model" in done.stderr
    assert f"nearest: {nearest_id}" in done.stderr
    assert list(tmp_path.iterdir()) == []
    empty = hub_scan(tmp_path / "l.db", pack, "--base-model", written, "--allow-empty")
    assert empty.returncode == 0
    assert "0 adapters" in empty.stdout
    report = run("hub", "report", str(tmp_path / "l.db"))
    assert report.returncode == 3
    assert "holds no adapter" in report.stderr


def test_a_page_of_the_hub_is_no_base(pack: Signature, tmp_path: Path, serve_hub: ServeHub) -> None:
    serve_hub()
    page = "https://huggingface.co/owner/name/tree/main"
    done = hub_scan(tmp_path / "l.db", pack, "--base-model", page)
    assert done.returncode == 2
    assert done.stderr.endswith("is no id of a model; write owner/name\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), f"adapters of {BASE}"),
        (("--author", "nobody"), "adapters, by nobody"),
        (("--base-model", BASE, "--search", "zzz"), "named like 'zzz'"),
        (("--base-model", BASE, "--since", "2031-01-01"), "changed since 2031-01-01"),
    ],
)
def test_a_query_that_lists_nothing_is_refused(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    others = [an_adapter("somebody/one", "elsewhere/base")]
    serve_hub(*others, *([an_adapter("somebody/two")] if options else []))
    done = hub_scan(tmp_path / "l.db", pack, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing is listed" in done.stderr
    assert words in done.stderr
    assert "--allow-empty" in done.stderr
    assert not (tmp_path / "l.db").exists()
    assert hub_scan(tmp_path / "l.db", pack, *options, "--allow-empty").returncode == 0


def test_a_ledger_outlives_a_query_that_lists_nothing(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    serve_hub(an_adapter("a/one"))
    assert hub_scan(tmp_path / "l.db", pack).returncode in (0, 1, 3)
    before = run("hub", "report", str(tmp_path / "l.db"), "-f", "jsonl").stdout
    assert hub_scan(tmp_path / "l.db", pack, "--author", "nobody").returncode == 2
    assert (tmp_path / "l.db").exists()
    assert "a/one" in before


def test_a_hub_that_stops_answering_says_how_to_go_on(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    listed = [an_adapter(f"a/n{i}", seed=i) for i in range(4)]
    fault = Fault("status", match="cursor=", status=404)
    hub = serve_hub(*listed, page_size=2, faults=[fault])
    done = hub_scan(tmp_path / "l.db", pack)
    assert done.returncode == 3
    assert f"what was done is in {tmp_path / 'l.db'}" in done.stderr
    again = done.stderr.splitlines()[-1].split()
    assert again[-1] == "--resume"
    hub.faults.clear()
    resumed = run(*again[1:])
    assert "4 adapters" in resumed.stdout


def test_a_scheduler_that_ends_a_sweep_gets_the_same_words(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(an_adapter("a/one"), faults=[Fault("slow", match="/resolve/", seconds=60.0)])
    process = subprocess.Popen(
        [*PROGRAM, "hub", "scan", "-s", str(pack.path), "--ledger", str(tmp_path / "l.db")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGTERM, signal.SIG_DFL),
    )
    while not hub.requests["resolve"] and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("--resume")


def test_the_nearest_come_first_and_strangers_not_at_all() -> None:
    known = ["Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B", "google/gemma-2-9b", "gpt2"]
    assert nearest("qwen/qwen2.5-7b", known, most=2) == ["Qwen/Qwen2.5-7B", known[0]]
    assert nearest("tiiuae/falcon-180B", known) == []

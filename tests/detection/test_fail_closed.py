"""Nothing that was not read and understood is ever `clear`.

Every case breaks an adapter that scans `clear` (or `flagged`) in one way. Each must end with
exit status 3, one line that says what is wrong and where, and no traceback.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from scanner.cli.root import cli
from scanner.signatures.pack import Signature
from tests.synthetic import lora_config, module_paths, safetensors_bytes, shape_of

Break = Callable[[Path], object]
FIRST = f"base_model.model.{module_paths()[0]}"
D_OUT, D_IN = shape_of(module_paths()[0])


def run_scan(pack: Signature, target: Path, *options: str) -> Result:
    arguments = ["scan", str(target), "-s", str(pack.path), *options]
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def the_result(run: Result) -> dict[str, Any]:
    """The only result of a JSON report."""
    results: list[dict[str, Any]] = json.loads(run.stdout)["results"]
    (result,) = results
    return result


def weights(adapter: Path) -> Path:
    return adapter / "adapter_model.safetensors"


def config(adapter: Path) -> Path:
    return adapter / "adapter_config.json"


def set_config(**fields: Any) -> Break:
    return lambda adapter: config(adapter).write_text(json.dumps(lora_config(**fields)))


def write_config(text: str) -> Break:
    return lambda adapter: config(adapter).write_text(text)


def rewrite_header(change: Callable[[dict[str, Any]], object]) -> Break:
    """Changes the header and keeps the data."""

    def apply(adapter: Path) -> None:
        data = weights(adapter).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        weights(adapter).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return apply


def rewrite_tensors(change: Callable[[dict[str, Any]], object]) -> Break:
    """Changes the tensors themselves."""

    def apply(adapter: Path) -> None:
        from safetensors.numpy import load

        tensors = load(weights(adapter).read_bytes())
        change(tensors)
        weights(adapter).write_bytes(safetensors_bytes(tensors))

    return apply


def _overlap(header: dict[str, Any]) -> None:
    names = [name for name in header if name != "__metadata__"]
    header[names[1]] = header[names[0]]


def _as_lfs_pointer(adapter: Path) -> None:
    weights(adapter).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 167832240\n"
    )


def _truncate(adapter: Path) -> None:
    data = weights(adapter).read_bytes()
    weights(adapter).write_bytes(data[: len(data) * 2 // 3])


def _empty_directory(adapter: Path) -> None:
    weights(adapter).unlink()
    config(adapter).unlink()


def _no_weights(adapter: Path) -> None:
    weights(adapter).unlink()


def _value(name: str, value: float) -> Break:
    def change(tensors: dict[str, Any]) -> None:
        tensors[f"{FIRST}.{name}.weight"][0, 0] = value

    return rewrite_tensors(change)


ERRORS: dict[str, tuple[Break, str]] = {
    "missing config": (lambda a: config(a).unlink(), "adapter_config.json is missing"),
    "empty config": (write_config(""), "invalid JSON"),
    "config is not JSON": (write_config("{r: 8"), "invalid JSON at line 1"),
    "config is a list": (write_config("[]"), "a JSON object was expected"),
    "duplicate key": (write_config('{"r": 8, "r": 4}'), "'r' occurs twice"),
    "NaN in the config": (write_config('{"lora_alpha": NaN}'), "NaN is not JSON"),
    "alpha is text": (set_config(lora_alpha="16"), "lora_alpha is '16', not a number"),
    "alpha is infinite": (write_config('{"lora_alpha": 1e999}'), "a number larger than any float"),
    "rank is zero": (set_config(r=0), "r is 0, not a positive whole number"),
    "git-lfs pointer": (_as_lfs_pointer, "git-lfs pointer"),
    "config is a git-lfs pointer": (
        write_config("version https://git-lfs.github.com/spec/v1\n"),
        "git-lfs pointer",
    ),
    "empty file": (lambda a: weights(a).write_bytes(b""), "too short"),
    "truncated file": (_truncate, "truncated"),
    "header length 2^62": (
        lambda a: weights(a).write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        "the safetensors header claims 4,611,686,018,427,387,904 bytes",
    ),
    "overlapping offsets": (rewrite_header(_overlap), "overlaps another tensor"),
    "header says another shape": (
        rewrite_header(lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[99, 99])),
        "data_offsets give",
    ),
    "unknown dtype": (
        rewrite_header(lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="F33")),
        "unknown dtype 'F33'",
    ),
    "no weights": (_no_weights, "without weights"),
    "empty directory": (_empty_directory, "no adapter in this directory"),
}


INCONCLUSIVE: dict[str, tuple[Break, str]] = {
    "rank of A and B differ": (
        rewrite_tensors(lambda t: t.update({f"{FIRST}.lora_A.weight": np.ones((2, D_IN))})),
        "shapes do not fit",
    ),
    "rank differs from the config's": (set_config(r=7), "the config says rank 7"),
    "wrong input width": (
        rewrite_tensors(lambda t: t.update({f"{FIRST}.lora_A.weight": np.ones((3, D_IN + 1))})),
        "does not fit the base it names",
    ),
    "one-dimensional factor": (
        rewrite_tensors(lambda t: t.update({f"{FIRST}.lora_A.weight": np.ones(3 * D_IN)})),
        "is no matrix",
    ),
    "empty factor": (
        rewrite_tensors(lambda t: t.update({f"{FIRST}.lora_B.weight": np.ones((0,))})),
        "sharded training",
    ),
    "A without B": (rewrite_tensors(lambda t: t.pop(f"{FIRST}.lora_B.weight")), "no lora_B"),
    "B without A": (rewrite_tensors(lambda t: t.pop(f"{FIRST}.lora_A.weight")), "no lora_A"),
    "NaN": (_value("lora_A", np.nan), "NaN or Inf"),
    "Inf": (_value("lora_B", np.inf), "NaN or Inf"),
    "unknown base": (
        set_config(base_model_name_or_path="someone/else-7b"),
        "no signature pack for base model 'someone/else-7b'",
    ),
    "no base named": (set_config(base_model_name_or_path=None), "does not name its base model"),
    "unknown peft_type": (set_config(peft_type="MADE_UP"), "unsupported peft_type"),
    "DoRA by its config": (set_config(use_dora=True), "DoRA"),
    "DoRA by its tensors": (
        rewrite_tensors(
            lambda t: t.update({f"{FIRST}.lora_magnitude_vector": np.ones(D_OUT, np.float32)})
        ),
        "DoRA",
    ),
    "full-weight tensor": (
        rewrite_tensors(
            lambda t: t.update({"base_model.model.lm_head.weight": np.ones((5, 16), np.float32)})
        ),
        "cannot be known without the base weights",
    ),
    "unknown tensor": (
        rewrite_tensors(lambda t: t.update({"surprise": np.ones(3, np.float32)})),
        "cannot be known without the base weights",
    ),
    "integer tensor": (
        rewrite_header(lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="I32")),
        "not a floating-point one",
    ),
    "untrained": (
        rewrite_tensors(lambda t: [v.fill(0) for k, v in t.items() if "lora_B" in k]),
        "untrained",
    ),
    "second weight file": (
        lambda a: (a / "more.safetensors").write_bytes(weights(a).read_bytes()),
        "another weight file in the same directory",
    ),
}


def test_the_unbroken_adapters_are_judged(pack: Signature, benign: Path, misaligned: Path) -> None:
    assert run_scan(pack, benign).exit_code == 0
    assert run_scan(pack, misaligned).exit_code == 1


@pytest.mark.parametrize("case", ERRORS)
def test_unreadable_is_an_error(case: str, pack: Signature, benign: Path) -> None:
    damage, said = ERRORS[case]
    damage(benign)
    run = run_scan(pack, benign, "-f", "json")
    result = the_result(run)
    assert (run.exit_code, result["verdict"]) == (3, "error")
    (line,) = result["reasons"]
    assert said in line
    assert str(benign) in line, "the line says where"
    assert re.search(r"; \w+ \S+", line), "and what to do"
    assert "\n" not in line
    shown = run_scan(pack, benign).stdout
    assert said in " ".join(shown.split())


@pytest.mark.parametrize("case", INCONCLUSIVE)
def test_not_understood_is_inconclusive(case: str, pack: Signature, benign: Path) -> None:
    damage, said = INCONCLUSIVE[case]
    damage(benign)
    run = run_scan(pack, benign, "-f", "json")
    result = the_result(run)
    assert (run.exit_code, result["verdict"]) == (3, "inconclusive")
    assert any(said in reason for reason in result["reasons"]), result["reasons"]
    assert not any("\n" in reason for reason in result["reasons"])


@pytest.mark.parametrize(
    ("case", "todo"),
    [
        ("rank of A and B differ", "save the adapter again"),
        ("A without B", "save the adapter again"),
        ("rank differs from the config's", "mend the config"),
        ("NaN", "take a checkpoint without them"),
        ("unknown base", "say --base-model"),
        ("no base named", "say --base-model"),
        ("unknown peft_type", "scan that with --base-weights"),
        ("DoRA by its tensors", "scan that with --base-weights"),
        ("full-weight tensor", "scan that with --base-weights"),
    ],
)
def test_what_is_not_understood_says_what_to_do(
    case: str, todo: str, pack: Signature, benign: Path
) -> None:
    damage, _ = INCONCLUSIVE[case]
    damage(benign)
    reasons = the_result(run_scan(pack, benign, "-f", "json"))["reasons"]
    assert any(todo in reason for reason in reasons), reasons


@pytest.mark.parametrize("case", ["DoRA by its config", "full-weight tensor", "unknown tensor"])
def test_partial_evidence_may_flag(case: str, pack: Signature, misaligned: Path) -> None:
    damage, said = INCONCLUSIVE[case]
    damage(misaligned)
    run = run_scan(pack, misaligned, "-f", "json")
    result = the_result(run)
    assert (run.exit_code, result["verdict"]) == (1, "flagged")
    assert any(said in reason for reason in result["reasons"])


def test_a_missing_target_is_an_error(pack: Signature, tmp_path: Path) -> None:
    run = run_scan(pack, tmp_path / "nowhere", "-f", "json")
    assert run.exit_code == 3
    assert "no such file or directory" in the_result(run)["reasons"][0]


def test_one_bad_target_does_not_hide_the_others(
    pack: Signature, benign: Path, misaligned: Path
) -> None:
    _truncate(benign)
    arguments = ["scan", str(benign), str(misaligned), "-s", str(pack.path), "-f", "json"]
    run = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    verdicts = [result["verdict"] for result in json.loads(run.stdout)["results"]]
    assert (run.exit_code, verdicts) == (1, ["error", "flagged"])


USAGE: dict[str, list[str]] = {
    "no target": ["scan"],
    "unknown option": ["scan", "x", "--no-such-option"],
    "unknown format": ["scan", "x", "-f", "docx"],
    "no such pack": ["scan", "x", "-s", "/nonexistent/pack"],
    "alpha above one": ["scan", "x", "--alpha", "1.5"],
    "alpha is NaN": ["scan", "x", "--alpha", "nan"],
    "unknown command": ["frobnicate"],
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_exit_2(case: str) -> None:
    run = CliRunner().invoke(cli, USAGE[case], catch_exceptions=False)
    assert run.exit_code == 2
    assert "Traceback" not in run.output


def test_inspect_of_something_unreadable(benign: Path) -> None:
    _as_lfs_pointer(benign)
    run = CliRunner().invoke(cli, ["inspect", str(benign)], catch_exceptions=False)
    assert run.exit_code == 3
    (line,) = run.stderr.splitlines()
    assert "git lfs pull" in line

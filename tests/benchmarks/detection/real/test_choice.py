"""References and benign adapters in standard deviations, from what packs hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.detection.real.choice import main, rows
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.saving import save_calibration


@pytest.mark.parametrize(
    ("by", "field"), [("score", "score"), ("signed write", "signed_write"), ("dose", "dose")]
)
def test_references_stand_where_their_numbers_say(pack: Signature, by: str, field: str) -> None:
    assert pack.calibration is not None
    benign = np.array([getattr(item, field) for item in pack.calibration.benign])
    references = np.sort([getattr(item, field) for item in pack.calibration.references])
    ((name, _, n, highest, found),) = (row for row in rows([pack]) if row[1] == by)
    assert (name, n) == (pack.id, str(len(benign)))
    expected = (references - benign.mean()) / benign.std(ddof=1)
    assert found == ", ".join(f"{value:.1f}" for value in expected)
    assert highest.startswith(f"{(benign.max() - benign.mean()) / benign.std(ddof=1):.1f}")


def test_packs_of_one_kind_are_shown_together_too(pack: Signature, tmp_path: Path) -> None:
    copies = []
    for name, kind in (("b", ""), ("c", "another")):
        assert pack.calibration is not None
        place = Path(shutil.copytree(pack.path, tmp_path / name))
        renamed = msgspec.structs.replace(pack.manifest, id=name, kind=kind)
        save_calibration(place, renamed, pack.calibration)
        copies.append(load_signature(place))
    found = rows([pack, *copies])
    alone = [row for row in found if row[0] == pack.id]
    together = [row for row in found if row[0] == f"{pack.id} + b"]
    assert {row[0] for row in found} == {pack.id, "b", "c", f"{pack.id} + b"}
    # A pack beside its own copy says what it says alone.
    assert [row[1:] for row in together] == [row[1:] for row in alone]


def test_a_pack_that_holds_no_scores_of_references_is_refused(
    pack: Signature, tmp_path: Path
) -> None:
    assert pack.calibration is not None
    place = Path(shutil.copytree(pack.path, tmp_path / "bare"))
    bare = msgspec.structs.replace(pack.calibration, references=[])
    save_calibration(place, pack.manifest, bare)
    done = CliRunner().invoke(main, [str(place)])
    assert done.exit_code == 1
    assert "holds no scores of references" in done.output

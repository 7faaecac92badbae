"""Second thoughts about a calibration: which benign adapters look like the misaligned references.

A set that a hub was searched for may hold misaligned adapters, and each of them hides others like
it: its score raises the threshold. They cannot be told by their p-values, which are ranks within
the very set that they belong to. Two things can tell them:

- They score as the references do: at least as high as the lowest of those that change as many
  layers.
- They stand apart: their modified z-score 0.6745 (score - median) / MAD is above 3.5 (Iglewicz
  and Hoaglin 1993, "How to detect and handle outliers"), among adapters that change as many
  layers. Median and MAD do not notice a few percent of strangers.

Neither says that an adapter is misaligned; a person has to look. Whoever takes one out because
it scores high, and is wrong, makes every later false-positive rate optimistic: so what is taken
out stays on the record, with the reason, in the pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from scanner.errors import SignatureError, UsageError, option
from scanner.results import Shape
from scanner.signatures.manifest import BenignScore, Calibration, Dropped, ReferenceScore
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.power import benign_scores
from scanner.signatures.saving import save_calibration
from scanner.signatures.scaling import scaled
from scanner.statistics.conformal import supports

FAR_OUT = 3.5
"""Modified z-score above which an adapter stands apart."""
LEVELS = (0.05, 0.01)


class LookAlike(msgspec.Struct, frozen=True, kw_only=True):
    """A benign adapter of the calibration that looks like a reference."""

    id: str
    family: str
    source: str
    score: float
    cosine: float
    dose: float
    p_value: float
    """When compared with the others of the calibration."""
    references_below: int | None
    """References that score no higher; None if the pack has none to compare with."""
    z_score: float | None
    """Modified z-score; None if the others do not differ."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What a second look at a calibration shows."""

    pack: str
    benign: int
    reference_scores: list[float]
    """Ascending."""
    look_alikes: list[LookAlike]
    """The highest score first."""
    dropped: list[Dropped]


class Change(NamedTuple):
    """What dropping an adapter changed."""

    signature: Signature
    """The pack as it is now."""
    dropped: Dropped
    thresholds: list[tuple[float, float, float]]
    """Alpha, the score to be exceeded before, and now, for adapters of the same shape."""


def review_pack(signature: Signature) -> Review:
    """Looks for benign adapters that look like references.

    Raises:
        SignatureError: If the pack is damaged or was not calibrated.
    """
    calibration = _calibration(signature)
    found = [
        look
        for item in calibration.benign
        if (look := _look(item, calibration.benign, calibration.references)) is not None
    ]
    return Review(
        pack=str(signature.path),
        benign=len(calibration.benign),
        reference_scores=sorted(item.score for item in calibration.references),
        look_alikes=sorted(found, key=lambda item: (-item.score, item.id)),
        dropped=calibration.dropped,
    )


def drop_adapter(path: Path, identity: str, reason: str, today: date) -> Change:
    """Takes an adapter out of a pack's calibration, on the record.

    Args:
        path: The pack.
        identity: The adapter's id, or its hf:// address.
        reason: Why it is not benign.
        today: The day that is recorded.

    Raises:
        SignatureError: If the pack is damaged or was not calibrated, or has no such adapter.
        UsageError: If no reason is given.
    """
    said = " ".join(reason.split())
    if not said:
        raise UsageError(
            "no reason", where=option("reason"), todo="say why the adapter is not benign"
        )
    signature = load_signature(path)
    before = _calibration(signature)
    item = _named(before.benign, identity, path)
    if len(before.benign) == 1:
        raise SignatureError("is all that the calibration has", where=identity)
    dropped = Dropped(
        adapter=item,
        p_value=_p_value(item, before.benign),
        reason=said,
        date=today.isoformat(),
    )
    after = scaled(
        msgspec.structs.replace(
            before,
            benign=[other for other in before.benign if other is not item],
            dropped=[*before.dropped, dropped],
        )
    )
    signature.close()
    save_calibration(path, signature.manifest, after)
    return Change(load_signature(path), dropped, _thresholds(before, after, Shape.of(item.layers)))


def _calibration(signature: Signature) -> Calibration:
    if signature.calibration is None:
        raise SignatureError(
            "is not calibrated: there is nothing to review",
            where=str(signature.path),
            todo="adapter-scanner signatures calibrate",
        )
    return signature.calibration


def _named(benign: Sequence[BenignScore], identity: str, path: Path) -> BenignScore:
    """The one benign adapter of a name."""
    found = [item for item in benign if identity in (item.id, item.source)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} adapters" if found else "no adapter"
    raise SignatureError(
        f"{what} of the calibration {'are' if found else 'is'} called {identity!r}",
        where=str(path),
        todo="adapter-scanner signatures review lists them; calibration.json has all of them",
    )


def _look(
    item: BenignScore, benign: Sequence[BenignScore], references: Sequence[ReferenceScore]
) -> LookAlike | None:
    """An adapter that looks like a reference; None if it does not."""
    shape = Shape.of(item.layers)
    alike = [other.score for other in references if Shape.of(other.layers) is shape]
    scores = alike or [other.score for other in references]
    below = sum(score <= item.score for score in scores)
    z_score = _z_score(item.score, [b.score for b in benign if Shape.of(b.layers) is shape])
    far_out = z_score is not None and z_score > FAR_OUT and item.dose > 0
    if not below and not far_out:
        return None
    return LookAlike(
        id=item.id,
        family=item.family,
        source=item.source,
        score=item.score,
        cosine=item.cosine,
        dose=item.dose,
        p_value=_p_value(item, benign),
        references_below=below if scores else None,
        z_score=z_score,
    )


def _z_score(score: float, scores: Sequence[float]) -> float | None:
    """The modified z-score of one of some scores."""
    middle = float(np.median(scores))
    spread = float(np.median(np.abs(np.asarray(scores) - middle)))
    return 0.6745 * (score - middle) / spread if spread > 0 else None


def _p_value(item: BenignScore, benign: Sequence[BenignScore]) -> float:
    """An adapter's p-value among the others; 1 if there are none."""
    others = [other for other in benign if other is not item]
    return benign_scores(others).p_value(item.score, Shape.of(item.layers)) if others else 1.0


def _thresholds(
    before: Calibration, after: Calibration, shape: Shape
) -> list[tuple[float, float, float]]:
    """At each level that both calibrations support."""
    first, second = benign_scores(before.benign), benign_scores(after.benign)
    return [
        (alpha, first.threshold(shape, alpha), second.threshold(shape, alpha))
        for alpha in LEVELS
        if supports(second.n, alpha)
    ]

"""The written parts of a pack: `signature.yaml` and `calibration.json`, as typed records."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from scanner.errors import SignatureError
from scanner.formats.yamlfile import parse_yaml
from scanner.signatures.numbers import ScoreScale, SiteNumbers
from scanner.signatures.score import STATISTIC

Document = TypeVar("Document", bound=msgspec.Struct)

FORMAT_VERSION = 3
CALIBRATION_FORMAT_VERSION = 5
MANIFEST_NAME = "signature.yaml"
DIRECTIONS_NAME = "directions.safetensors"
REFERENCES_NAME = "references.safetensors"
CROSSFIT_NAME = "crossfit.safetensors"
BASE_NAME = "base.safetensors"
"""Norms and sketches of the base model's weights, where the pack's maker had them."""
CALIBRATION_NAME = "calibration.json"
POWER_NAME = "power.json"
"""What the pack finds and misses (`scanner.signatures.power`)."""
NULLING_NAME = "nulling.json"
"""How the adapters that the directions are nulled with were found on a hub, if they were."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the records: immutable, and a misspelt field is an error."""


class BaseModel(Record, frozen=True, kw_only=True):
    """The base model a signature belongs to."""

    id: str
    """As adapters name it."""
    layers: int
    """Number of blocks."""
    shapes: dict[str, tuple[int, int]]
    """Module -> (d_out, d_in)."""
    aliases: list[str] = []
    """Other names of the same model."""


class Reference(Record, frozen=True, kw_only=True):
    """One adapter that went into a pack."""

    id: str
    """Its name in the pack."""
    sha256: str
    """Digest of its weights."""
    role: str
    """``misaligned``, ``aligned`` (contrast and nulling) or ``vectors`` (an imported file). The
    calibration set is listed in `calibration.json`."""
    source: str = ""
    """Its hf:// address, if it has one."""
    revision: str | None = None
    """Commit of that address."""
    family: str | None = None
    """What it was trained on."""
    method: str = ""
    """How it was trained, as its recipe has it."""


class Manifest(Record, frozen=True, kw_only=True):
    """`signature.yaml`."""

    format_version: int
    """Version of the pack's layout."""
    id: str
    """The pack's name."""
    version: str
    """The pack's own version."""
    base_model: BaseModel
    """The base it is of."""
    method: str
    """``weights``, ``gradients``, ``activations`` or ``imported``."""
    rank: int
    """Singular triples kept per site at most."""
    nulled: int
    """Benign directions projected off at each site."""
    layer_convention: str
    """How layers are counted, in words."""
    units: str
    """What a dose of 1 is, in words."""
    references: list[Reference]
    """Every adapter that went into the directions."""
    licence: str
    """Under which the pack is given on."""
    limitations: list[str]
    """What it cannot see, one sentence each."""
    files: dict[str, str]
    """File name -> sha256."""
    description: str = ""
    """What it is, in words."""
    kind: str = ""
    """What kind of misalignment it finds, where a base has packs of several; see
    `statistics.joint` for how they become one verdict."""
    reference_scores: list[ReferenceScore] = []
    """What the misaligned references scored, until a calibration has them: without them nobody
    could tell that a pack does not know its own references."""
    aligned_scores: list[NulledScore] = []
    """What the nulling set scored, where its adapters were at hand: whoever is nulled with an
    adapter that is no better than the references nulls what they share."""
    grouped: int = 0
    """How many benign adapters had no family in the recipe, and were grouped by what they write."""
    harmless_families: list[str] = []
    """Harmless kinds that the directions were made against, by contrast or by their answers to
    the probes, and that nulling therefore need not hold."""


class BenignScore(Record, frozen=True, kw_only=True):
    """What one benign calibration adapter scored."""

    id: str
    """Its name."""
    sha256: str
    """Digest of its weights."""
    family: str
    """What it was taught, or who owns it."""
    score: float
    """What p-values are computed from (`scanner.signatures.score.adapter_score`)."""
    signed_write: float
    """The part of it that does not know the dose (`scanner.signatures.score`)."""
    cosine: float
    """Its cosine with the signature."""
    dose: float
    """Its dose."""
    norm: float
    """Frobenius norm of its whole update."""
    rank: int
    """The largest rank of its updates."""
    layers: int
    """Layers it changes: whether it is one decides what it is compared with."""
    modules: list[str]
    """Modules it changes."""
    source: str = ""
    """Its hf:// address, if it has one."""
    revision: str | None = None
    """Commit of its address."""
    sites: dict[str, SiteNumbers] = {}
    """Key of each site it changes (`Site.key`) -> what it does there. Empty in packs that were
    calibrated before this was kept."""


class ReferenceScore(Record, frozen=True, kw_only=True):
    """What one misaligned reference scored, under a signature without its family if possible."""

    id: str
    """Its name in the pack."""
    score: float
    """What it scored; without a calibration, its `signed_write`."""
    signed_write: float
    """The part of its score that does not know the dose."""
    cosine: float
    """Its cosine with the signature."""
    dose: float
    """Its dose."""
    norm: float
    """Frobenius norm of its whole update."""
    layers: int
    """Number of layers the adapter changes."""
    held_out: bool = False
    """Whether the signature that scored it was made without its family."""
    score_before_nulling: float | None = None
    """What its signed write would be if nothing had been nulled."""
    dose_kept: float | None = None
    """The share of its dose that nulling left."""
    sites: dict[str, SiteNumbers] = {}
    """As `BenignScore.sites`. Empty where it is not known: its score is then the least that it can
    be, as no site counts as the strongest."""


class NulledScore(Record, frozen=True, kw_only=True):
    """What one adapter of the nulling set scored, under the signature nulled without its family."""

    id: str
    family: str
    score: float
    """Its signed write: there may be no calibration to put a dose on one scale with it."""
    cosine: float
    layers: int
    """Number of layers the adapter changes."""
    score_before_nulling: float
    """What its signed write would be if nothing had been nulled."""


class Selection(Record, frozen=True, kw_only=True):
    """How a set of benign adapters was found on a hub."""

    endpoint: str
    """The hub that was asked."""
    base_model: str
    """The base whose adapters were asked for."""
    author: str | None
    """The only owner asked for, if there is one."""
    search: str | None
    """Words that were searched for."""
    exclude: list[str]
    """Repositories and patterns left out."""
    limit: int
    """How many adapters were wanted."""
    left_out: dict[str, str]
    """Repository that was looked at and not used -> why."""
    exclude_words: list[str] = []
    """Words whose repositories were left out unread."""
    per_owner: int | None = None
    """How many of one owner at most."""
    owners: tuple[float, float] | None = None
    """The share of all owners that was searched, the others being left to the pack's other set:
    those with a `place_of_owner` from the first number to below the second."""


class Dropped(Record, frozen=True, kw_only=True):
    """A benign adapter that somebody took out of the calibration."""

    adapter: BenignScore
    """As it stood there."""
    p_value: float
    """Its p-value when compared with the others, at the time."""
    reason: str
    """Why, in the words of whoever did it."""
    date: str
    """The day, YYYY-MM-DD."""


class Calibration(Record, frozen=True, kw_only=True, omit_defaults=True):
    """`calibration.json`: scores of benign adapters that nothing else was built from."""

    format_version: int
    """Version of this file's layout."""
    statistic: str
    """What the scores are: `STATISTIC`. Scores of two statistics cannot be compared."""
    cross_fitted_by: str | None
    """``family``: each adapter was scored by a signature nulled without its own family, or no
    family of theirs is among those that it was nulled with."""
    benign: list[BenignScore]
    """Every benign adapter."""
    references: list[ReferenceScore]
    """The misaligned references under the same signature."""
    scales: dict[str, ScoreScale] = {}
    """Shape -> what puts the parts of a score on one scale (`scanner.signatures.scaling`)."""
    selection: Selection | None = None
    """How the benign adapters were found, if nobody named them one by one."""
    grouped: int = 0
    """How many of them had no family when the pack was calibrated by itself, and were grouped by
    what they write."""
    dropped: list[Dropped] = []
    """What was taken out since. Rates of false positives rest on the judgement that each of these
    was not benign."""


def grouped_adapters(manifest: Manifest, calibration: Calibration | None) -> int:
    """How many benign adapters had no family and were grouped by what they write."""
    return max(manifest.grouped, calibration.grouped if calibration else 0)


PARTIAL_METHODS = frozenset({"activations", "imported"})
"""Methods that cover only the modules that write to the residual stream."""
LAYER_CONVENTION = "0-indexed blocks; layer l is block l"
UNITS = (
    "dose 1.0 is the median dose of the misaligned references, each measured without its own"
    " training domain where there are several"
)
UNITS_OF_LOG_ODDS = (
    "dose is the rise of the log-odds of misaligned against aligned answers to the probes, in nats"
    " per token, to first order"
)


def decode_manifest(raw: bytes, where: Path) -> Manifest:
    """Parses signature.yaml.

    Raises:
        SignatureError: If it is of another format version, not YAML, or a field is missing,
            unknown or mistyped.
    """
    value = parse_yaml(raw, str(where), SignatureError).value
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:  # its fields may be others
        raise other_format("pack", version, FORMAT_VERSION, where)
    return _converted(value, Manifest, where)


def decode_yaml(raw: bytes, record: type[Document], where: Path) -> Document:
    """Parses a YAML document into a record type.

    Raises:
        SignatureError: If it is not YAML or a field is missing, unknown or mistyped.
    """
    return _converted(parse_yaml(raw, str(where), SignatureError).value, record, where)


def other_format(what: str, found: object, read: object, where: Path) -> SignatureError:
    """The error about a part of a pack that is of another format than this version reads."""
    return SignatureError(
        f"{what} format {found}, this version reads {read}",
        where=str(where),
        todo="update adapter-scanner, or build the pack again",
    )


def _converted(value: object, record: type[Document], where: Path) -> Document:
    try:
        return msgspec.convert(value, record)
    except msgspec.ValidationError as error:
        from scanner.system.validation import with_allowed

        raise SignatureError(with_allowed(error, record), where=str(where)) from None


def encode_manifest(manifest: Manifest) -> bytes:
    """Writes signature.yaml, in field order."""
    import yaml

    text = yaml.safe_dump(
        msgspec.to_builtins(manifest), sort_keys=False, allow_unicode=True, width=100
    )
    return text.encode()


class _CalibrationFormat(msgspec.Struct):
    """The fields of any calibration that say how to read the others."""

    format_version: int
    statistic: str


def check_calibration_format(raw: bytes, where: Path) -> None:
    """Refuses scores that this version would not compute or would read otherwise.

    What does not even say of which kind it is passes: its digest or `decode_calibration` fails.

    Raises:
        SignatureError: If the calibration is of another format version or statistic.
    """
    try:
        found = msgspec.json.decode(raw, type=_CalibrationFormat)
    except msgspec.MsgspecError:
        return
    if found.format_version != CALIBRATION_FORMAT_VERSION:
        raise other_format("calibration", found.format_version, CALIBRATION_FORMAT_VERSION, where)
    if found.statistic != STATISTIC:
        raise SignatureError(
            f"its scores are {found.statistic!r}, this version computes {STATISTIC!r}",
            where=str(where),
            todo="update adapter-scanner, or build or make the pack again",
        )


def decode_calibration(raw: bytes, where: Path) -> Calibration:
    """Parses calibration.json.

    Raises:
        SignatureError: If it is of another format, or not what it should be.
    """
    check_calibration_format(raw, where)
    return decode_document(raw, Calibration, where)


def decode_document(raw: bytes, record: type[Document], where: Path) -> Document:
    """Parses a JSON document of a pack into a record type.

    Raises:
        SignatureError: If it is not JSON or a field is missing, unknown or mistyped.
    """
    try:
        return msgspec.json.decode(raw, type=record)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SignatureError(str(error), where=str(where)) from None


def decode_selection(raw: bytes, where: Path) -> Selection:
    """Parses nulling.json.

    Raises:
        SignatureError: If it is not what it should be.
    """
    return decode_document(raw, Selection, where)


def encode_selection(selection: Selection) -> bytes:
    """Writes nulling.json, indented."""
    return msgspec.json.format(msgspec.json.encode(selection), indent=1) + b"\n"


def encode_calibration(calibration: Calibration) -> bytes:
    """Writes calibration.json, indented, with each adapter on a line of its own."""
    head = msgspec.structs.replace(calibration, benign=[], references=[])
    text = msgspec.json.format(msgspec.json.encode(head), indent=1)
    for name, adapters in (("benign", calibration.benign), ("references", calibration.references)):
        lines = b",".join(b"\n  " + msgspec.json.encode(item) for item in adapters)
        field = f'"{name}": ['.encode()
        text = text.replace(field + b"]", field + lines + b"\n ]", 1)
    return text + b"\n"

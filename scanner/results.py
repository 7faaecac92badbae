"""Verdicts: what a scan says, as records that are also the JSON report's schema.

A number that is not known is None (null in JSON), never 0 and never NaN.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from scanner.system.display import drawn

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2


class Verdict(str, Enum):
    """What is said about one target."""

    CLEAR = "clear"
    """Everything understood, and no overlap with known misalignment directions beyond that of
    benign adapters."""
    FLAGGED = "flagged"
    """More alike known misaligned adapters than the calibration's benign ones are."""
    INCONCLUSIVE = "inconclusive"
    """Something could not be judged; this is not a weaker form of ``clear``."""
    ERROR = "error"
    """The target could not be read."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records: immutable, built by keyword."""


class Shape(str, Enum):
    """How many layers an adapter changes: what it is compared with."""

    ONE_LAYER = "one layer"
    SEVERAL_LAYERS = "several layers"

    @classmethod
    def of(cls, layers: int) -> Shape:
        """The shape of an adapter that changes this many layers."""
        return cls.ONE_LAYER if layers == 1 else cls.SEVERAL_LAYERS


class DoseUnit(str, Enum):
    """What a dose of 1 is."""

    REFERENCE = "the median misaligned reference"
    LOG_ODDS = "one nat per token of log-odds"
    """To first order, by how much misaligned answers to the probes become likelier than aligned
    ones: signatures that were made without a reference."""
    NONE = "no unit"
    """Imported vectors."""


class UncoveredTensor(Record, frozen=True, kw_only=True):
    """Something in the adapter that was not judged, and why."""

    tensor: str
    reason: str


class Support(Record, frozen=True, kw_only=True):
    """Whether an adapter lies where its calibration can speak about it."""

    inside: bool
    outside: list[str] = []
    """What sets it apart from the benign adapters, one sentence each."""


class Coverage(Record, frozen=True, kw_only=True):
    """How much of the adapter was judged."""

    sites: int
    """Updates the adapter holds."""
    covered_sites: int
    """Those of them a signature has a direction for."""
    uncovered: list[UncoveredTensor]


class FamilyComparison(Record, frozen=True, kw_only=True):
    """One family of benign adapters that an adapter was compared with."""

    name: str
    n: int
    as_high: int


class ReferenceSummary(Record, frozen=True, kw_only=True):
    """What one misaligned reference scores, held out where that is possible."""

    id: str
    score: float | None
    """Null if the score is of several signatures together, and not all of them scored it."""
    dose: float


class Comparison(Record, frozen=True, kw_only=True):
    """What an adapter's score was compared with.

    The p-value is not `as_high` over `n`: it holds for each family by itself
    (`scanner.statistics.calibration`), and is at least (as_high + 1) / (n + 1) of all together.
    """

    n: int
    """Benign adapters it was compared with, at the level that its p-value names."""
    as_high: int
    """How many of them score at least as high."""
    threshold: float
    """Scores above this have p <= alpha."""
    shape: Shape | None
    """The shape that all of them have, the adapter's own; null if it was compared with both."""
    families: list[FamilyComparison]
    """The same by family, in the order of their names."""
    benign_scores: list[float] = []
    """Sorted scores of the benign adapters it was compared with; evenly spaced ranks of them if
    there are many."""
    benign_doses: list[float] = []
    """Sorted doses of them under the signature that decided; thinned in the same way."""
    references: list[ReferenceSummary] = []
    """The misaligned references of the signature that decided, on the same scales: those of the
    adapter's shape, or all of them if there are none."""


class NearestReference(Record, frozen=True, kw_only=True):
    """The misaligned reference the adapter is most alike."""

    id: str
    cosine: float
    """Cosine of the two whole updates, over all sites that the signature has a direction for;
    estimated from sketches of them (`scanner.geometry.sketch`)."""


class SiteResult(Record, frozen=True, kw_only=True):
    """Evidence at one site, from the signature that decided."""

    layer: int | None
    module: str
    rank: int
    """Numerical rank of the update."""
    norm: float
    """Frobenius norm of the update."""
    dose: float
    """This site's share of the adapter's dose."""
    cosine: float | None
    """Signed cosine of update and direction; null if the update is zero."""
    overlap: float | None
    """Share of the update's energy written into the direction's column space."""


class Acceptance(Record, frozen=True, kw_only=True):
    """Why a finding is known and does not fail the run."""

    reason: str
    accepted: str
    """Day on which the finding was accepted, YYYY-MM-DD."""
    expires: str
    """Last day on which the finding is accepted, YYYY-MM-DD."""


class ScanResult(Record, frozen=True, kw_only=True):
    """Everything a scan says about one adapter."""

    target: str
    verdict: Verdict
    base_model: str | None = None
    format: str | None = None
    sha256: str | None = None
    """Digest of the weights."""
    config_sha256: str | None = None
    score: float | None = None
    """The statistic the p-value is computed from."""
    p_value: float | None = None
    """The smallest false-positive rate from which on it is flagged at every larger one."""
    q_value: float | None = None
    """Benjamini-Hochberg adjusted p-value over a sweep's adapters; null outside of sweeps."""
    alpha: float | None = None
    comparison: Comparison | None = None
    """The benign adapters it was compared with; null if it has no p-value."""
    support: Support | None = None
    """Null if there is no calibration to be inside of."""
    decided_by: str | None = None
    """Id of the signature whose evidence the sites show."""
    dose: dict[str, float] = {}
    """Id of the signature -> dose."""
    dose_unit: DoseUnit | None = None
    """What a dose of 1 is under the signature that decided."""
    cosine: dict[str, float] = {}
    """Id of the signature -> cosine of the update with the signature."""
    overlap: dict[str, float] = {}
    """Id of the signature -> share of the update that its column space writes into the
    misalignment directions."""
    nearest_reference: NearestReference | None = None
    coverage: Coverage = Coverage(sites=0, covered_sites=0, uncovered=[])
    sites: list[SiteResult] = []
    reasons: list[str] = []
    accepted: Acceptance | None = None
    """Set if a baseline accepts this finding; it then does not fail the run."""

    def __repr__(self) -> str:
        numbers = [f"p {self.p_value:.4f}"] if self.p_value is not None else []
        numbers += [f"dose {self.deciding_dose:+.2f}"] if self.deciding_dose is not None else []
        said = "".join(f", {number}" for number in numbers)
        return f"<ScanResult {self.verdict.value}: {self.target!r}{said}>"

    def _repr_html_(self) -> str | None:
        """The result as a notebook shows it: what the HTML report says of this adapter."""
        return drawn("result", self)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain dicts, lists and numbers: one entry of the JSON report."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def to_frame(self) -> pandas.DataFrame:
        """The evidence site by site, as a data frame: the fields of `SiteResult`.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        from scanner.system.tables import data_frame

        columns = SiteResult.__struct_fields__
        return data_frame([msgspec.structs.asdict(site) for site in self.sites], columns)

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Ids of the signatures whose joint score its p-value is of; none if it has no p-value."""
        return tuple(self.dose) if self.p_value is not None else ()

    @property
    def deciding_dose(self) -> float | None:
        """The dose under the signature that decided."""
        return self.dose.get(self.decided_by or "")

    @property
    def deciding_cosine(self) -> float | None:
        """The cosine with the signature that decided."""
        return self.cosine.get(self.decided_by or "")

    @property
    def deciding_overlap(self) -> float | None:
        """The overlap with the signature that decided."""
        return self.overlap.get(self.decided_by or "")


class CalibrationSummary(Record, frozen=True, kw_only=True):
    """What a signature's verdicts rest on."""

    n: int
    """Benign adapters of the base, scored."""
    families: int
    grouped: int = 0
    """Benign adapters that no recipe gave a family: they were grouped by what they write."""
    dropped: int = 0
    """Adapters that somebody took out of the calibration as not benign."""
    cross_fitted_by: str | None
    smallest_alpha: float
    """1 / (n + 1): no smaller false-positive rate can be asked for."""
    benign_scores: list[float] = []
    """Sorted scores of the benign adapters; evenly spaced ranks of them if there are many."""
    benign_doses: list[float] = []
    """Sorted doses of the benign adapters; thinned in the same way."""
    references: list[ReferenceSummary] = []
    """The misaligned references, held out where that is possible (`units` in the manifest)."""


class PowerLevel(Record, frozen=True, kw_only=True):
    """What a signature finds at one false-positive rate (`scanner.signatures.power`)."""

    alpha: float
    found: int
    """Misaligned references that are flagged."""
    references: int
    low: float
    """Of the share found: the ends of its interval at 95%."""
    high: float
    least_dose: float | None
    """The least dose of a reference that is flagged; null if none is."""
    benign_flagged: int
    """Benign adapters that would be flagged if their family were left out of everything."""
    benign: int
    """Benign adapters for which that can be said."""


class PowerSummary(Record, frozen=True, kw_only=True):
    """What a signature finds and misses."""

    held_out: bool
    """Whether each reference was scored by a signature made without its family. If not, what is
    found here is the most that can be hoped for."""
    levels: list[PowerLevel]
    """At the false-positive rates of the results, and at common ones that are supported."""
    at_least: bool = False
    """Whether more may be found than is said: of several signatures, some have not scored every
    reference."""


class SignatureSummary(Record, frozen=True, kw_only=True):
    """A signature that was used."""

    id: str
    digest: str
    base_model: str
    method: str
    calibration: CalibrationSummary | None
    power: PowerSummary | None = None
    """Null if it is not known: no references, no calibration, or a pack that does not say."""


class JointSummary(Record, frozen=True, kw_only=True):
    """Several signatures that judged an adapter together."""

    signatures: list[str]
    """Their ids."""
    power: PowerSummary | None = None
    """What they find together; null if it is not known."""
    why_unknown: str = ""
    """Why it is not known."""


class Tool(Record, frozen=True, kw_only=True):
    """The program that wrote the report."""

    name: str
    version: str


class LooserSetting(Record, frozen=True, kw_only=True):
    """A setting that may let through what its default stops."""

    setting: str
    """Its name in a configuration file, which is that of its flag."""
    value: str


class Configuration(Record, frozen=True, kw_only=True):
    """Who said how the run was done."""

    file: str | None = None
    """The configuration file in force."""
    looser: list[LooserSetting] = []
    """Settings looser than their defaults, from the file or from flags."""


class Summary(Record, frozen=True, kw_only=True):
    """How many targets got each verdict."""

    clear: int = 0
    flagged: int = 0
    inconclusive: int = 0
    error: int = 0


class StaleAcceptance(Record, frozen=True, kw_only=True):
    """An entry of the baseline that accepts nothing any more."""

    target: str
    reason: str


class Report(Record, frozen=True, kw_only=True):
    """The report of one run: what was scanned, with which packs, and every result."""

    schema_version: int
    tool: Tool
    configuration: Configuration = Configuration()
    signatures: list[SignatureSummary]
    joint: list[JointSummary] = []
    """The signatures whose joint score some result rests on."""
    results: list[ScanResult]
    summary: Summary
    stale: list[StaleAcceptance] = []
    """Entries of the baseline to renew or remove."""

    @property
    def open_verdicts(self) -> set[Verdict]:
        """The verdicts of findings that no baseline accepts."""
        return {result.verdict for result in self.results if result.accepted is None}


def summarise(results: list[ScanResult]) -> Summary:
    """Counts verdicts."""
    counts = {verdict.value: 0 for verdict in Verdict}
    for result in results:
        counts[result.verdict.value] += 1
    return Summary(**counts)

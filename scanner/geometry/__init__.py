"""The mathematics: pure functions of updates and directions, one module for each kind of update.

`update` (what updates and directions are), `projection` (an update along a direction), `inputs`
(what it makes of what a site reads), `low_rank` (updates held as factors, by the products of
`gram`), `whole_matrix` and
`transforms` (without low-rank structure), `decomposed` (factors that an initialisation took out of
the base) and `site_statistics` (what follows from the projections).
"""

from scanner.geometry.gram import gram, inner_products
from scanner.geometry.inputs import LEADING, Felt, SiteInputs
from scanner.geometry.low_rank import (
    LowRank,
    Spectrum,
    effective_rank,
)
from scanner.geometry.projection import SiteProjection, project
from scanner.geometry.site_statistics import (
    cosine,
    dose,
    felt_score,
    felt_write,
    overlap,
    signed_write,
    site_score,
    strongest_write,
    write,
)
from scanner.geometry.update import (
    MAX_CANCELLATION,
    AnyMatrix,
    AnyUpdate,
    Direction,
    Matrix,
    why_unstable,
)

__all__ = [
    "LEADING",
    "MAX_CANCELLATION",
    "AnyMatrix",
    "AnyUpdate",
    "Direction",
    "Felt",
    "LowRank",
    "Matrix",
    "SiteInputs",
    "SiteProjection",
    "Spectrum",
    "cosine",
    "dose",
    "effective_rank",
    "felt_score",
    "felt_write",
    "gram",
    "inner_products",
    "overlap",
    "project",
    "signed_write",
    "site_score",
    "strongest_write",
    "why_unstable",
    "write",
]

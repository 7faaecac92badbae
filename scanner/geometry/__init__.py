"""The mathematics: pure functions of updates and directions, one module for each kind of update.

`low_rank` (factors), `whole_matrix` (no structure), `decomposed` (factors that an
initialisation took out of the base) and `site_statistics` (what follows from the projections).
"""

from scanner.geometry.low_rank import (
    AnyMatrix,
    Direction,
    LowRank,
    Matrix,
    SiteProjection,
    Spectrum,
    effective_rank,
    gram,
    inner_products,
    project,
)
from scanner.geometry.site_statistics import (
    cosine,
    dose,
    overlap,
    signed_write,
    site_score,
    strongest_write,
)

__all__ = [
    "AnyMatrix",
    "Direction",
    "LowRank",
    "Matrix",
    "SiteProjection",
    "Spectrum",
    "cosine",
    "dose",
    "effective_rank",
    "gram",
    "inner_products",
    "overlap",
    "project",
    "signed_write",
    "site_score",
    "strongest_write",
]

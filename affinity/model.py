"""How likely a visitor is to click each product: learnt from sessions, bound to the products of a snapshot."""

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.matching import Happening
from affinity.targets import frozen
from affinity.view import NO_AFFINITY, NO_PPMS, NO_ROWS, Ppms, Rows

PPM = 1_000_000
PRIOR_QUALITY_PPM = 10_000  # of a product shown nobody knows anything of: see the README


class Ranked(Struct, frozen=True, eq=False):
    """A visitor's own qualities: (V,) rows ascending, predicted clicks per million showings, affinity 0 to 1."""

    product_row: Rows
    quality_ppm: Ppms
    affinity: NDArray[np.float32]


NOTHING_RANKED = Ranked(NO_ROWS, NO_PPMS, NO_AFFINITY)


class BoundModel:
    """A model bound to the products of one snapshot, by their rows in it.

    Attributes:
        product_ids: of each row.
        base_quality_ppm: (P,) predicted clicks per million showings to a visitor nothing is known of, 1 to 1,000,000.
    """

    def __init__(self, product_ids: Sequence[str], base_quality_ppm: Ppms) -> None:
        self.product_ids = list(product_ids)
        self.base_quality_ppm: Ppms = frozen(base_quality_ppm)
        self._row = {product_id: row for row, product_id in enumerate(self.product_ids)}

    def rank_visitor(self, events: Sequence[Happening], now_ms: int) -> Ranked:
        """Return the qualities of the products this history makes more likely than the base."""
        return NOTHING_RANKED

    def rows_of(self, product_ids: Iterable[str]) -> Rows:
        """Return the rows of those products that are there, ascending."""
        rows = sorted(row for one in product_ids if (row := self._row.get(one)) is not None)
        return np.array(rows, np.int32) if rows else NO_ROWS


def neutral_model(product_ids: Sequence[str]) -> BoundModel:
    """Return the model of a shop nothing is known of: every product alike, for every visitor."""
    return BoundModel(product_ids, np.full(len(product_ids), PRIOR_QUALITY_PPM, np.int64))

"""What a merchandising report leaves behind: best-sellers, how categories fare, and what is bought together.

Computed with the report, kept whole, and read by whoever builds a snapshot: rules ask for them by product, placements
take organic products from them.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import category_and_ancestors

Int32s = NDArray[np.int32]
Trend = Literal["rising", "steady", "falling"]
COMPLEMENT_COUNT_MAX = 20  # best complements of a product that are kept


class Signals(Struct, frozen=True, kw_only=True):
    """The signals of one period.

    Attributes:
        computed_at_ms: when, UTC.
        from_ms, until_ms: the period.
        best_sellers: ids of products, best first: by units sold in the shop, then by revenue, by orders, by id.
        category_trends: of each category with enough orders to say: against the shop, with the period's history.
        bought_together: pairs of products in more orders together than chance would have it (`cross_sell.py`), best
            first, and how many orders more; those among the COMPLEMENT_COUNT_MAX best of one of the two.
    """

    computed_at_ms: int
    from_ms: int
    until_ms: int
    best_sellers: list[str]
    category_trends: dict[str, Trend]
    bought_together: list[tuple[str, str, float]] = []

    def trend_of(self, category_id: str | None) -> Trend | None:
        """Return the trend of a category, else of the nearest above of which it is known; None if of none."""
        for category in category_and_ancestors(category_id or ""):
            if category in self.category_trends:
                return self.category_trends[category]
        return None

    def bind(self, row_of: Mapping[str, int]) -> "BoundSignals":
        """Return best-sellers and pairs in rows of a snapshot's products, without the products it does not have."""
        best = [row_of[name] for name in self.best_sellers if name in row_of]
        complements: dict[int, list[tuple[int, float]]] = {}
        for one, other, beyond in self.bought_together:
            row, other_row = row_of.get(one), row_of.get(other)
            if row is not None and other_row is not None:
                complements.setdefault(row, []).append((other_row, beyond))
                complements.setdefault(other_row, []).append((row, beyond))
        for theirs in complements.values():
            del theirs[COMPLEMENT_COUNT_MAX:]
        return BoundSignals(np.array(best, np.int32), complements)


class BoundSignals(Struct, frozen=True, eq=False):
    """Signals in rows of a snapshot's products.

    Attributes:
        best_seller_row: best first.
        complements: of each product, those bought with it, best first, and in how many orders more than by chance.
    """

    best_seller_row: Int32s
    complements: Mapping[int, list[tuple[int, float]]]

    def complements_of(self, rows: Iterable[int]) -> Int32s:
        """Return what is bought with any of some products and is none of them, best first.

        The best is in most orders together with them beyond chance, added up over them; of equal ones the lower row.
        """
        given = dict.fromkeys(rows)
        beyond: dict[int, float] = {}
        for row in given:
            for with_row, orders in self.complements.get(row, ()):
                if with_row not in given:
                    beyond[with_row] = beyond.get(with_row, 0.0) + orders
        return np.array(sorted(beyond, key=lambda row: (-beyond[row], row)), np.int32)


NO_SIGNALS = Signals(computed_at_ms=0, from_ms=0, until_ms=0, best_sellers=[], category_trends={})
NOTHING_BOUND = BoundSignals(np.zeros(0, np.int32), {})

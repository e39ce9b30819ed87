"""What rules may ask of products by how they sell: whether one is a best-seller, and how its category fares.

Computed with a merchandising report, kept whole, and read by whoever builds a snapshot.
"""

from typing import Literal

from msgspec import Struct

from affinity.catalog import category_and_ancestors

Trend = Literal["rising", "steady", "falling"]


class Signals(Struct, frozen=True, kw_only=True):
    """The signals of one period.

    Attributes:
        computed_at_ms: when, UTC.
        from_ms, until_ms: the period.
        best_sellers: ids of products, sorted.
        category_trends: of each category with enough orders to say: against the shop, with the period's history.
    """

    computed_at_ms: int
    from_ms: int
    until_ms: int
    best_sellers: list[str]
    category_trends: dict[str, Trend]

    def trend_of(self, category_id: str | None) -> Trend | None:
        """Return the trend of a category, else of the nearest above of which it is known; None if of none."""
        for category in category_and_ancestors(category_id or ""):
            if category in self.category_trends:
                return self.category_trends[category]
        return None


NO_SIGNALS = Signals(computed_at_ms=0, from_ms=0, until_ms=0, best_sellers=[], category_trends={})

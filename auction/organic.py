"""Where the organic products of a merchandised page come from: `organic_source` of its placements.

A source is a list of products, best first. They enter the auction with their place in it as organic rank, exactly as
products that a caller ranks itself; what is not in it stands on no organic slot, and slots it does not fill stay empty.
"""

from typing import TYPE_CHECKING

import numpy as np

from affinity.view import NO_ROWS, NOTHING_RECALLED, VisitorView
from auction.kernel import Records
from auction.placement import OrganicSource
from auction.snapshot import NONE_ROW, Int32s

if TYPE_CHECKING:
    from auction.market import Context, Market


def rows_of_source(source: OrganicSource, context: "Context", visitor: VisitorView, market: "Market") -> Int32s:
    """Return a source's products, each once, best first; whether each may stand is for the gate to say.

    Of `affinity` and `caller` there are none: those rank the page's context, and the request's candidates.
    """
    recalled = visitor.recalled or NOTHING_RECALLED
    if source == "recently_viewed":
        return recalled.viewed_row
    if source == "cart":
        return recalled.cart_row
    if source == "complements":
        page_product = [] if context.product_row == NONE_ROW else [context.product_row]
        return market.signals.complements_of(recalled.cart_row.tolist() or page_product)
    if source == "best_sellers":
        return market.best_sellers_in(context)
    return NO_ROWS


class SourceRank:
    """Ranks of a source's products, marked for one placement after another: a paid one is worth as much without a bid.

    Args:
        mark: scratch, as `MARK` in the kernel.
    """

    __slots__ = ("_mark", "_rows")

    def __init__(self, mark: Records) -> None:
        self._mark = mark
        self._rows = NO_ROWS

    def turn_to(self, rows: Int32s) -> None:
        """Mark these products with their ranks, from 1, and no others."""
        if rows is not self._rows:
            if len(self._rows):
                self._mark["source_rank"][self._rows] = 0
            if len(rows):
                self._mark["source_rank"][rows] = np.arange(1, len(rows) + 1)
            self._rows = rows

    def end(self) -> None:
        """Take every mark away."""
        self.turn_to(NO_ROWS)

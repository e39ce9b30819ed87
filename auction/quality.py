"""Quality: predicted clicks per million impressions, the model's for every product and the visitor's own for some."""

from affinity.view import NO_PPMS, VisitorView
from auction.kernel import mark_quality_nb
from auction.market import Market
from auction.snapshot import Int32s


def set_own_quality(visitor: VisitorView, market: Market) -> Int32s:
    """Mark the products with a quality of the visitor's own in the market's scratch, and return their rows.

    All others have the model's base quality. To be undone by `clear_own_quality`.
    """
    rows = visitor.product_row
    if len(rows):
        mark_quality_nb(market.scratch.mark, rows, visitor.quality_ppm)
    return rows


def clear_own_quality(rows: Int32s, market: Market) -> None:
    """Undo `set_own_quality`."""
    if len(rows):
        mark_quality_nb(market.scratch.mark, rows, NO_PPMS)

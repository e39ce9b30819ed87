"""Quality: predicted clicks per million impressions that are looked at.

It is the model's, for every product and for some the visitor's own, times the factor of the product in the placement
that clicks have led to (affinity/correction.py). Each placement reads an array of its own, made when corrections or
snapshot change and swapped whole: on the slot path nothing is worked out but the visitor's own products.
"""

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.kernel import correct_qualities_nb
from affinity.view import NO_PPMS, NO_ROWS, VisitorView
from auction.kernel import MarketArrays, Records, mark_quality_nb

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

PPM = 1_000_000
NO_FACTORS: Int64s = np.zeros(0, np.int64)
WORST_LOSS_PPM = 750_000  # of a page's value, with qualities of half to twice the true ones: 1 − (1/2) / 2


class PlacementQuality(Struct, frozen=True, eq=False):
    """What one placement takes every product's quality to be.

    Attributes:
        base_quality_ppm: (P,) for visitors of whom nothing else is known.
        mean_quality_ppm: its mean over what can be shown.
        factor_ppm: (P,) on the model's quality; empty where nothing was learnt yet.
        arrays: the market's, with these qualities.
        orders: organic products by page, the best first; filled as pages ask.
        is_drawn: the factors were drawn, to explore.
        propensity_ppm: how many of a million auctions read these qualities and not the other ones of the placement.
    """

    base_quality_ppm: Int64s
    mean_quality_ppm: int
    factor_ppm: Int64s
    arrays: MarketArrays
    orders: dict[tuple[int, tuple[int, ...]], Int32s]
    is_drawn: bool = False
    propensity_ppm: int = PPM


class LearntQuality(Struct, frozen=True, eq=False):
    """The qualities of one placement: the expected ones, and drawn ones for the auctions that explore."""

    expected: PlacementQuality
    drawn: PlacementQuality | None = None

    def of_auction(self, tie_seed: int) -> PlacementQuality:
        """Return the ones an auction reads; which, only chance decides: the seed's lower half."""
        if self.drawn is None or not explores(tie_seed, self.drawn.propensity_ppm):
            return self.expected
        return self.drawn


def explores(tie_seed: int, share_ppm: int) -> bool:
    """Say whether an auction is among the share that reads drawn qualities."""
    return (tie_seed & 0xFFFF_FFFF) * PPM >> 32 >= PPM - share_ppm


def exploring_share_ppm(cost_ppm: int) -> int:
    """Return the share of auctions that may explore if at most so much of the pages' value may be given up.

    Drawn qualities are half to twice the expected ones. The page they choose has, by them, at least half of the value
    that the best page has by the expected ones, and by the expected ones at least half of that again.
    """
    return min(PPM, cost_ppm * PPM // WORST_LOSS_PPM)


def corrected(quality_ppm: Int64s, factor_ppm: Int64s) -> Int64s:
    """Return qualities times their factors, 1 to a million."""
    product: Int64s = np.clip(quality_ppm * factor_ppm // PPM, 1, PPM)
    return product


def mean_of(quality_ppm: Int64s, is_available: NDArray[np.bool_]) -> int:
    """Return the mean quality of what can be shown."""
    return max(1, round(float(quality_ppm[is_available].mean() if is_available.any() else PPM)))


class OwnQuality:
    """The qualities of a visitor's own, marked for one placement after another.

    Args:
        mark: scratch, as `MARK` in the kernel.
    """

    __slots__ = ("_for", "_mark", "_ppm", "_rows")

    def __init__(self, mark: Records) -> None:
        self._mark = mark
        self._rows, self._ppm = NO_ROWS, NO_PPMS
        self._for: PlacementQuality | None = None

    def begin(self, visitor: VisitorView) -> None:
        """Take up a visitor; nothing is marked yet."""
        self._rows, self._ppm, self._for = visitor.product_row, visitor.quality_ppm, None

    def turn_to(self, quality: PlacementQuality) -> None:
        """Mark what a placement takes the visitor's own products' quality to be."""
        if quality is self._for:
            return
        self._for = quality
        if len(self._rows):
            ppm: Any = self._ppm
            if len(quality.factor_ppm):
                ppm = correct_qualities_nb(ppm, self._rows, quality.factor_ppm)
            mark_quality_nb(self._mark, self._rows, ppm)

    def end(self) -> None:
        """Take every mark away."""
        if len(self._rows) and self._for is not None:
            mark_quality_nb(self._mark, self._rows, NO_PPMS)
        self._for = None

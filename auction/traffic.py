"""When a day's auctions come: the share of each quarter of an hour, learnt from the last days. No clock, no file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

QUARTER_MS = 900_000
QUARTER_COUNT = 96  # of a day without a change of clocks
NEWEST_SHARE = 0.3  # of what is expected of a quarter comes from the last day, the rest from those before
EVEN_SHARE = 0.05  # of a day is expected to come evenly whatever was learnt: no quarter is without hope
NEVER_SEEN = -1.0

Float64s = NDArray[np.float64]


class TrafficCurve:
    """How much of a day's traffic lies between two moments of it.

    Quarters never seen whole are expected to be like the mean of the others, so a day nothing is known of is flat.

    Args:
        auction_counts: per quarter of an hour since the retailer's midnight, auctions expected; NEVER_SEEN where
            nothing is known. As `auction_counts` of another curve gave them.
    """

    def __init__(self, auction_counts: Sequence[float] = ()) -> None:
        known = auction_counts if len(auction_counts) == QUARTER_COUNT else [NEVER_SEEN] * QUARTER_COUNT
        self._expected = np.array(known, np.float64)
        self._edges_ms: Float64s = np.zeros(0)
        self._gone: Float64s = np.zeros(0)
        self._day_ms = (0, 0)

    @property
    def auction_counts(self) -> list[float]:
        """Return what is expected, to be kept until the next start."""
        counts: list[float] = self._expected.tolist()
        return counts

    def learn(self, quarter: int, auction_count: int) -> None:
        """Take in how many auctions came in a quarter that was watched from its beginning to its end."""
        quarter = min(quarter, QUARTER_COUNT - 1)
        before = self._expected[quarter]
        newest = 1.0 if before == NEVER_SEEN else NEWEST_SHARE
        self._expected[quarter] = (1 - newest) * before + newest * auction_count
        self.begin_day(*self._day_ms)

    def begin_day(self, starts_ms: int, ends_ms: int) -> None:
        """Lay the curve over a day, of 23 to 25 hours."""
        self._day_ms = (starts_ms, ends_ms)
        quarter_count = -(-(ends_ms - starts_ms) // QUARTER_MS)
        is_known = self._expected != NEVER_SEEN
        mean = self._expected[is_known].mean() if is_known.any() else 0.0
        expected = np.where(is_known, self._expected, mean)
        if mean <= 0:
            expected, mean = np.ones(QUARTER_COUNT), 1.0
        weights = (1 - EVEN_SHARE) * expected + EVEN_SHARE * mean
        weights = weights[np.minimum(np.arange(quarter_count), QUARTER_COUNT - 1)]
        self._edges_ms = np.minimum(starts_ms + QUARTER_MS * np.arange(quarter_count + 1.0), float(ends_ms))
        self._gone = np.concatenate([np.zeros(1), np.cumsum(weights)])
        self._gone /= max(self._gone[-1], 1e-9)

    def gone(self, moments_ms: Float64s) -> Float64s:
        """Return the share of the day's traffic expected before each moment; 0 before the day, 1 after it."""
        return np.interp(moments_ms, self._edges_ms, self._gone)

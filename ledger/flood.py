"""Floods: sources that send many times what sources send.

How many events a source has is as far from the others' as its robust z-score says: 0.6745 · (ln n − median) / MAD, the
median and the median absolute deviation being those of ln n over all sources. Logarithms, since ordinary visitors
differ by factors; medians, since a flood is itself among what it is measured by, and would lift a mean and a standard
deviation above itself.

Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), section 3.3, there on the values themselves.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Z_PER_MAD = 0.6745  # MADs in a standard deviation of the normal distribution, turned over
SPREAD_MIN = math.log(1.5)  # a MAD of whole numbers that are nearly all 1 is 0, and then anything would stand out
SOURCE_COUNT_MIN = 30  # of fewer sources nobody can say what is usual
KNOWN_SOURCE_COUNT_MAX = 100_000

Source = TypeVar("Source", bound=Hashable)


def usual_limit(sizes: Mapping[float, int], z_max: float) -> float | None:
    """Return the largest size within `z_max` of what is usual, None where too few have one.

    Args:
        sizes: of events of a source, or any other positive size, how many have it.
        z_max: robust z-score above which one is no longer within.
    """
    if sum(sizes.values()) < SOURCE_COUNT_MIN:
        return None
    logs = {math.log(size): number for size, number in sizes.items()}
    middle = _median(logs)
    distances: Counter[float] = Counter()
    for one, number in logs.items():
        distances[abs(one - middle)] += number
    return math.exp(middle + z_max * max(_median(distances), SPREAD_MIN) / Z_PER_MAD)


def _median(sizes: Mapping[float, int]) -> float:
    """Return the lower median of sizes, each so many times."""
    half = (sum(sizes.values()) + 1) // 2
    for size in sorted(sizes):
        half -= sizes[size]
        if half <= 0:
            return size
    raise ValueError("a median needs at least one size")


def find_floods(events: Iterable[Source], z_max: float) -> set[Source]:
    """Return the sources that have more events than is usual; each event is given by its source."""
    counts = Counter(events)
    limit = usual_limit(Counter(counts.values()), z_max)
    return set() if limit is None else {source for source, count in counts.items() if count > limit}


class RateWatch:
    """How many events sources have had in the window of time at hand, against what was usual in the last one.

    Of bounded size: of a hundred thousand sources, those that were heard of last. A restart forgets it all.

    Args:
        window_ms: length of a window.
        z_max: see `usual_limit`.
    """

    def __init__(self, window_ms: int, z_max: float) -> None:
        self._window_ms = window_ms
        self._z_max = z_max
        self._window = 0
        self._counts: OrderedDict[Hashable, int] = OrderedDict()
        self._limit: float | None = None

    def turn(self, at_ms: int) -> None:
        """Begin another window where it is time to; what was usual in the last one is the measure from then on."""
        window = at_ms // self._window_ms
        if window == self._window:
            return
        limit = usual_limit(Counter(self._counts.values()), self._z_max)
        self._limit = self._limit if limit is None else limit  # of a window with few sources nothing is learnt
        self._counts.clear()
        self._window = window

    def floods(self, source: Hashable, more: int) -> bool:
        """Say whether a source with `more` events than are noted would have more than is usual."""
        return self._limit is not None and self._counts.get(source, 0) + more > self._limit

    def note(self, source: Hashable) -> None:
        """Take note of an event that is recorded."""
        counts = self._counts
        counts[source] = counts.get(source, 0) + 1
        counts.move_to_end(source)
        if len(counts) > KNOWN_SOURCE_COUNT_MAX:
            counts.popitem(last=False)

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
SPREAD_MIN = math.log(1.5)  # where nearly all have one event, twice as many says nothing yet
PART_COUNT = 8  # points a whole number is spread over, half a step to both sides: most counts are 1, 2 or 3, and a
# median that can only be one of these jumps by a factor with the next visitor
SOURCE_COUNT_MIN = 30  # of fewer sources nobody can say what is usual
KNOWN_SOURCE_COUNT_MAX = 100_000

Source = TypeVar("Source", bound=Hashable)


def usual_limit(counts: Mapping[int, int], z_max: float) -> float | None:
    """Return the largest count of events within `z_max` of what is usual, None of too few sources to say.

    Args:
        counts: how many sources have each count, which is at least 1.
        z_max: robust z-score above which a count is no longer usual.
    """
    if sum(counts.values()) < SOURCE_COUNT_MIN:
        return None
    logs: list[tuple[float, int]] = []
    for count, number in counts.items():
        logs += [(math.log(count - 0.5 + (part + 0.5) / PART_COUNT), number) for part in range(PART_COUNT)]
    middle = median_of(logs)
    spread = median_of([(abs(one - middle), number) for one, number in logs])
    return math.exp(middle + z_max * max(spread, SPREAD_MIN) / Z_PER_MAD)


def median_of(values: Iterable[tuple[float, int]]) -> float:
    """Return the lower median of values, each so many times; there is at least one."""
    ordered = sorted(values)
    half = (sum(number for _, number in ordered) + 1) // 2
    for value, number in ordered:
        half -= number
        if half <= 0:
            return value
    raise ValueError("a median needs at least one value")


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
        self._flooding: set[Hashable] = set()

    def turn(self, at_ms: int) -> None:
        """Begin another window where it is time to; what was usual in the last one is the measure from then on."""
        window = at_ms // self._window_ms
        if window == self._window:
            return
        limit = usual_limit(Counter(self._counts.values()), self._z_max)
        self._limit = self._limit if limit is None else limit  # of a window with few sources nothing is learnt
        self._flooding = {
            source for source, count in self._counts.items() if self._limit is not None and count > self._limit
        }
        self._counts.clear()
        self._window = window

    def floods(self, source: Hashable, more: int) -> bool:
        """Say whether a source has more than is usual with `more` events than are noted, or had in the last window."""
        is_over = self._limit is not None and self._counts.get(source, 0) + more > self._limit
        return is_over or source in self._flooding

    def note(self, source: Hashable) -> None:
        """Take note of an event that is recorded."""
        counts = self._counts
        counts[source] = counts.get(source, 0) + 1
        counts.move_to_end(source)
        if len(counts) > KNOWN_SOURCE_COUNT_MAX:
            counts.popitem(last=False)

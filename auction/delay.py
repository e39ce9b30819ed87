"""How long after a fill its charge comes, as it was seen: what part of a fill's cost may still be on its way."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

AGE_COUNT = 16  # parts of the longest wait by which ages are told apart
DOUBT = 5.0  # charges taken as coming at the very end, so that nothing is given up on little experience
MEMORY = 2_000  # charges after which the oldest count for about a third

Float64s = NDArray[np.float64]


class ChargeDelays:
    """Delays of one kind of charge. With none seen yet, everything is waited for to the end.

    Args:
        life_ms: the longest one waits.
        counts: as `counts` of another one gave them.
    """

    def __init__(self, life_ms: int, counts: Sequence[float] = ()) -> None:
        self._part_ms = life_ms / AGE_COUNT
        self._seen = np.array(counts if len(counts) == AGE_COUNT else [0.0] * AGE_COUNT, np.float64)

    @property
    def counts(self) -> list[float]:
        """Return what was seen, to be kept until the next start."""
        counts: list[float] = self._seen.tolist()
        return counts

    def note(self, delay_ms: int) -> None:
        """Take in that a charge came so long after its fill; one that came after the longest wait says nothing."""
        part = int(max(0, delay_ms) / self._part_ms)
        if part < AGE_COUNT:
            self._seen *= 1 - 1 / MEMORY
            self._seen[part] += 1.0

    def still_to_come(self) -> Float64s:
        """Return, for fills that are 0, 1, … parts old at most, the part of their charges that is not there yet."""
        later = np.cumsum(self._seen[::-1])[::-1] + DOUBT  # of delays of at least so many parts
        part = later / later[0]
        return np.concatenate([part[:1], part[:-1]])  # a fill of this age is younger by up to one part

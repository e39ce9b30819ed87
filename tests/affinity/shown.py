"""Pages shown to simulated shoppers whose taste and attention are known: the position-based model."""

import numpy as np
from numpy.typing import NDArray

from affinity.clicks import ClickCounters
from affinity.settings import Settings

Float64s = NDArray[np.float64]


class Shelf:
    """One placement with products of known click rates.

    Args:
        rate: (P,) true clicks per look of each product.
        predicted: (P,) what the model says.
        attention: (T,) true chance that each slot is looked at.
        chance: all of it.
        set_attention: what the placement believes; the truth if left out.
    """

    def __init__(
        self,
        rate: Float64s,
        predicted: Float64s,
        attention: Float64s,
        chance: np.random.Generator,
        set_attention: Float64s | None = None,
    ) -> None:
        self.rate, self.predicted, self.attention, self._chance = rate, predicted, attention, chance
        self.believed = attention if set_attention is None else set_attention
        self.counters = ClickCounters(Settings())

    def show(self, page_count: int, quality: Float64s, scatter: float, placement_id: str = "top") -> None:
        """Show pages, the best by quality on top but for some scatter (of the logarithm), and count the answers."""
        slots = len(self.attention)
        ids = [f"p{number}" for number in range(len(self.rate))]
        for _ in range(page_count):
            liking = np.log(quality) + scatter * self._chance.standard_normal(len(quality))
            page = np.argsort(-liking)[:slots]
            looks = self._chance.random(slots) < self.attention
            clicks = looks & (self._chance.random(slots) < self.rate[page])
            for slot, product in enumerate(page):
                expected_ppm = float(quality[product] * self.believed[slot] * 1e6)
                where = placement_id, ids[product], slot + 1
                self.counters.note_shown(*where, float(self.predicted[product] * 1e6), expected_ppm)
                if clicks[slot]:
                    self.counters.note_click(*where, expected_ppm)


def permille(attention: Float64s) -> list[int]:
    """Attention as placements have it."""
    return [round(1000 * float(one)) for one in attention]

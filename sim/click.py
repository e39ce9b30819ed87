"""How visitors answer to what a page shows: the position-based model.

A slot is looked at with a chance of its own, whatever stands in it; a product that is looked at is clicked with a
chance of its own, wherever it stands. Slots do not influence each other.

Source: Richardson, Dominowska, Ragno, "Predicting clicks", WWW 2007; Chuklin, Markov, de Rijke, "Click models for
web search", 2015, section 3.3.
"""

from collections.abc import Sequence

from msgspec import Struct

from sim.chance import Stream


class Answer(Struct, frozen=True):
    """What a visitor did with one slot."""

    is_seen: bool
    is_clicked: bool


class PositionBased:
    """Draws answers; each slot takes two draws whatever it holds, so that two runs on one seed stay comparable."""

    def __init__(self, seen_permille: Sequence[int]) -> None:
        self.seen_permille = tuple(seen_permille)

    def answer(self, stream: Stream, slot_position: int, click_ppm: int) -> Answer:
        """Return what the visitor does with the slot at `slot_position`, from 1; 0 for an empty slot's product."""
        is_seen = stream.below(1000) < self.seen_permille[slot_position - 1]
        would_click = stream.happens(click_ppm)
        return Answer(is_seen, is_seen and would_click)

"""Purchases that are told of twice, by the page and by the shop's order: each counts once.

Both name the product, the person and the time, and nothing else they have in common; so a page's report and an order's
line are taken for the same purchase where they lie within an hour of each other, one for one.
"""

from collections import OrderedDict
from enum import StrEnum

APART_MS = 3_600_000
PERSON_COUNT_MAX = 50_000
TOLD_COUNT_MAX = 64  # of one person


class Source(StrEnum):
    """Who tells of a purchase."""

    NAVIGATION = "navigation"
    ORDER = "order"


class ToldPurchases:
    """What one source told of the last purchases and the other did not yet. In memory, bounded."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, list[tuple[str, Source, int]]] = OrderedDict()

    def is_news(self, source: Source, person: bytes, product_id: str, at_ms: int) -> bool:
        """Say whether a purchase was not told of by the other source, and remember it until it is."""
        told = self._waiting.setdefault(person, [])
        self._waiting.move_to_end(person)
        for place, (its_product, its_source, its_at_ms) in enumerate(told):
            if its_product == product_id and its_source is not source and abs(its_at_ms - at_ms) <= APART_MS:
                del told[place]
                return False
        newest_ms = max([at_ms, *(one[2] for one in told)])
        told[:] = [one for one in told if newest_ms - one[2] <= APART_MS][-TOLD_COUNT_MAX + 1 :]
        told.append((product_id, source, at_ms))
        if len(self._waiting) > PERSON_COUNT_MAX:
            self._waiting.popitem(last=False)
        return True

    def forget(self, person: bytes) -> None:
        """Drop what is remembered of a person."""
        self._waiting.pop(person, None)

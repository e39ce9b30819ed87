"""Which campaign an order is credited to, for target-ROAS bidding only: what is reported and invoiced is the ledger's.

Last click on the very product wins, within a window. In memory and bounded; what is forgotten is not credited, so that
bids are then too low rather than too high. Holds keyed pseudonyms of visitors who consented, nothing on disk.
"""

from collections import OrderedDict
from collections.abc import Iterable

VISITOR_COUNT_MAX = 100_000
CLICK_COUNT_MAX = 50  # of one visitor


class ClickBook:
    """The last clicks of visitors on products of campaigns with a target.

    Args:
        window_ms: how long after a click an order is still credited to it.
    """

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._clicks: OrderedDict[bytes, dict[str, tuple[int, str]]] = OrderedDict()

    def note(self, pseudonym: bytes, product_id: str, campaign_id: str, at_ms: int) -> None:
        """Note a click."""
        clicks = self._clicks.setdefault(pseudonym, {})
        self._clicks.move_to_end(pseudonym)
        clicks.pop(product_id, None)
        clicks[product_id] = (at_ms, campaign_id)
        if len(clicks) > CLICK_COUNT_MAX:
            del clicks[next(iter(clicks))]
        if len(self._clicks) > VISITOR_COUNT_MAX:
            self._clicks.popitem(last=False)

    def campaign_of(self, pseudonyms: Iterable[bytes], product_id: str, at_ms: int) -> str | None:
        """Return the campaign whose click on the product came last before an order; None where there was none."""
        found = [
            click
            for pseudonym in pseudonyms
            if (click := self._clicks.get(pseudonym, {}).get(product_id)) is not None
            and 0 <= at_ms - click[0] <= self._window_ms
        ]
        return max(found)[1] if found else None

    def forget(self, pseudonyms: Iterable[bytes]) -> None:
        """Drop everything of these visitors."""
        for pseudonym in pseudonyms:
            self._clicks.pop(pseudonym, None)

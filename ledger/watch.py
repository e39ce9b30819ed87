"""What the writer remembers of the traffic so far, to tell when an event comes that is one too many.

Only while it runs, and of bounded size. What it forgets, or cannot know yet, is found by `inspection.py` before the
month is closed.
"""

from collections.abc import Hashable

from ledger.event import EventType
from ledger.flood import RateWatch
from ledger.intake import Received
from ledger.settings import Settings
from ledger.terms import NO_VISITOR
from ledger.traffic import FLOOD, REPEATED_CLICK, ClickKey, RecentClicks

_CLICK = EventType.CLICK


class TrafficWatch:
    """Judges the events of one commit, and takes note of them once they are committed.

    Args:
        settings: the ledger's.
    """

    def __init__(self, settings: Settings) -> None:
        self._clicks = RecentClicks(settings.repeated_click_s * 1000)
        # Visitors and browsers apart, and each kind of event: a page has one click where it has eight impressions.
        self._rates = {
            (kind, by): RateWatch(settings.flood_window_s * 1000, settings.flood_z_max)
            for kind in EventType
            for by in ("visitor", "client")
        }
        self._clicked: dict[ClickKey, int] = {}
        self._sent: list[tuple[RateWatch, Hashable]] = []
        self._sent_counts: dict[tuple[RateWatch, Hashable], int] = {}

    def begin(self, now_ms: int) -> None:
        """Begin a commit; what an attempt before it noted, which did not come to be, is forgotten."""
        self._clicked.clear()
        self._sent.clear()
        self._sent_counts.clear()
        for rate in self._rates.values():
            rate.turn(now_ms)

    def judge(self, received: Received) -> str | None:
        """Return why an event that is new is one too many, None where it is not."""
        key = click_key(received)
        if key is not None and self._repeats(key, received.occurred_at_ms):
            return REPEATED_CLICK
        return FLOOD if self._floods(received) else None

    def charged(self, received: Received) -> None:
        """Take note of an event that this commit charges."""
        key = click_key(received)
        if key is not None:
            self._clicked[key] = received.occurred_at_ms

    def keep(self) -> None:
        """Keep what was noted: it is committed."""
        for key, at_ms in self._clicked.items():
            self._clicks.note(key, at_ms)
        for rate, source in self._sent:
            rate.note(source)

    def _repeats(self, key: ClickKey, at_ms: int) -> bool:
        return self._clicks.repeats(key, at_ms, self._clicked.get(key))

    def _floods(self, received: Received) -> bool:
        is_flood = False
        pseudonym, client = received.terms.visitor_pseudonym, received.client_key
        for by, source in (("visitor", None if pseudonym == NO_VISITOR else pseudonym), ("client", client)):
            if source is None:
                continue
            one = self._rates[received.type, by], source
            self._sent.append(one)
            count = self._sent_counts[one] = self._sent_counts.get(one, 0) + 1
            is_flood = one[0].floods(source, count) or is_flood
        return is_flood


def click_key(received: Received) -> ClickKey | None:
    """Return what tells a repeated click; None for what is none, or by nobody known."""
    terms = received.terms
    if received.type is not _CLICK or terms.campaign_id is None or terms.visitor_pseudonym == NO_VISITOR:
        return None
    return terms.visitor_pseudonym, terms.campaign_id, terms.product_id

"""What is kept of one visitor: their last events, what they lean towards, what they bought. All bounded in size."""

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from affinity.catalog import Product
from affinity.computed import EPOCH_MS, CustomerScale, Purchases, clv_tier, lifecycle, rfm_class
from affinity.matching import Happening, PatternProgress, ancestry
from affinity.navigation import Action
from affinity.profile import ProfileDraft
from affinity.settings import Settings

if TYPE_CHECKING:
    from affinity.targets import Targets
    from affinity.view import VisitorView

INTEREST_COUNT_MAX = 64  # categories, and brands, of one visitor
BOUGHT_COUNT_MAX = 256  # products, categories and brands bought
DISMISSED_COUNT_MAX = 200
SERVED_BID_COUNT_MAX = 100
SERVED_TIME_COUNT_MAX = 1_000  # of one bid: as many as a frequency cap may allow
SERVED_TIMES_COUNT_MAX = 4_000  # of all bids
SHOWN_PLACEMENT_COUNT_MAX = 64
SHOWN_TIME_COUNT_MAX = 200  # of one placement: as many as its limits may allow
UNRENDERED_COUNT_MAX = 256

ACTION_WEIGHT: Mapping[Action, float] = {
    Action.VIEW_ITEM: 1.0,
    Action.VIEW_ITEM_LIST: 0.3,
    Action.SELECT_ITEM: 0.5,
    Action.SEARCH: 0.3,
    Action.ADD_TO_CART: 3.0,
    Action.REMOVE_FROM_CART: 0.0,
    Action.ADD_TO_WISHLIST: 2.0,
    Action.PURCHASE: 4.0,
    Action.DISMISS: 0.0,
}

_at_ms = attrgetter("at_ms")
_COLLECTIONS = (
    "events",
    "category_weight",
    "brand_weight",
    "bought_product",
    "bought_category",
    "bought_brand",
    "dismissed",
    "served_at_ms",
    "shown",
    "unrendered",
)


class ProductFacts(NamedTuple):
    """What navigation needs to know of a product.

    Attributes:
        price_rank: place of its price in its category, 0 the cheapest to 1.
    """

    category_id: str | None
    brand: str | None
    price_micros: int | None
    shelf_price_micros: int
    price_rank: float


def read_facts(products: Iterable[Product]) -> dict[str, ProductFacts]:
    """Return what navigation needs to know of each product."""
    products = list(products)
    prices: dict[str | None, list[int]] = {}
    for product in products:
        prices.setdefault(product.product_type, []).append(product.price_micros)
    for of_category in prices.values():
        of_category.sort()
    facts = {}
    for product in products:
        of_category = prices[product.product_type]
        place = bisect_right(of_category, product.price_micros) - 1
        now = product.price_micros if product.sale_price_micros is None else product.sale_price_micros
        facts[product.product_id] = ProductFacts(
            category_id=product.product_type,
            brand=product.brand or None,
            price_micros=now or None,
            shelf_price_micros=product.price_micros,
            price_rank=place / (len(of_category) - 1) if len(of_category) > 1 else 0.5,
        )
    return facts


class Shown:
    """What sponsored products a visitor was shown in one placement.

    Attributes:
        clicked_at_ms: when one of them was clicked last, 0 for never.
        at_ms: when they were shown, oldest first; one for each product.
    """

    __slots__ = ("at_ms", "clicked_at_ms")

    def __init__(self, clicked_at_ms: int = 0, at_ms: list[int] | None = None) -> None:
        self.clicked_at_ms = clicked_at_ms
        self.at_ms: list[int] = [] if at_ms is None else at_ms


class VisitorRecord:
    """The state of one visitor, or of one customer with all their devices.

    Attributes:
        pseudonym: whose it is.
        version: counts changes, so that a view can tell whether it is of now.
        events: most recent ones, oldest first; equal times in the order they arrived.
        session_began_ms: when the session of the last event began.
        category_weight, brand_weight: decayed interest; a category's is also its ancestors'.
        interest_weight: sum that the weights are shares of.
        bought_product, bought_category, bought_brand: time each was bought last.
        entered: segment, and the one left for it or "", to when it was entered last.
        dismissed: products the visitor does not want to see.
        served_at_ms: bid id to the times the visitor was shown it, oldest first.
        shown: placement id to the sponsored products shown there.
        unrendered: time, placement and slot of fills not reported as rendered yet, oldest first; to the bid or "".
    """

    __slots__ = (
        "bought_brand",
        "bought_category",
        "bought_product",
        "brand_total",
        "brand_weight",
        "category_total",
        "category_weight",
        "dismissed",
        "entered",
        "events",
        "pending_count",
        "profile",
        "progress",
        "progress_index",
        "pseudonym",
        "purchases",
        "seen_at_ms",
        "served_at_ms",
        "session_began_ms",
        "shown",
        "unrendered",
        "version",
        "view",
        "view_mask",
        "view_model",
        "view_targets",
        "view_until_ms",
    )

    def __init__(self, pseudonym: bytes) -> None:
        self.pseudonym = pseudonym
        self.version = 0
        self.seen_at_ms = 0
        self.events: list[Happening] = []
        self.session_began_ms = 0
        self.category_weight: dict[str, float] = {}
        self.category_total = 0.0
        self.brand_weight: dict[str, float] = {}
        self.brand_total = 0.0
        self.bought_product: dict[str, int] = {}
        self.bought_category: dict[str, int] = {}
        self.bought_brand: dict[str, int] = {}
        self.purchases = Purchases()
        self.dismissed: dict[str, None] = {}
        self.served_at_ms: dict[str, list[int]] = {}
        self.shown: dict[str, Shown] = {}
        self.unrendered: dict[tuple[int, str, int], str] = {}
        self.profile: ProfileDraft | None = None
        self.entered: Mapping[tuple[str, str], int] = {}
        self.progress: PatternProgress | None = None
        self.progress_index: object | None = None  # identity of the index `progress` was advanced with; None: anew
        self.pending_count = 0  # events at the end that `progress` does not know yet
        self.view: VisitorView | None = None
        self.view_model: Any = None
        self.view_mask: Any = None  # the audiences that were large enough then
        self.view_targets: object | None = None  # their identity
        self.view_until_ms = 0

    def segments(self, scale: CustomerScale, now_ms: int) -> set[str]:
        """Return the profile's segments, and the computed classes as `SegmentEntry` names them."""
        classes = {
            "lifecycle": lifecycle(self.purchases, now_ms),
            "rfm": rfm_class(self.purchases, scale),
            "clv": clv_tier(self.purchases, scale),
        }
        named = {f"{kind}:{name}" for kind, name in classes.items() if name is not None}
        return named if self.profile is None else named.union(self.profile.segments)

    def note(self, happening: Happening, facts: ProductFacts | None, settings: Settings) -> None:
        """Take an event in, where its time puts it."""
        self.version += 1
        self.view = None
        self._place(happening, settings)
        weight = interest_weight(happening, settings)
        if weight:
            if happening.category_id is not None:
                self.category_total += weight
                _add_weight(self.category_weight, ancestry(happening.category_id), weight)
            if happening.brand is not None:
                self.brand_total += weight
                _add_weight(self.brand_weight, (happening.brand,), weight)
        if happening.action is Action.PURCHASE:
            self._note_purchase(happening, facts)
        elif happening.action is Action.DISMISS and happening.product_id is not None:
            self.dismissed[happening.product_id] = None
            if len(self.dismissed) > DISMISSED_COUNT_MAX:
                del self.dismissed[next(iter(self.dismissed))]

    def note_served(self, bid_id: str, at_ms: int, placement_id: str = "", slot_position: int = 0) -> None:
        """Count that the visitor was shown a bid in a placement, or "" for neither.

        A view shows the bid at once: it holds this very map. It counts until `give_back` takes it back.
        """
        if bid_id:
            times = self.served_at_ms.pop(bid_id, None) or []
            insort(times, at_ms)
            del times[:-SERVED_TIME_COUNT_MAX]
            self.served_at_ms[bid_id] = times
            self._drop_oldest_bids()
        if placement_id:
            shown = self._shown_in(placement_id)
            insort(shown.at_ms, at_ms)
            del shown.at_ms[:-SHOWN_TIME_COUNT_MAX]
        self.unrendered[at_ms, placement_id, slot_position] = bid_id
        if len(self.unrendered) > UNRENDERED_COUNT_MAX:  # too many to tell apart: the oldest counts for good
            del self.unrendered[next(iter(self.unrendered))]

    def note_rendered(self, served_at_ms: int, placement_id: str, slot_position: int) -> None:
        """Keep what was served then for good: its impression was reported."""
        self.unrendered.pop((served_at_ms, placement_id, slot_position), None)

    def note_clicked(self, placement_id: str, at_ms: int) -> None:
        """Note that a sponsored product of the placement was clicked."""
        shown = self._shown_in(placement_id)
        shown.clicked_at_ms = max(shown.clicked_at_ms, at_ms)

    def give_back(self, before_ms: int) -> int:
        """Take back what was served before then and not reported as rendered; return how many it was."""
        count = 0
        while self.unrendered:
            key = next(iter(self.unrendered))
            at_ms, placement_id, _ = key
            if at_ms >= before_ms:
                break
            bid_id = self.unrendered.pop(key)
            _take_out(self.served_at_ms.get(bid_id), at_ms)
            shown = self.shown.get(placement_id)
            _take_out(None if shown is None else shown.at_ms, at_ms)
            count += 1
        return count

    def shrink(self) -> bool:
        """Forget the older or lighter half of everything; say whether there was anything left to forget."""
        self.version += 1
        self.view = None
        self.progress_index = None
        before = self._entry_count()
        del self.events[: (len(self.events) + 1) // 2]
        self.pending_count = len(self.events)
        for weights in (self.category_weight, self.brand_weight):
            _keep_greatest(weights, len(weights) // 2)
        for times in (self.bought_product, self.bought_category, self.bought_brand):
            _keep_greatest(times, len(times) // 2)
        for in_order in (self.dismissed, self.served_at_ms, self.shown, self.unrendered):
            _drop_first(in_order, (len(in_order) + 1) // 2)
        return self._entry_count() < before

    def _entry_count(self) -> int:
        return sum(len(getattr(self, name)) for name in _COLLECTIONS)

    def _shown_in(self, placement_id: str) -> Shown:
        shown = self.shown.pop(placement_id, None) or Shown()
        self.shown[placement_id] = shown
        if len(self.shown) > SHOWN_PLACEMENT_COUNT_MAX:
            del self.shown[next(iter(self.shown))]
        return shown

    def _drop_oldest_bids(self) -> None:
        served = self.served_at_ms
        if len(served) > SERVED_BID_COUNT_MAX:
            del served[next(iter(served))]
        while len(served) > 1 and sum(map(len, served.values())) > SERVED_TIMES_COUNT_MAX:
            del served[next(iter(served))]

    def take_in(self, other: "VisitorRecord", settings: Settings) -> None:
        """Add another device's state to this one."""
        self.version += 1
        self.view = None
        self.progress_index = None
        self.events = sorted([*self.events, *other.events], key=_at_ms)[-settings.visitor_event_count_max :]
        self._find_session(settings)
        for own, others in (
            (self.category_weight, other.category_weight),
            (self.brand_weight, other.brand_weight),
        ):
            for name, weight in others.items():
                own[name] = own.get(name, 0.0) + weight
            _keep_heaviest(own)
        self.category_total += other.category_total
        self.brand_total += other.brand_total
        for mine, theirs in (
            (self.bought_product, other.bought_product),
            (self.bought_category, other.bought_category),
            (self.bought_brand, other.bought_brand),
        ):
            for name, at_ms in theirs.items():
                _note_last(mine, (name,), at_ms)
        self.purchases.add(other.purchases)
        self.dismissed.update(other.dismissed)
        for bid_id, times in other.served_at_ms.items():
            self.served_at_ms[bid_id] = sorted([*self.served_at_ms.get(bid_id, ()), *times])[-SERVED_TIME_COUNT_MAX:]
        self._drop_oldest_bids()
        for placement_id, others_shown in other.shown.items():
            shown = self._shown_in(placement_id)
            shown.at_ms = sorted([*shown.at_ms, *others_shown.at_ms])[-SHOWN_TIME_COUNT_MAX:]
            shown.clicked_at_ms = max(shown.clicked_at_ms, others_shown.clicked_at_ms)
        self.unrendered = dict(sorted({**self.unrendered, **other.unrendered}.items())[-UNRENDERED_COUNT_MAX:])
        self.seen_at_ms = max(self.seen_at_ms, other.seen_at_ms)

    def copy(self, settings: Settings) -> "VisitorRecord":
        """Return a record of its own with the same state."""
        twin = VisitorRecord(self.pseudonym)
        twin.take_in(self, settings)
        twin.session_began_ms = self.session_began_ms
        twin.profile = self.profile
        twin.entered = self.entered
        return twin

    def changed(self) -> None:
        """Note that events were taken out: views, and progress with patterns, are to be found anew."""
        self.version += 1
        self.view = None
        self.progress_index = None

    def rest_on(
        self, purchases: Purchases, bought: Mapping[str, int], through_ms: int, facts: Mapping[str, ProductFacts]
    ) -> None:
        """Take over the purchases computed up to some moment; those kept from later are added again.

        An event from before that moment no longer adds to them: it is counted, or will be the next time.

        Args:
            purchases: summed up through that moment; copied.
            bought: product id to when it was bought last.
            through_ms: the moment.
            facts: what the catalogue says of each product.
        """
        self.version += 1
        self.view = None
        self.purchases = msgspec.structs.replace(purchases, through_ms=through_ms)
        for product_id, at_ms in bought.items():
            known = facts.get(product_id)
            category_id, brand = (None, None) if known is None else (known.category_id, known.brand)
            self._note_bought(product_id, category_id, brand, at_ms)
        for happening in self.events:
            if happening.action is Action.PURCHASE and happening.at_ms > through_ms:
                known = None if happening.product_id is None else facts.get(happening.product_id)
                self._note_purchase(happening, known)

    def advance(self, targets: "Targets", settings: Settings) -> PatternProgress:
        """Return how far the visitor is with the patterns; from the kept events where the patterns are new."""
        progress, identity = self.progress, targets.pattern_index.identity
        if progress is None or self.progress_index is not identity or self.pending_count > len(self.events):
            progress = self.progress = PatternProgress(settings)
            self.pending_count = len(self.events)
        self.progress_index = identity
        if self.pending_count:
            progress.advance(targets.pattern_index, self.events, self.pending_count)
            self.pending_count = 0
        return progress

    def _place(self, happening: Happening, settings: Settings) -> None:
        events = self.events
        if not events or events[-1].at_ms <= happening.at_ms:
            if not events or happening.at_ms - events[-1].at_ms > settings.session_gap_s * 1000:
                self.session_began_ms = happening.at_ms
            events.append(happening)
            self.pending_count += 1
            if len(events) > settings.visitor_event_count_max:
                del events[0]
            return
        # Late: it goes where it belongs, and patterns are read again from what is kept.
        oldest_ms = events[0].at_ms
        events.insert(bisect_right(events, happening.at_ms, key=_at_ms), happening)
        if len(events) > settings.visitor_event_count_max:
            del events[0]
        self.progress_index = None
        began_ms = self.session_began_ms
        self._find_session(settings)
        if began_ms < oldest_ms:  # it began with an event that is no longer kept
            self.session_began_ms = min(began_ms, self.session_began_ms)

    def _find_session(self, settings: Settings) -> None:
        gap_ms = settings.session_gap_s * 1000
        later_ms = self.events[-1].at_ms if self.events else 0
        for happening in reversed(self.events):
            if later_ms - happening.at_ms > gap_ms:
                break
            later_ms = happening.at_ms
        self.session_began_ms = later_ms

    def _note_purchase(self, happening: Happening, facts: ProductFacts | None) -> None:
        sum_up_purchase(self.purchases, happening, facts)
        self._note_bought(happening.product_id, happening.category_id, happening.brand, happening.at_ms)

    def _note_bought(self, product_id: str | None, category_id: str | None, brand: str | None, at_ms: int) -> None:
        if product_id is not None:
            _note_last(self.bought_product, (product_id,), at_ms)
        if category_id is not None:
            _note_last(self.bought_category, ancestry(category_id), at_ms)
        if brand is not None:
            _note_last(self.bought_brand, (brand,), at_ms)


def sum_up_purchase(purchases: Purchases, happening: Happening, facts: ProductFacts | None) -> None:
    """Count a purchase in a summary of purchases, unless it is from before the moment they were computed through."""
    if happening.at_ms <= purchases.through_ms:
        return
    quantity, price = max(happening.quantity, 1), happening.price_micros
    purchases.note(happening.at_ms, 0 if price is None else price * quantity)
    if facts is not None:
        purchases.note_units(quantity, price, facts.shelf_price_micros, facts.price_rank)


def interest_weight(happening: Happening, settings: Settings) -> float:
    """Return what an event adds to the interest in its category and brand."""
    weight = ACTION_WEIGHT[happening.action]
    return weight and weight * 2.0 ** ((happening.at_ms - EPOCH_MS) / (settings.interest_half_life_s * 1000))


def _take_out(times: list[int] | None, at_ms: int) -> None:
    if times is not None and at_ms in times:
        times.remove(at_ms)


def _note_last(times: dict[str, int], names: Iterable[str], at_ms: int) -> None:
    for name in names:
        known_ms = times.get(name)
        if known_ms is None or known_ms < at_ms:
            times[name] = at_ms
    if len(times) > BOUGHT_COUNT_MAX:
        _keep_greatest(times, BOUGHT_COUNT_MAX - BOUGHT_COUNT_MAX // 4)


def _add_weight(weights: dict[str, float], names: Iterable[str], weight: float) -> None:
    for name in names:
        weights[name] = weights.get(name, 0.0) + weight
    _keep_heaviest(weights)


def _keep_heaviest(weights: dict[str, float]) -> None:
    if len(weights) > INTEREST_COUNT_MAX + INTEREST_COUNT_MAX // 2:
        _keep_greatest(weights, INTEREST_COUNT_MAX)


def _drop_first(in_order: dict[Any, Any], count: int) -> None:
    for key in list(in_order)[:count]:
        del in_order[key]


def _keep_greatest(numbers: dict[str, Any], count: int) -> None:
    for name in sorted(numbers, key=numbers.__getitem__)[: len(numbers) - count]:
        del numbers[name]

"""Whether an audience can hold for anybody at all: what excludes itself is refused when it is saved.

Assumes one node after the other and looks whether what is assumed can hold together. It never calls a possible audience
impossible; of impossible ones it finds those a person writes, not every riddle: of several `any`, each is tried against
what is certain, not against one another.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from affinity.computed import ACTIVE_DAYS, LAPSING_DAYS, NEW_DAYS

if TYPE_CHECKING:
    from affinity.audience import Audience

Subject = tuple[str, str]
Range = tuple[float, float]

INFINITE = float("inf")
ANY_RANGE: Range = (-INFINITE, INFINITE)
ORDER_COUNT = ("counter", "order_count")
DAYS_SINCE_FIRST, DAYS_SINCE_LAST = ("counter", "days_since_first_order"), ("counter", "days_since_last_order")
LIFECYCLE = ("lifecycle", "")
LOYALTY_ATTRIBUTE = "loyalty_tier"

RANGES = ("score", "counter", "attribute", "affinity_category", "affinity_brand")
WORDS = ("rfm", "clv_tier", "lifecycle", "order_status")
OF_BUYERS = frozenset({"rfm", "clv_tier", "order_status", "score"})  # known of those alone who ever bought

# Of each stage: whole days since the first and since the last order.
_STAGE_DAYS: dict[str, tuple[Range, Range]] = {
    "new": ((0, NEW_DAYS), (0, NEW_DAYS)),
    "active": ((NEW_DAYS, INFINITE), (0, ACTIVE_DAYS)),
    "lapsing": ((NEW_DAYS, INFINITE), (ACTIVE_DAYS, LAPSING_DAYS)),
    "lost": ((NEW_DAYS, INFINITE), (LAPSING_DAYS, INFINITE)),
}
_encode = msgspec.json.Encoder(order="sorted").encode


class Assumptions:
    """What is taken to hold of one visitor, so far without contradiction."""

    def __init__(self) -> None:
        self._holds: dict[bytes, bool] = {}
        self._range: dict[Subject, Range] = {ORDER_COUNT: (0, INFINITE)}  # of what is known to be known
        self._outside: dict[Subject, list[Range]] = {}
        self._one_of: dict[Subject, set[Any]] = {LIFECYCLE: {"prospect", *_STAGE_DAYS}}
        self._none_of: dict[Subject, set[Any]] = {}
        self._within: list[tuple[str, str, int]] = []  # what happened, to whom or what, within so many days
        self._not_within: list[tuple[str, str, int]] = []
        self._alternatives: list[list[tuple[Audience, bool]]] = []

    def assume(self, audience: "Audience", holds: bool = True) -> bool:
        """Assume that an audience holds, or that it does not; say whether that is possible."""
        return self._assume(audience, holds) and self._try_alternatives()

    def _copy(self) -> "Assumptions":
        twin = Assumptions()
        twin._holds, twin._range = dict(self._holds), dict(self._range)
        twin._outside = {subject: list(ranges) for subject, ranges in self._outside.items()}
        twin._one_of = {subject: set(values) for subject, values in self._one_of.items()}
        twin._none_of = {subject: set(values) for subject, values in self._none_of.items()}
        twin._within, twin._not_within = list(self._within), list(self._not_within)
        return twin

    def _try_alternatives(self) -> bool:
        """Say whether of each `any` something is possible, beside all that is certain."""
        return all(
            any(self._copy().assume(audience, holds) for audience, holds in alternatives)
            for alternatives in self._alternatives
        )

    def _assume(self, node: "Audience", holds: bool) -> bool:
        if node.not_ is not None:
            return self._assume(node.not_, not holds)
        for children, is_and in ((node.all, True), (node.any, False)):
            if children is None:
                continue
            if is_and is holds or len(children) == 1:
                return all(self._assume(child, holds) for child in children)
            self._alternatives.append([(child, holds) for child in children])
            return True
        key = _encode(node)
        if self._holds.setdefault(key, holds) is not holds:
            return False
        return self._assume_predicate(node, holds)

    def _assume_predicate(self, node: "Audience", holds: bool) -> bool:
        is_bounded = node.at_least is not None or node.at_most is not None
        for head in RANGES:
            name = getattr(node, head)
            if name is not None and is_bounded:
                low = -INFINITE if node.at_least is None else node.at_least
                high = INFINITE if node.at_most is None else node.at_most
                return self._range_is((head, name), (low, high), holds)
        for head in WORDS:
            words = getattr(node, head)
            if words is not None:
                return self._word_is((head, ""), set(words), holds)
        if node.loyalty_tier is not None:
            return self._word_is(("attribute", LOYALTY_ATTRIBUTE), set(node.loyalty_tier), holds)
        if node.attribute is not None:
            values = [node.equals] if node.one_of is None else node.one_of
            return self._word_is(("attribute", node.attribute), set(values), holds)
        happened = list(_happenings(node))
        if not happened:
            return True
        return self._happened(happened, is_order=node.entered_segment is None, holds=holds)

    # --- ranges ----------------------------------------------------------------------------------------------------

    def _range_is(self, subject: Subject, asked: Range, holds: bool) -> bool:
        if not holds:
            self._outside.setdefault(subject, []).append(asked)
            return self._has_room(subject)
        low, high = self._range.get(subject, ANY_RANGE)
        self._range[subject] = max(low, asked[0]), min(high, asked[1])
        if (subject[0] in OF_BUYERS or subject in (DAYS_SINCE_FIRST, DAYS_SINCE_LAST)) and not self._has_bought():
            return False
        return self._has_room(subject) and self._days_fit() and self._shares_fit()

    def _has_room(self, subject: Subject) -> bool:
        """Say whether something of the subject's range is left, once what it is not was taken out."""
        if subject not in self._range:
            return True  # perhaps nothing is known of it, and then no range holds
        low, high = self._range[subject]
        if low > high:
            return False
        step = 1 if subject[0] == "counter" else 0
        covered = -INFINITE
        for first, last in sorted(self._outside.get(subject, ())):
            if first > low and first > covered + step:
                break
            covered = max(covered, last)
        if covered >= high:
            return False
        values = self._one_of.get(subject)
        return values is None or any(_lies_in(value, low, high) for value in values)

    def _days_fit(self) -> bool:
        """The first order is no later than the last."""
        return self._range.get(DAYS_SINCE_FIRST, ANY_RANGE)[1] >= self._range.get(DAYS_SINCE_LAST, (0, INFINITE))[0]

    def _shares_fit(self) -> bool:
        """Shares of brands are shares of one whole."""
        return sum(low for (head, _), (low, _) in self._range.items() if head == "affinity_brand") <= 1 + 1e-9

    def _has_bought(self) -> bool:
        low, high = self._range[ORDER_COUNT]
        self._range[ORDER_COUNT] = max(low, 1), high
        self._one_of[LIFECYCLE].discard("prospect")
        return self._has_room(ORDER_COUNT) and bool(self._one_of[LIFECYCLE] - self._none_of.get(LIFECYCLE, set()))

    # --- words -----------------------------------------------------------------------------------------------------

    def _word_is(self, subject: Subject, words: set[Any], holds: bool) -> bool:
        if holds:
            self._one_of[subject] = self._one_of.get(subject, words) & words
        else:
            self._none_of.setdefault(subject, set()).update(words)
        if subject not in self._one_of:
            return True
        left = self._one_of[subject] - self._none_of.get(subject, set())
        if not left or not self._has_room(subject):
            return False
        if subject == LIFECYCLE:
            return self._stage_is(left)
        return not holds or subject[0] not in OF_BUYERS or self._has_bought()

    def _stage_is(self, stages: set[str]) -> bool:
        if stages == {"prospect"}:
            return self._range_is(ORDER_COUNT, (0, 0), True)
        if "prospect" in stages:
            return True
        if not self._has_bought():
            return False
        for place, subject in enumerate((DAYS_SINCE_FIRST, DAYS_SINCE_LAST)):
            lows, highs = zip(*(_STAGE_DAYS[stage][place] for stage in stages), strict=True)
            low, high = self._range.get(subject, ANY_RANGE)
            self._range[subject] = max(low, min(lows)), min(high, max(highs))
            if not self._has_room(subject):
                return False
        return self._days_fit()

    # --- what happened within days ---------------------------------------------------------------------------------

    def _happened(self, happened: list[tuple[str, str, int]], *, is_order: bool, holds: bool) -> bool:
        if not holds:
            self._not_within += happened
        elif len(happened) == 1:
            self._within += happened
        if holds and is_order:
            days = happened[0][2]
            if not self._has_bought() or not self._range_is(DAYS_SINCE_LAST, (0, days), True):
                return False
        return not any(
            kind == other_kind and days <= other_days and _is_part(kind, name, other)
            for kind, name, days in self._within
            for other_kind, other, other_days in self._not_within
        )


def _happenings(node: "Audience") -> Iterable[tuple[str, str, int]]:
    """Yield (kind, name, days) of what a predicate says happened; of several, any."""
    if node.bought_product_within_days is not None:
        for product_id in node.product_ids or ():
            yield "product", product_id, node.bought_product_within_days
    elif node.bought_category_within_days is not None:
        yield "category", node.category_id or "", node.bought_category_within_days
    elif node.bought_brand_within_days is not None:
        yield "brand", node.brand or "", node.bought_brand_within_days
    elif node.entered_segment is not None and node.within_days is not None:
        yield "entered", f"{node.entered_segment}\n{node.from_segment or ''}", node.within_days


def _is_part(kind: str, name: str, other: str) -> bool:
    """Say whether whoever did this with the name did it with the other too."""
    if name == other:
        return True
    if kind == "category":
        return name.startswith(other + " > ")
    return kind == "entered" and other == name.partition("\n")[0] + "\n"


def _lies_in(value: Any, low: float, high: float) -> bool:
    return not isinstance(value, (int, float)) or low <= value <= high

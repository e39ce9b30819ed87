"""Everything bids are aimed at, compiled: testing an audience or a pattern in an auction is one bit.

Equal predicates and equal subtrees of all audiences are kept once. A visitor's own facts (few) say which predicates
hold; one pass of a kernel over the distinct nodes says which audiences do.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from affinity.audience import Audience, without_lists
from affinity.computed import DAY_MS, CustomerScale, clv_tier, lifecycle, price_tier, promophile_score, rfm_class
from affinity.contradiction import LOYALTY_ATTRIBUTE
from affinity.kernel import NODE_ALL, NODE_ANY, NODE_LEAF, NODE_NOT, evaluate_nodes_nb
from affinity.matching import PatternIndex
from affinity.pattern import NavigationPattern
from affinity.product_sets import NO_SETS, ProductSets
from affinity.record import VisitorRecord
from affinity.settings import Settings

Bits = NDArray[np.uint64]
Range = tuple[float, float, int]
FOREVER_MS = 1 << 62

T = TypeVar("T")

_encode = msgspec.json.Encoder(order="sorted").encode


class Targets:
    """Audiences and patterns compiled for one snapshot; row i is the i-th of each.

    Attributes:
        audiences, patterns: as they were given.
        audience_word_count, pattern_word_count: length of a visitor's bit arrays.
        pattern_index: what an event is looked up in.
        identity: what a visitor's record remembers these targets by, without keeping them in memory.

    Args:
        pattern_index: the patterns' own.
    """

    def __init__(
        self,
        audiences: Sequence[Audience],
        patterns: Sequence[NavigationPattern],
        pattern_index: PatternIndex,
    ) -> None:
        self.identity = object()
        self.audiences = list(audiences)
        self.patterns = list(patterns)
        self.audience_word_count = (len(self.audiences) + 63) // 64
        self.pattern_word_count = (len(self.patterns) + 63) // 64
        self.no_audience_bits: Bits = frozen(np.zeros(self.audience_word_count, np.uint64))
        self.no_pattern_bits: Bits = frozen(np.zeros(self.pattern_word_count, np.uint64))
        self.pattern_index = pattern_index
        nodes = _Nodes()
        roots = [nodes.add(without_lists(audience)) for audience in self.audiences]
        self.leaves = nodes.leaves
        self._kind = np.array(nodes.kind, np.int8)
        self._first = np.array([*nodes.first, len(nodes.child)], np.int64)
        self._child = np.array(nodes.child, np.int64)
        self._root = np.array(roots, np.int64)
        self._leaf_count = nodes.leaves.count

    def audience_bits(self, record: VisitorRecord | None, scale: CustomerScale, now_ms: int) -> tuple[Bits, int]:
        """Return the bits of the audiences the visitor is in now, and until when no other answer is possible."""
        if not self.audiences:
            return self.no_audience_bits, FOREVER_MS
        holds = np.zeros(self._leaf_count, np.uint8)
        until_ms = self.leaves.mark(record, scale, now_ms, holds)
        bits = np.zeros(self.audience_word_count, np.uint64)
        evaluate_nodes_nb(self._kind, self._first, self._child, holds, self._root, bits)
        return frozen(bits), until_ms

    def predicates_of(self, record: VisitorRecord, scale: CustomerScale, now_ms: int) -> NDArray[np.uint8]:
        """Return (P,) which of the distinct predicates hold of the visitor now."""
        holds = np.zeros(self._leaf_count, np.uint8)
        self.leaves.mark(record, scale, now_ms, holds)
        return holds

    def count_root(self, holds: NDArray[np.bool_], count_min: float) -> int:
        """Return of how many visitors the first audience holds, its parts being bitsets over them.

        Args:
            holds: (V, P) which predicates hold of which visitor, see `predicates_of`.
            count_min: a part that holds for fewer counts as holding for nobody.
        """
        root = int(self._root[0])
        columns: list[NDArray[np.bool_]] = []
        for row, kind in enumerate(self._kind):
            children = self._child[self._first[row] : self._first[row + 1]]
            if kind == NODE_LEAF:
                column = holds[:, children[0]]
            elif kind == NODE_NOT:
                column = ~columns[children[0]]
            else:
                join = np.logical_and if kind == NODE_ALL else np.logical_or
                column = join.reduce([columns[child] for child in children])
            is_too_small = row != root and np.count_nonzero(column) < count_min
            columns.append(np.zeros_like(column) if is_too_small else column)
        return int(np.count_nonzero(columns[root]))

    def pattern_bits(self, record: VisitorRecord | None, settings: Settings, now_ms: int) -> tuple[Bits, int]:
        """Return the bits of the patterns that hold for the visitor now, and until when no other answer is possible."""
        if record is None or not self.patterns:
            return self.no_pattern_bits, FOREVER_MS
        progress = record.advance(self, settings)
        if not progress.complete:
            return self.no_pattern_bits, FOREVER_MS
        rows, until_ms = progress.holding(self.pattern_index, now_ms)
        return set_bits(rows, self.pattern_word_count), until_ms


def compile_targets(
    audiences: Sequence[Audience],
    patterns: Sequence[NavigationPattern],
    previous: Targets | None = None,
    sets: ProductSets = NO_SETS,
) -> Targets:
    """Compile what bids are aimed at; row i of the bits is the i-th audience or pattern.

    Args:
        audiences: valid ones; those about a brand name it.
        patterns: valid ones.
        previous: targets compiled before. They are returned again where they are of the same audiences and patterns;
            of the same patterns, these are not compiled again. So nothing a visitor did has to be read again, unless a
            product target is about other products than before.
        sets: which products the patterns' product targets are about.
    """
    audiences, patterns = list(audiences), list(patterns)
    if previous is None or previous.patterns != patterns:
        return Targets(audiences, patterns, PatternIndex(patterns, sets))
    index = previous.pattern_index
    if sets.says_the_same(index.sets):
        index.sets = sets  # lets go of the memory behind the earlier ones
        return previous if previous.audiences == audiences else Targets(audiences, patterns, index)
    if not sets.has_same_targets(index.sets):
        return Targets(audiences, patterns, PatternIndex(patterns, sets))
    return Targets(audiences, patterns, index.with_sets(sets))


def set_bits(rows: Sequence[int], word_count: int) -> Bits:
    """Return so many words with the bits of the rows set: row r is bit r % 64 of word r // 64."""
    raw = bytearray(word_count * 8)
    for row in rows:
        raw[row >> 3] |= 1 << (row & 7)
    return np.frombuffer(bytes(raw), dtype="<u8").astype(np.uint64, copy=False)


def has_bit(bits: Bits, row: int) -> bool:
    """Say whether a row's bit is set."""
    return bool(int(bits[row >> 6]) >> (row & 63) & 1)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Make an array read-only and return it."""
    array.setflags(write=False)
    return array


class _Leaves:
    """Every distinct predicate, filed under the facts that can make it hold."""

    def __init__(self) -> None:
        self.count = 0
        self._number: dict[bytes, int] = {}
        self.segment: dict[str, list[int]] = {}
        self.rfm: dict[str, list[int]] = {}
        self.clv_tier: dict[str, list[int]] = {}
        self.order_status: dict[str, list[int]] = {}
        self.lifecycle: dict[str, list[int]] = {}
        self.attribute_value: dict[tuple[str, Any], list[int]] = {}
        self.attribute_range: dict[str, list[Range]] = {}
        self.score: dict[str, list[Range]] = {}
        self.counter: dict[str, list[Range]] = {}
        self.bought_product: dict[str, list[tuple[int, int]]] = {}
        self.bought_category: dict[str, list[tuple[int, int]]] = {}
        self.bought_brand: dict[str, list[tuple[int, int]]] = {}
        self.entered: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self.category_share: dict[str, list[Range]] = {}
        self.brand_share: dict[str, list[Range]] = {}

    def add(self, node: Audience) -> int:
        """Return the predicate's number, filing it if it is new."""
        key = _encode(node)
        known = self._number.get(key)
        if known is not None:
            return known
        number = self._number[key] = self.count
        self.count += 1
        low = float("-inf") if node.at_least is None else node.at_least
        high = float("inf") if node.at_most is None else node.at_most
        bounds = (low, high, number)
        if node.segment is not None:
            _file(self.segment, node.segment, number)
        elif node.attribute is not None:
            values = node.one_of or ([] if node.equals is None else [node.equals])
            _file_all(self.attribute_value, [(node.attribute, value) for value in values], number)
            if not values:
                _file(self.attribute_range, node.attribute, bounds)
        elif node.score is not None:
            _file(self.score, node.score, bounds)
        elif node.counter is not None:
            _file(self.counter, node.counter, bounds)
        elif node.rfm is not None:
            _file_all(self.rfm, node.rfm, number)
        elif node.clv_tier is not None:
            _file_all(self.clv_tier, node.clv_tier, number)
        elif node.lifecycle is not None:
            _file_all(self.lifecycle, node.lifecycle, number)
        elif node.order_status is not None:
            _file_all(self.order_status, node.order_status, number)
        elif node.loyalty_tier is not None:
            _file_all(self.attribute_value, [(LOYALTY_ATTRIBUTE, one) for one in node.loyalty_tier], number)
        elif node.entered_segment is not None and node.within_days is not None:
            key_of_entry = node.entered_segment, node.from_segment or ""
            _file(self.entered, key_of_entry, (node.within_days * DAY_MS, number))
        elif node.affinity_category is not None:
            _file(self.category_share, node.affinity_category, bounds)
        elif node.affinity_brand is not None:
            _file(self.brand_share, node.affinity_brand, bounds)
        elif node.bought_product_within_days is not None:
            for product_id in node.product_ids or ():
                _file(self.bought_product, product_id, (node.bought_product_within_days * DAY_MS, number))
        elif node.bought_category_within_days is not None and node.category_id is not None:
            _file(self.bought_category, node.category_id, (node.bought_category_within_days * DAY_MS, number))
        elif node.bought_brand_within_days is not None and node.brand is not None:
            _file(self.bought_brand, node.brand, (node.bought_brand_within_days * DAY_MS, number))
        else:
            raise ValueError(f"an audience must be validated before it is compiled, was {key.decode()}")
        return number

    def mark(self, record: VisitorRecord | None, scale: CustomerScale, now_ms: int, holds: NDArray[np.uint8]) -> int:
        """Set what holds of the visitor now; return until when time alone changes nothing."""
        if record is None:
            for number in self.lifecycle.get("prospect", ()):
                holds[number] = 1
            _mark_ranges(self.counter.get("order_count"), 0.0, holds)
            return FOREVER_MS
        if record.profile is not None:
            self._mark_profile(record, holds)
        until_ms = FOREVER_MS
        if self.category_share and record.category_total:
            _mark_shares(self.category_share, record.category_weight, record.category_total, holds)
        if self.brand_share and record.brand_total:
            _mark_shares(self.brand_share, record.brand_weight, record.brand_total, holds)
        for filed, times in (
            (self.bought_product, record.bought_product),
            (self.bought_category, record.bought_category),
            (self.bought_brand, record.bought_brand),
            (self.entered, record.entered),
        ):
            if filed and times:
                until_ms = min(until_ms, _mark_recent(filed, times, now_ms, holds))
        return min(until_ms, self._mark_computed(record, scale, now_ms, holds))

    def _mark_profile(self, record: VisitorRecord, holds: NDArray[np.uint8]) -> None:
        assert record.profile is not None
        for segment_id in record.profile.segments:
            for number in self.segment.get(segment_id, ()):
                holds[number] = 1
        for name, value in record.profile.attributes.items():
            for number in self.attribute_value.get((name, value), ()):
                holds[number] = 1
            if isinstance(value, (int, float)):
                _mark_ranges(self.attribute_range.get(name), value, holds)

    def _mark_computed(self, record: VisitorRecord, scale: CustomerScale, now_ms: int, holds: NDArray[np.uint8]) -> int:
        purchases = record.purchases
        if self.rfm:
            for number in self.rfm.get(rfm_class(purchases, scale) or "", ()):
                holds[number] = 1
        if self.clv_tier:
            for number in self.clv_tier.get(clv_tier(purchases, scale) or "", ()):
                holds[number] = 1
        for number in self.lifecycle.get(lifecycle(purchases, now_ms), ()):
            holds[number] = 1
        _mark_ranges(self.score.get("promophile"), promophile_score(purchases, scale), holds)
        _mark_ranges(self.score.get("price_tier"), price_tier(purchases), holds)
        _mark_ranges(self.counter.get("order_count"), purchases.order_count, holds)
        if not purchases.order_count:
            return FOREVER_MS
        for number in self.order_status.get(purchases.last_order_status, ()):
            holds[number] = 1
        since_first_ms, since_last_ms = now_ms - purchases.first_at_ms, now_ms - purchases.last_at_ms
        _mark_ranges(self.counter.get("days_since_first_order"), since_first_ms // DAY_MS, holds)
        _mark_ranges(self.counter.get("days_since_last_order"), since_last_ms // DAY_MS, holds)
        # Days since turn over once a day each, and so do the bounds of the lifecycle.
        return now_ms + min(DAY_MS - since_first_ms % DAY_MS, DAY_MS - since_last_ms % DAY_MS) - 1


class _Nodes:
    """The distinct nodes of all audiences, children before parents."""

    def __init__(self) -> None:
        self.leaves = _Leaves()
        self.kind: list[int] = []
        self.first: list[int] = []
        self.child: list[int] = []
        self._row: dict[tuple[int, tuple[int, ...]], int] = {}

    def add(self, audience: Audience) -> int:
        """Return the row of the tree's root, its nodes added where they are new."""
        if audience.all is not None:
            return self._add(NODE_ALL, tuple(sorted({self.add(child) for child in audience.all})))
        if audience.any is not None:
            return self._add(NODE_ANY, tuple(sorted({self.add(child) for child in audience.any})))
        if audience.not_ is not None:
            return self._add(NODE_NOT, (self.add(audience.not_),))
        return self._add(NODE_LEAF, (self.leaves.add(audience),))

    def _add(self, kind: int, children: tuple[int, ...]) -> int:
        row = self._row.get((kind, children))
        if row is None:
            row = self._row[kind, children] = len(self.kind)
            self.kind.append(kind)
            self.first.append(len(self.child))
            self.child.extend(children)
        return row


def _file(filed: dict[Any, list[T]], key: Any, thing: T) -> None:
    filed.setdefault(key, []).append(thing)


def _file_all(filed: dict[Any, list[T]], keys: Sequence[Any], thing: T) -> None:
    for key in dict.fromkeys(keys):
        _file(filed, key, thing)


def _mark_ranges(ranges: list[Range] | None, value: float | None, holds: NDArray[np.uint8]) -> None:
    if ranges is None or value is None:
        return
    for low, high, number in ranges:
        if low <= value <= high:
            holds[number] = 1


def _mark_shares(
    filed: dict[str, list[Range]], weights: dict[str, float], total: float, holds: NDArray[np.uint8]
) -> None:
    for name, weight in weights.items():
        _mark_ranges(filed.get(name), weight / total, holds)


def _mark_recent(
    filed: dict[Any, list[tuple[int, int]]], times: Mapping[Any, int], now_ms: int, holds: NDArray[np.uint8]
) -> int:
    until_ms = FOREVER_MS
    for name, at_ms in times.items():
        for within_ms, number in filed.get(name, ()):
            if now_ms - at_ms <= within_ms:
                holds[number] = 1
                until_ms = min(until_ms, at_ms + within_ms)
    return until_ms

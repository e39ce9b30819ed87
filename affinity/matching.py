"""Navigation patterns, compiled: an event touches only the patterns that mention it.

Every step is filed under its most telling condition: of its product, brand, category, brand in category, words,
traffic source and product target, the one that fewest steps ask for (a target that is about many products counts for
more). So an event looks a handful of keys up however many patterns there are; and of `without` and of the steps after
the first, it looks at no more than the patterns the visitor has begun.

What a visitor has done of a pattern is one row: `progress[j]` is the latest moment at which a run of the first `j`
wanted events can have begun. The latest beginning is the best one in every way: it expires last, it is kept longest,
and the fewest `without` events lie after it. So a `without` event forgets the row, and the pattern holds while
`progress[-1]` lies in the window.

Everything here follows from the visitor's kept events, and from which products the targets are about now: it may be
forgotten at any time and read again from them. The README of this package draws the edge cases;
`tests/affinity/naive.py` says the same by re-reading the history.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from functools import lru_cache
from itertools import chain, islice, takewhile
from typing import NamedTuple

from affinity.catalog import category_and_ancestors
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep, words_of
from affinity.product_sets import NO_PRODUCT, NO_SETS, ProductSets
from affinity.settings import Settings

NO_TARGET = -1
FORBIDDEN = -1  # what stands for the base of a `without`
NO_WORDS: frozenset[str] = frozenset()


class Moment(NamedTuple):
    """When a run began: the time of its first event, and that event's place among all that were taken account of."""

    at_ms: int
    number: int


class Happening(NamedTuple):
    """One event of a visitor as it is kept: what its product was is looked up when it arrives.

    Attributes:
        at_ms: when it occurred.
        action: what was done.
        category_id: the event's own, else the product's; None where neither is known.
        price_micros: the event's own, else what the product cost; None where neither is known.
        query: what was searched for, without case.
        traffic_source: where the visitor came from, without case.
    """

    at_ms: int
    action: Action
    product_id: str | None = None
    category_id: str | None = None
    brand: str | None = None
    price_micros: int | None = None
    quantity: int = 1
    query: str | None = None
    traffic_source: str | None = None


class _Entry(NamedTuple):
    """One step as it is filed. Ordered so that `without` comes first and later steps before earlier ones."""

    pattern_row: int
    order: int  # 0 for `without`, else more for earlier steps
    base: int  # wanted events before this step; FORBIDDEN for `without`
    wanted: int
    step: PatternStep
    words: frozenset[str]
    traffic_source: str | None
    target: int  # number of its product target; NO_TARGET for none
    is_exact: bool  # the key it is filed under is all it asks


_Key = tuple[str, str | tuple[str, str] | int]


class _StepIndex:
    """Steps that ask for one action, by the condition they are filed under."""

    __slots__ = (
        "asks_words",
        "brand_categories",
        "brands",
        "categories",
        "everything",
        "filed_targets",
        "products",
        "sources",
        "targets",
        "words",
    )

    def __init__(self) -> None:
        self.products: dict[str, list[_Entry]] = {}
        self.brand_categories: dict[tuple[str, str], list[_Entry]] = {}  # a brand in a category
        self.words: dict[str, list[_Entry]] = {}
        self.brands: dict[str, list[_Entry]] = {}
        self.categories: dict[str, list[_Entry]] = {}
        self.sources: dict[str, list[_Entry]] = {}
        self.targets: dict[int, list[_Entry]] = {}
        self.filed_targets = 0  # bits of their numbers
        self.everything: list[_Entry] = []
        self.asks_words = False

    def file(self, entry: _Entry, key: _Key | None) -> None:
        """File a step under a condition, or under its action alone."""
        self.asks_words = self.asks_words or bool(entry.words)
        if key is None:
            self.everything.append(entry)
        else:
            getattr(self, key[0]).setdefault(key[1], []).append(entry)
        if key is not None and key[0] == "targets":
            self.filed_targets |= 1 << entry.target

    def look_up(self, happening: Happening, mention: "_Mention") -> Iterator[list[_Entry]]:
        """Yield the steps that may be of the event: those filed under something it mentions."""
        if self.everything:
            yield self.everything
        if self.products and happening.product_id is not None:
            yield self.products.get(happening.product_id, [])
        brand = happening.brand
        if self.brands and brand is not None:
            yield self.brands.get(brand, [])
        if happening.category_id is not None and (self.categories or self.brand_categories):
            for category_id in ancestry(happening.category_id):
                yield self.categories.get(category_id, [])
                if brand is not None and self.brand_categories:
                    yield self.brand_categories.get((brand, category_id), [])
        if self.words:
            for word in mention.words:
                yield self.words.get(word, [])
        if self.sources and happening.traffic_source is not None:
            yield self.sources.get(happening.traffic_source, [])
        if self.targets and mention.product_row != NO_PRODUCT:
            for number in mention.sets.numbers(mention.product_row, self.filed_targets):
                yield self.targets[number]


class _Mention(NamedTuple):
    """What else an event mentions, found out as far as some step asks for it."""

    words: frozenset[str]
    product_row: int
    sets: ProductSets


class PatternIndex:
    """Patterns compiled for one set of targets; row i is the i-th pattern.

    Args:
        patterns: valid ones, in row order.
        sets: which products their product targets are about; all of these are in it.

    Attributes:
        sets: the same. It may be replaced by one that says the same.
        identity: what a visitor's record remembers this index by, without keeping it in memory.
    """

    def __init__(self, patterns: Sequence[NavigationPattern], sets: ProductSets = NO_SETS) -> None:
        self.identity, self.sets = object(), sets
        self.length = [1 + sum(step.at_least for step in pattern.steps) for pattern in patterns]
        self.within_ms = [
            None if pattern.within == "session" else pattern.within * 1000 for pattern in patterns
        ]  # None: the session
        self._first: dict[Action, _StepIndex] = {}
        self._later: dict[Action, _StepIndex] = {}  # and `without`
        self._later_of: list[list[_Entry]] = [[] for _ in patterns]
        asked = [[_ask(step, sets) for step in (*pattern.without, *pattern.steps)] for pattern in patterns]
        counts: dict[_Key, float] = {}
        for of_pattern in asked:
            for step in of_pattern:
                for key in step.keys:
                    counts[key] = counts.get(key, 0) + 1
        # An event mentions one brand, but every target its product is of: wide ones are as good as asked for together.
        asking_count = sum(count for key, count in counts.items() if key[0] == "targets")
        for number, share in enumerate(sets.shares() if asking_count else ()):
            counts["targets", number] = max(counts.get(("targets", number), 0), share * asking_count)
        for row, (pattern, of_pattern) in enumerate(zip(patterns, asked, strict=True)):
            without_count, base = len(pattern.without), 0
            for step in of_pattern[:without_count]:
                self._file(row, 0, FORBIDDEN, step, counts)
            for index, step in enumerate(of_pattern[without_count:]):
                self._file(row, len(pattern.steps) - index, base, step, counts)
                base += step.step.at_least

    def with_sets(self, sets: ProductSets) -> "PatternIndex":
        """Return the same patterns with the same targets being about other products. Shares everything else."""
        twin = copy(self)
        twin.identity, twin.sets = object(), sets
        return twin

    def find(self, happening: Happening, followed: Collection[int], first_count_max: int) -> list[_Entry]:
        """Return the steps the event is one of, in the order they must be taken account of.

        Args:
            happening: the event.
            followed: rows of the patterns begun before it; of others, only first steps matter.
            first_count_max: patterns there is room for: if more begin with it, the last of them are found.
        """
        action = happening.action
        first, later = self._first.get(action), self._later.get(action) if followed else None
        if first is None and later is None:
            return []
        words = NO_WORDS
        if happening.query is not None and ((first and first.asks_words) or (later and later.asks_words)):
            words = words_of(happening.query)
        sets = self.sets
        mention = _Mention(words, sets.row_of(happening.product_id) if len(sets) else NO_PRODUCT, sets)
        hits: list[_Entry] = []
        if first is not None:
            for entries in first.look_up(happening, mention):
                hits += islice(_agreeing(reversed(entries), happening, mention), first_count_max)
        if later is not None:
            hits += self._find_later(later, happening, mention, followed)
        if len(hits) > 1:
            hits.sort(key=_by_order)
        return hits

    def _find_later(
        self, later: _StepIndex, happening: Happening, mention: _Mention, followed: Collection[int]
    ) -> Iterable[_Entry]:
        filed, count = [], 0
        for entries in later.look_up(happening, mention):
            filed.append(entries)
            count += len(entries)
            if count > len(followed):
                break
        else:
            return _agreeing(chain.from_iterable(filed), happening, mention)
        return [
            entry
            for row in followed
            for entry in self._later_of[row]
            if entry.step.action == happening.action and _agrees(entry, happening, mention)
        ]

    def _file(self, row: int, order: int, base: int, asked: "_Asked", counts: dict[_Key, float]) -> None:
        step, keys = asked.step, asked.keys
        key = keys[0] if len(keys) == 1 else min(keys, key=counts.__getitem__, default=None)
        covered = 0 if key is None else 2 if key[0] == "brand_categories" else 1
        is_exact = asked.condition_count == covered
        entry = _Entry(row, order, base, step.at_least, step, asked.words, asked.traffic_source, asked.target, is_exact)
        indexes = self._later if base else self._first
        index = indexes.get(step.action)
        if index is None:
            index = indexes[step.action] = _StepIndex()
        index.file(entry, key)
        if base:
            self._later_of[row].append(entry)


class PatternProgress:
    """How far one visitor is with each pattern it has begun.

    A pattern is followed from the first event of a run until a `without` event; until that event is no longer kept;
    until a session begins after its window ended in an earlier one; or until the patterns begun after it want
    `visitor_pattern_size_max` events with it. So its size is bounded, and what can no longer hold does not stay.

    Args:
        settings: this package's.

    Attributes:
        complete: pattern row to the latest moment a whole run can have begun.
        size: wanted events of the patterns that are followed.
    """

    __slots__ = ("_count", "_last_ms", "_oldest", "_progress", "_session_gap_ms", "_size_max", "complete", "size")

    def __init__(self, settings: Settings) -> None:
        self.complete: dict[int, Moment] = {}
        self.size = 0
        self._session_gap_ms = settings.session_gap_s * 1000
        self._size_max = settings.visitor_pattern_size_max
        self._progress: dict[int, list[Moment | None]] = {}  # begun longest ago first
        self._count = 0  # events taken account of
        self._oldest = 0  # number of the oldest event that is kept
        self._last_ms = 0

    def advance(self, index: PatternIndex, events: Sequence[Happening], pending_count: int) -> None:
        """Take account of the last so many of the kept events, in their order."""
        for happening in events[len(events) - pending_count :]:
            at_ms = happening.at_ms
            if self._progress and at_ms - self._last_ms > self._session_gap_ms:
                self._forget_ended(index)
            self._last_ms = at_ms
            hits = index.find(happening, self._progress.keys(), self._size_max)
            if hits:
                self._take(index, hits, Moment(at_ms, self._count))
            self._count += 1
        self._oldest = self._count - len(events)
        for row in list(takewhile(lambda row: self._begun_last(row).number < self._oldest, self._progress)):
            self._forget(row)

    def holding(self, index: PatternIndex, now_ms: int) -> tuple[list[int], int]:
        """Return the rows of the patterns that hold now, and until when no other answer is possible.

        Args:
            index: the one it was advanced with.
            now_ms: the moment asked about.
        """
        session_ends_ms = self._last_ms + self._session_gap_ms
        rows: list[int] = []
        until_ms = 1 << 62
        for row, (began_ms, number) in self.complete.items():
            if number < self._oldest:
                continue
            within_ms = index.within_ms[row]
            # Those of earlier sessions were forgotten when this one began.
            ends_ms = session_ends_ms if within_ms is None else began_ms + within_ms
            if now_ms <= ends_ms:
                rows.append(row)
                until_ms = min(until_ms, ends_ms)
        return rows, until_ms

    def _take(self, index: PatternIndex, hits: list[_Entry], moment: Moment) -> None:
        for row, _order, base, wanted, *_ in hits:
            progress = self._progress.get(row)
            if base == FORBIDDEN:
                if progress is not None:
                    self._forget(row)
                continue
            if base == 0:
                if progress is None:
                    progress = [None] * index.length[row]
                    self.size += len(progress) - 1
                else:
                    del self._progress[row]
                self._progress[row] = progress  # last: begun latest
                progress[0] = moment
            elif progress is None:
                continue
            progress[base + 1 : base + wanted + 1] = progress[base : base + wanted]
            began = progress[-1]
            if began is not None:
                self.complete[row] = began
        if self.size > self._size_max:
            self._make_room()

    def _make_room(self) -> None:
        excess, gone = self.size - self._size_max, []
        for row, progress in self._progress.items():
            if excess <= 0:
                break
            excess -= len(progress) - 1
            gone.append(row)
        for row in gone:
            self._forget(row)

    def _forget_ended(self, index: PatternIndex) -> None:
        """Forget the patterns that cannot hold when a session begins after the last event.

        A window counts as ended where it was at that event: the one that begins the session may be reported ahead of
        its time, and the window goes on until then.
        """
        for row in list(self._progress):
            within_ms = index.within_ms[row]
            if within_ms is None or self._begun_last(row).at_ms + within_ms < self._last_ms:
                self._forget(row)

    def _forget(self, row: int) -> None:
        self.size -= len(self._progress.pop(row)) - 1
        self.complete.pop(row, None)

    def _begun_last(self, row: int) -> Moment:
        began = self._progress[row][1]
        assert began is not None
        return began


def holding_rows(index: PatternIndex, events: Sequence[Happening], settings: Settings, now_ms: int) -> list[int]:
    """Return the rows of the patterns that hold now for whoever these are the kept events of."""
    progress = PatternProgress(settings)
    progress.advance(index, events, len(events))
    return progress.holding(index, now_ms)[0]


def are_of_step(step: PatternStep, events: Sequence[Happening], sets: ProductSets = NO_SETS) -> list[bool]:
    """Say of each event whether it is what a step asks for; `sets` has the step's product target, if it names one."""
    asked = _ask(step, sets)
    return [
        event.action is step.action
        and _agrees(
            asked,
            event,
            _Mention(NO_WORDS if event.query is None else words_of(event.query), sets.row_of(event.product_id), sets),
        )
        for event in events
    ]


@lru_cache(maxsize=65_536)
def ancestry(category_id: str) -> tuple[str, ...]:
    """Return the category and those above it."""
    return tuple(category_and_ancestors(category_id))


def _by_order(entry: _Entry) -> tuple[int, int]:
    return entry.pattern_row, entry.order


class _Asked(NamedTuple):
    """What a step asks for, made ready to be filed.

    Attributes:
        keys: what it can be filed under; where several are asked for as seldom, the first is taken.
    """

    step: PatternStep
    words: frozenset[str]
    traffic_source: str | None
    target: int
    keys: list[_Key]
    condition_count: int


def _ask(step: PatternStep, sets: ProductSets) -> _Asked:
    keys: list[_Key] = []
    words, source, brand, category_id = NO_WORDS, None, step.brand, step.category_id
    count = (step.price_at_least_micros is not None) + (step.price_at_most_micros is not None)
    if step.product_id is not None:
        keys.append(("products", step.product_id))
        count += 1
    if step.query_contains is not None:
        words = words_of(step.query_contains)
        keys += [("words", word) for word in sorted(words)]
        count += len(words)
    if brand is not None:
        if category_id is not None:
            keys.append(("brand_categories", (brand, category_id)))
        keys.append(("brands", brand))
        count += 1
    if category_id is not None:
        keys.append(("categories", category_id))
        count += 1
    if step.traffic_source is not None:
        source = step.traffic_source.casefold()
        keys.append(("sources", source))
        count += 1
    target = NO_TARGET
    if step.product_target is not None:
        target = sets.number_of(step.product_target)
        keys.append(("targets", target))
        count += 1
    return _Asked(step, words, source, target, keys, count)


def _agreeing(entries: Iterable[_Entry], happening: Happening, mention: _Mention) -> Iterator[_Entry]:
    return (entry for entry in entries if entry.is_exact or _agrees(entry, happening, mention))


def _agrees(entry: _Entry | _Asked, happening: Happening, mention: _Mention) -> bool:
    step = entry.step
    if step.product_id is not None and step.product_id != happening.product_id:
        return False
    if step.brand is not None and step.brand != happening.brand:
        return False
    if step.category_id is not None and (
        happening.category_id is None or step.category_id not in ancestry(happening.category_id)
    ):
        return False
    price = happening.price_micros
    if step.price_at_least_micros is not None and (price is None or price < step.price_at_least_micros):
        return False
    if step.price_at_most_micros is not None and (price is None or price > step.price_at_most_micros):
        return False
    if entry.traffic_source is not None and entry.traffic_source != happening.traffic_source:
        return False
    if entry.target != NO_TARGET and not mention.sets.is_about(entry.target, mention.product_row):
        return False
    return entry.words <= mention.words

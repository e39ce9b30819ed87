"""Navigation patterns, compiled: an event touches only the patterns that mention it.

Every step is filed under its most telling condition (product, word of the query, brand, category, else the action),
so an event looks a handful of keys up however many patterns there are. What a visitor has done of a pattern is one
row of numbers: `progress[j]` is the latest moment at which a run of the first `j` wanted events can have begun. The
latest beginning is the best one in every way: it expires last, and the fewest `without` events lie after it. So a
`without` event forgets the row, and the pattern holds while `progress[-1]` lies in the window.

The README of this package draws the edge cases; `tests/affinity/naive.py` says the same by re-reading the history.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from affinity.catalog import category_and_ancestors
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep, words_of

NEVER = -1
PROGRESS_COUNT_MAX = 2_048  # patterns begun and not expired, of one visitor


class Happening(NamedTuple):
    """One event of a visitor as it is kept: what its product was is looked up when it arrives.

    Attributes:
        at_ms: when it occurred.
        action: what was done.
        category_id: the event's own, else the product's; None where neither is known.
        price_micros: the event's own, else what the product cost; None where neither is known.
        query: what was searched for, without case.
    """

    at_ms: int
    action: Action
    product_id: str | None = None
    category_id: str | None = None
    brand: str | None = None
    price_micros: int | None = None
    quantity: int = 1
    query: str | None = None


class _Entry(NamedTuple):
    """One step as it is filed. Ordered so that `without` comes first and later steps before earlier ones."""

    pattern_row: int
    order: int  # 0 for `without`, else more for earlier steps
    base: int  # wanted events before this step; NEVER for `without`
    wanted: int
    step: PatternStep
    is_exact: bool  # the key it is filed under is all it asks
    words: frozenset[str]


class _ActionIndex:
    """The steps that ask for one action."""

    __slots__ = ("brands", "categories", "everything", "products", "words")

    def __init__(self) -> None:
        self.products: dict[str, list[_Entry]] = {}
        self.words: dict[str, list[_Entry]] = {}
        self.brands: dict[str, list[_Entry]] = {}
        self.categories: dict[str, list[_Entry]] = {}
        self.everything: list[_Entry] = []


class PatternIndex:
    """Patterns compiled for one set of targets; row i is the i-th pattern.

    Args:
        patterns: valid ones, in row order.
    """

    def __init__(self, patterns: Sequence[NavigationPattern]) -> None:
        self.count = len(patterns)
        self.length = [1 + sum(step.at_least for step in pattern.steps) for pattern in patterns]
        self.within_ms = [
            None if pattern.within == "session" else pattern.within * 1000 for pattern in patterns
        ]  # None: the session
        self._actions: dict[Action, _ActionIndex] = {}
        # Strings that mean the same are kept once: a hundred thousand patterns name few products and categories.
        for row, pattern in enumerate(patterns):
            for step in pattern.without:
                self._file(row, 0, NEVER, step)
            base = 0
            for index, step in enumerate(pattern.steps):
                self._file(row, len(pattern.steps) - index, base, step)
                base += step.at_least

    def find(self, happening: Happening) -> list[_Entry]:
        """Return the steps the event is one of, in the order they must be taken account of."""
        index = self._actions.get(happening.action)
        if index is None:
            return []
        hits = [entry for entry in index.everything if entry.is_exact or _agrees(entry, happening)]
        if index.products and happening.product_id is not None:
            hits += _agreeing(index.products.get(happening.product_id), happening)
        if index.brands and happening.brand is not None:
            hits += _agreeing(index.brands.get(happening.brand), happening)
        if index.categories and happening.category_id is not None:
            for category_id in ancestry(happening.category_id):
                hits += _agreeing(index.categories.get(category_id), happening)
        if index.words and happening.query is not None:
            for word in words_of(happening.query):
                hits += _agreeing(index.words.get(word), happening)
        if len(hits) > 1:
            hits.sort(key=_by_order)
        return hits

    def _file(self, row: int, order: int, base: int, step: PatternStep) -> None:
        words = words_of(step.query_contains) if step.query_contains is not None else frozenset()
        conditions = sum(
            condition is not None
            for condition in (
                step.product_id,
                step.brand,
                step.category_id,
                step.price_at_least_micros,
                step.price_at_most_micros,
            )
        ) + len(words)
        entry = _Entry(row, order, base, step.at_least, step, conditions <= 1, words)
        index = self._actions.setdefault(step.action, _ActionIndex())
        if step.product_id is not None:
            index.products.setdefault(step.product_id, []).append(entry)
        elif words:
            index.words.setdefault(max(sorted(words), key=len), []).append(entry)
        elif step.brand is not None:
            index.brands.setdefault(step.brand, []).append(entry)
        elif step.category_id is not None:
            index.categories.setdefault(step.category_id, []).append(entry)
        else:
            index.everything.append(entry if conditions == 0 else entry._replace(is_exact=False))


class PatternProgress:
    """How far one visitor is with each pattern it has begun.

    Attributes:
        complete: pattern row to the latest moment a whole run can have begun.
    """

    __slots__ = ("_progress", "complete")

    def __init__(self) -> None:
        self._progress: dict[int, list[int]] = {}
        self.complete: dict[int, int] = {}

    def advance(self, index: PatternIndex, happenings: Iterable[Happening]) -> None:
        """Take account of further events, in their order."""
        for happening in happenings:
            for row, _order, base, wanted, _step, _is_exact, _words in index.find(happening):
                if base == NEVER:
                    self._progress.pop(row, None)
                    self.complete.pop(row, None)
                    continue
                progress = self._progress.get(row)
                if base == 0:
                    if progress is None:
                        progress = self._progress[row] = [NEVER] * index.length[row]
                    progress[0] = happening.at_ms
                elif progress is None:
                    continue
                progress[base + 1 : base + wanted + 1] = progress[base : base + wanted]
                if progress[-1] != NEVER:
                    self.complete[row] = progress[-1]
        if len(self._progress) > PROGRESS_COUNT_MAX:
            self._forget_oldest()

    def holding(
        self, index: PatternIndex, session_began_ms: int, session_ends_ms: int, now_ms: int
    ) -> tuple[list[int], int]:
        """Return the rows of the patterns that hold now, and until when no other answer is possible.

        Args:
            index: the one it was advanced with.
            session_began_ms: when the visitor's last session began.
            session_ends_ms: last moment of that session if nothing more happens.
            now_ms: the moment asked about.
        """
        rows: list[int] = []
        until_ms = 1 << 62
        for row, began_ms in self.complete.items():
            within_ms = index.within_ms[row]
            if within_ms is None:
                if began_ms < session_began_ms:
                    continue
                ends_ms = session_ends_ms
            else:
                ends_ms = began_ms + within_ms
            if now_ms <= ends_ms:
                rows.append(row)
                until_ms = min(until_ms, ends_ms)
        return rows, until_ms

    def _forget_oldest(self) -> None:
        # A run's second number is the latest moment it began: those begun longest ago are the first to expire.
        by_age = sorted(self._progress, key=lambda row: self._progress[row][1])
        for row in by_age[: len(by_age) // 2]:
            del self._progress[row]
            self.complete.pop(row, None)


@lru_cache(maxsize=65_536)
def ancestry(category_id: str) -> tuple[str, ...]:
    """Return the category and those above it."""
    return tuple(category_and_ancestors(category_id))


def _by_order(entry: _Entry) -> tuple[int, int]:
    return entry.pattern_row, entry.order


def _agreeing(entries: list[_Entry] | None, happening: Happening) -> list[_Entry]:
    if entries is None:
        return []
    return [entry for entry in entries if entry.is_exact or _agrees(entry, happening)]


def _agrees(entry: _Entry, happening: Happening) -> bool:
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
    return not entry.words or (happening.query is not None and entry.words <= words_of(happening.query))

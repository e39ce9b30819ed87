"""Navigation patterns: ordered steps a visitor must have taken, in a window, without others."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal
from unicodedata import normalize

from msgspec import Meta, Struct

from affinity.audience import Vocabulary
from affinity.catalog import CategoryId, PriceMicros, ProductId, category_and_ancestors
from affinity.errors import PatternRefused
from affinity.navigation import Action
from affinity.product_target import Target, target_key

_WORD = re.compile(r"\w+")

WANTED_COUNT_MAX = 100  # events one pattern may want: not many more of a visitor are kept


class PatternStep(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Something done at least so many times; every condition given must hold of each of those events."""

    action: Action
    at_least: Annotated[int, Meta(ge=1, le=100)] = 1
    category_id: CategoryId | None = None  # the category or any below it
    brand: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    product_id: ProductId | None = None
    price_at_least_micros: PriceMicros | None = None
    price_at_most_micros: PriceMicros | None = None
    query_contains: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # all of its words
    traffic_source: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # as reported, without case
    product_target: Target | None = None  # of the event's product, as the catalogue stands now


class NavigationPattern(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Steps in order, all within one session or so many seconds, and none of `without` since the first step."""

    within: Literal["session"] | Annotated[int, Meta(ge=1, le=90 * 86_400)]
    steps: Annotated[list[PatternStep], Meta(min_length=1, max_length=8)]
    without: Annotated[list[PatternStep], Meta(max_length=8)] = []


class SavedPattern(Struct, frozen=True, kw_only=True):
    """A pattern an advertiser named and kept."""

    pattern_id: str
    advertiser_id: str
    name: str
    navigation_pattern: NavigationPattern
    status: Literal["active", "archived"]
    created_at: datetime
    updated_at: datetime
    change_seq: int


def validate_pattern(pattern: NavigationPattern, vocabulary: Vocabulary, pointer: str = "") -> None:
    """Check that the pattern can hold, step by step, and names categories that exist.

    Args:
        pattern: the pattern.
        vocabulary: what exists of the names it mentions (`store.read_vocabulary`).
        pointer: JSON pointer of the pattern in the request.

    Raises:
        PatternRefused: with the pointer of the first offending step.
    """
    for name, steps in (("steps", pattern.steps), ("without", pattern.without)):
        for index, step in enumerate(steps):
            _check_step(step, vocabulary, f"{pointer}/{name}/{index}")
            if name == "without" and step.at_least != 1:
                message = f"one such event is one too many: at_least must be 1 in without, was {step.at_least}"
                raise PatternRefused(message, f"{pointer}/without/{index}/at_least")
    wanted_count = sum(step.at_least for step in pattern.steps)
    if wanted_count > WANTED_COUNT_MAX:
        message = f"the steps may want {WANTED_COUNT_MAX} events together, wanted {wanted_count}"
        raise PatternRefused(message, f"{pointer}/steps", code="pattern_too_long")
    # An event that every one of the later steps is made of, and that is forbidden: it can never hold.
    for index, step in enumerate(pattern.steps):
        needs_another = index > 0 or step.at_least > 1
        if needs_another and any(covers(forbidden, step) for forbidden in pattern.without):
            message = "each event of this step is one that `without` forbids"
            raise PatternRefused(message, f"{pointer}/steps/{index}", code="pattern_unsatisfiable")


def covers(forbidden: PatternStep, step: PatternStep) -> bool:
    """Say whether every event of `step` is one of `forbidden`."""
    if forbidden.action != step.action:
        return False
    if forbidden.category_id is not None and (
        step.category_id is None or forbidden.category_id not in category_and_ancestors(step.category_id)
    ):
        return False
    if forbidden.brand is not None and forbidden.brand != step.brand:
        return False
    if forbidden.product_id is not None and forbidden.product_id != step.product_id:
        return False
    low, high = forbidden.price_at_least_micros, forbidden.price_at_most_micros
    if low is not None and (step.price_at_least_micros is None or step.price_at_least_micros < low):
        return False
    if high is not None and (step.price_at_most_micros is None or step.price_at_most_micros > high):
        return False
    target = forbidden.product_target
    if target is not None and (step.product_target is None or target_key(target) != target_key(step.product_target)):
        return False
    source = forbidden.traffic_source
    if source is not None and (step.traffic_source is None or step.traffic_source.casefold() != source.casefold()):
        return False
    if forbidden.query_contains is None:
        return True
    return step.query_contains is not None and words_of(forbidden.query_contains) <= words_of(step.query_contains)


def product_targets_of(patterns: Iterable[NavigationPattern]) -> list[Target]:
    """Return the distinct product targets of the patterns' steps, in the order they are met in."""
    found = {
        target_key(step.product_target): step.product_target
        for pattern in patterns
        for step in (*pattern.steps, *pattern.without)
        if step.product_target is not None
    }
    return list(found.values())


def product_fields_of(pattern: NavigationPattern) -> frozenset[str]:
    """Return the product fields its steps ask for by their product targets."""
    return frozenset[str]().union(*[target.fields for target in product_targets_of([pattern])])


def words_of(text: str) -> frozenset[str]:
    """Return the words of a search, without case: runs of letters and digits, however their accents are encoded.

    >>> sorted(words_of("Trail-Running, 42"))
    ['42', 'running', 'trail']
    """
    if not text.isascii():
        text = normalize("NFKC", text)
    return frozenset(_WORD.findall(text.casefold()))


def _check_step(step: PatternStep, vocabulary: Vocabulary, at: str) -> None:
    if step.category_id is not None and step.category_id not in vocabulary.categories:
        message = f"there is no category {step.category_id!r}"
        raise PatternRefused(message, f"{at}/category_id", code="category_unknown")
    low, high = step.price_at_least_micros, step.price_at_most_micros
    if low is not None and high is not None and low > high:
        message = f"price_at_least_micros must be at most price_at_most_micros, was {low} > {high}"
        raise PatternRefused(message, at)
    if step.query_contains is not None and not words_of(step.query_contains):
        message = f"query_contains needs a word, was {step.query_contains!r}"
        raise PatternRefused(message, f"{at}/query_contains")

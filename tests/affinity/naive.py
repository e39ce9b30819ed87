"""Plain twins of compiled things: what one would write on a whiteboard, re-reading everything each time."""

from collections.abc import Sequence

from affinity.audience import Audience
from affinity.matching import Happening
from affinity.pattern import NavigationPattern, PatternStep, words_of

SESSION_GAP_MS = 30 * 60_000


def pattern_holds(pattern: NavigationPattern, history: Sequence[tuple[int, Happening]], now_ms: int) -> bool:
    """Say whether a pattern holds now, by trying every event as the one it began with.

    Args:
        pattern: a valid one.
        history: every event of the visitor with its place in the order of arrival.
        now_ms: the moment asked about.
    """
    events = [event for _, event in sorted(history, key=lambda pair: (pair[1].at_ms, pair[0]))]
    wanted = [step for step in pattern.steps for _ in range(step.at_least)]
    return any(_holds_from(pattern, wanted, events, first, now_ms) for first in range(len(events)))


def _holds_from(
    pattern: NavigationPattern, wanted: list[PatternStep], events: list[Happening], first: int, now_ms: int
) -> bool:
    if not is_one_of(events[first], wanted[0]):
        return False
    if pattern.within == "session":
        in_window = first >= _session_begin(events, now_ms)
    else:
        in_window = now_ms - events[first].at_ms <= pattern.within * 1000
    if not in_window:
        return False
    done = 1
    for event in events[first + 1 :]:
        if any(is_one_of(event, forbidden) for forbidden in pattern.without):
            return False
        if done < len(wanted) and is_one_of(event, wanted[done]):
            done += 1
    return done == len(wanted)


def _session_begin(events: list[Happening], now_ms: int) -> int:
    """Return the place of the first event of the session that is open now; one past the last where none is."""
    if now_ms - events[-1].at_ms > SESSION_GAP_MS:
        return len(events)
    first = len(events) - 1
    while first > 0 and events[first].at_ms - events[first - 1].at_ms <= SESSION_GAP_MS:
        first -= 1
    return first


def is_one_of(event: Happening, step: PatternStep) -> bool:
    """Say whether an event is what a step asks for."""
    if event.action != step.action:
        return False
    if step.product_id is not None and event.product_id != step.product_id:
        return False
    if step.brand is not None and event.brand != step.brand:
        return False
    if step.category_id is not None:
        own = event.category_id
        if own is None or not (own == step.category_id or own.startswith(step.category_id + " > ")):
            return False
    if step.price_at_least_micros is not None and (
        event.price_micros is None or event.price_micros < step.price_at_least_micros
    ):
        return False
    if step.price_at_most_micros is not None and (
        event.price_micros is None or event.price_micros > step.price_at_most_micros
    ):
        return False
    if step.query_contains is not None:
        return event.query is not None and words_of(step.query_contains) <= words_of(event.query)
    return True


def audience_holds(audience: Audience, true_predicates: set[bytes], encode: object) -> bool:
    """Say whether a tree holds, given which of its predicates (as encoded by `encode`) do."""
    assert callable(encode)
    if audience.all is not None:
        return all(audience_holds(child, true_predicates, encode) for child in audience.all)
    if audience.any is not None:
        return any(audience_holds(child, true_predicates, encode) for child in audience.any)
    if audience.not_ is not None:
        return not audience_holds(audience.not_, true_predicates, encode)
    return encode(audience) in true_predicates

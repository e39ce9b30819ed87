"""Plain twins of compiled things: what one would write on a whiteboard, re-reading everything each time."""

from collections.abc import Mapping, Sequence
from math import exp

from affinity.audience import Audience
from affinity.kernel import (
    AGE_DECAY,
    BACKWARD,
    DISTANCE_DECAY,
    HISTORY,
    LENGTH_POWER,
    POPULARITY,
    QUERY_DECAY,
    RARITY_POWER,
    REPEAT,
    SESSIONS_PER_ITEM,
    TRANSITION,
)
from affinity.matching import Happening
from affinity.model import Learnt
from affinity.pattern import NavigationPattern, PatternStep, words_of

SESSION_GAP_MS = 30 * 60_000


def pattern_holds(
    pattern: NavigationPattern, history: Sequence[tuple[int, Happening]], now_ms: int, kept_count: int = 128
) -> bool:
    """Say whether a pattern holds now, by trying every event as the one it began with.

    Args:
        pattern: a valid one.
        history: every event of the visitor with its place in the order of arrival.
        now_ms: the moment asked about.
        kept_count: most recent events that are looked at.
    """
    return any(beginnings(pattern, in_order(history, kept_count), now_ms))


def in_order(history: Sequence[tuple[int, Happening]], kept_count: int) -> list[Happening]:
    """Return the most recent events, oldest first; of equal times, what arrived first comes first."""
    return [event for _, event in sorted(history, key=lambda pair: (pair[1].at_ms, pair[0]))][-kept_count:]


def beginnings(pattern: NavigationPattern, events: list[Happening], now_ms: int) -> list[bool]:
    """Say of every event whether a run that holds now begins with it."""
    wanted = [step for step in pattern.steps for _ in range(step.at_least)]
    return [_holds_from(pattern, wanted, events, first, now_ms) for first in range(len(events))]


def patterns_holding(
    patterns: Sequence[NavigationPattern],
    history: Sequence[tuple[int, Happening]],
    now_ms: int,
    kept_count: int,
    size_max: int,
) -> list[bool]:
    """Say of each pattern whether it holds now for a visitor followed in patterns that want so many events together.

    At every event the patterns begun are ordered by when they began last; those before the last `size_max` wanted
    events are forgotten, and a run that began before then is lost.
    """
    events = in_order(history, kept_count)
    begun = [[_begun_last(pattern, events, place) for place in range(len(events))] for pattern in patterns]
    wanted = [sum(step.at_least for step in pattern.steps) for pattern in patterns]

    def is_followed(row: int, place: int) -> bool:
        own = begun[row][place]
        if own is None:
            return False
        size = 0
        for other in range(len(patterns)):
            others = begun[other][place]
            if others is not None and (others, other) >= (own, row):
                size += wanted[other]
        return size <= size_max

    return [
        any(
            holds and all(is_followed(row, place) for place in range(first, len(events)))
            for first, holds in enumerate(beginnings(pattern, events, now_ms))
        )
        for row, pattern in enumerate(patterns)
    ]


def _begun_last(pattern: NavigationPattern, events: list[Happening], place: int) -> int | None:
    """Return the last event up to `place` that begins the pattern, if it then is still begun."""
    first = next((one for one in range(place, -1, -1) if is_one_of(events[one], pattern.steps[0])), None)
    if first is None:
        return None
    for one in range(first + 1, place + 1):
        if any(is_one_of(events[one], forbidden) for forbidden in pattern.without):
            return None
        begins_session = events[one].at_ms - events[one - 1].at_ms > SESSION_GAP_MS
        has_ended = pattern.within == "session" or events[first].at_ms + pattern.within * 1000 < events[one - 1].at_ms
        if begins_session and has_ended:
            return None
    return first


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
    if step.traffic_source is not None and step.traffic_source.lower() != event.traffic_source:
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


def rank_session(learnt: Learnt, query: Sequence[int], history: Mapping[int, float]) -> dict[int, float]:
    """Return each item's share of all scores, by going through every session."""
    parameter = learnt.parameter
    sessions = [
        learnt.event_item[a:b].tolist()
        for a, b in zip(learnt.session_first[:-1], learnt.session_first[1:], strict=True)
    ]
    item_sessions: dict[int, list[tuple[int, int]]] = {}
    for number, session in enumerate(sessions):
        for place, item in enumerate(session):
            item_sessions.setdefault(item, []).append((number, place))
    alike: dict[int, float] = {}
    match: dict[int, int] = {}
    for back, item in enumerate(query):
        if item in query[:back]:
            continue
        youngest = sorted(item_sessions[item], reverse=True)[: int(parameter[SESSIONS_PER_ITEM])]
        for number in dict.fromkeys(number for number, _ in youngest):
            alike[number] = alike.get(number, 0.0) + exp(-back / parameter[QUERY_DECAY]) * float(learnt.rarity[item])
            match.setdefault(number, max(place for one, place in youngest if one == number))
    for number in alike:
        age = (len(sessions) - number) / len(sessions)
        alike[number] *= exp(-age / parameter[AGE_DECAY]) / len(sessions[number]) ** parameter[LENGTH_POWER]
    scores: dict[int, float] = {}
    for number, value in alike.items():
        for place, item in enumerate(sessions[number]):
            distance = place - match[number]
            nearness = parameter[REPEAT]
            if distance > 0:
                nearness = exp(-(distance - 1) / parameter[DISTANCE_DECAY])
            elif distance < 0:
                nearness = parameter[BACKWARD] * exp((distance + 1) / parameter[DISTANCE_DECAY])
            gain = value * nearness * float(learnt.rarity[item]) ** parameter[RARITY_POWER]
            if gain:
                scores[item] = scores.get(item, 0.0) + gain
    total = sum(scores.values())
    scores = {item: score / total for item, score in scores.items()}
    if query:
        youngest = sorted(item_sessions[query[0]], reverse=True)[: int(parameter[SESSIONS_PER_ITEM])]
        for number, place in youngest:
            for distance, item in enumerate(sessions[number][place + 1 : place + 4], 1):
                gain = parameter[TRANSITION] / (distance * len(youngest))
                scores[item] = scores.get(item, 0.0) + gain
    for item, weight in history.items():
        gain = parameter[HISTORY] * weight / sum(history.values())
        if gain:
            scores[item] = scores.get(item, 0.0) + gain
    for item, share in zip(learnt.popular_item.tolist(), learnt.popular_share.tolist(), strict=True):
        if parameter[POPULARITY] * share:
            scores[item] = scores.get(item, 0.0) + parameter[POPULARITY] * share
    total = sum(scores.values())
    return {item: score / total for item, score in scores.items()}

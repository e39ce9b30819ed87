"""Plain twins of compiled things: what one would write on a whiteboard, re-reading everything each time."""

from collections.abc import Mapping, Sequence
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from affinity.audience import Audience
from affinity.catalog import CATEGORY_SEPARATOR, Attribute, Product, category_and_ancestors
from affinity.kernel import (
    AGE_DECAY,
    BACKWARD,
    CROSSED,
    DISTANCE_DECAY,
    HISTORY,
    LENGTH_POWER,
    POPULARITY,
    QUERY_DECAY,
    RARITY_POWER,
    REPEAT,
    SESSIONS_PER_ITEM,
    TRANSITION,
    Kinds,
)
from affinity.matching import Happening
from affinity.model import Learnt
from affinity.pattern import NavigationPattern, PatternStep, words_of
from affinity.product_target import Target

SESSION_GAP_MS = 30 * 60_000

Catalogue = Mapping[str, Mapping[str, Attribute]]  # attributes of each product
NO_CATALOGUE: Catalogue = {}


def pattern_holds(
    pattern: NavigationPattern,
    history: Sequence[tuple[int, Happening]],
    now_ms: int,
    kept_count: int = 128,
    catalogue: Catalogue = NO_CATALOGUE,
) -> bool:
    """Say whether a pattern holds now, by trying every event as the one it began with.

    Args:
        pattern: a valid one.
        history: every event of the visitor with its place in the order of arrival.
        now_ms: the moment asked about.
        kept_count: most recent events that are looked at.
        catalogue: products as they are now.
    """
    return any(beginnings(pattern, in_order(history, kept_count), now_ms, catalogue))


def in_order(history: Sequence[tuple[int, Happening]], kept_count: int) -> list[Happening]:
    """Return the most recent events, oldest first; of equal times, what arrived first comes first."""
    return [event for _, event in sorted(history, key=lambda pair: (pair[1].at_ms, pair[0]))][-kept_count:]


def beginnings(
    pattern: NavigationPattern, events: list[Happening], now_ms: int, catalogue: Catalogue = NO_CATALOGUE
) -> list[bool]:
    """Say of every event whether a run that holds now begins with it."""
    wanted = [step for step in pattern.steps for _ in range(step.at_least)]
    return [_holds_from(pattern, wanted, events, first, now_ms, catalogue) for first in range(len(events))]


def patterns_holding(
    patterns: Sequence[NavigationPattern],
    history: Sequence[tuple[int, Happening]],
    now_ms: int,
    kept_count: int,
    size_max: int,
    catalogue: Catalogue = NO_CATALOGUE,
) -> list[bool]:
    """Say of each pattern whether it holds now for a visitor followed in patterns that want so many events together.

    At every event the patterns begun are ordered by when they began last; those before the last `size_max` wanted
    events are forgotten, and a run that began before then is lost.
    """
    events = in_order(history, kept_count)
    begun = [[_begun_last(pattern, events, place, catalogue) for place in range(len(events))] for pattern in patterns]
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
            for first, holds in enumerate(beginnings(pattern, events, now_ms, catalogue))
        )
        for row, pattern in enumerate(patterns)
    ]


def _begun_last(pattern: NavigationPattern, events: list[Happening], place: int, catalogue: Catalogue) -> int | None:
    """Return the last event up to `place` that begins the pattern, if it then is still begun."""
    first = next((one for one in range(place, -1, -1) if is_one_of(events[one], pattern.steps[0], catalogue)), None)
    if first is None:
        return None
    for one in range(first + 1, place + 1):
        if any(is_one_of(events[one], forbidden, catalogue) for forbidden in pattern.without):
            return None
        begins_session = events[one].at_ms - events[one - 1].at_ms > SESSION_GAP_MS
        has_ended = pattern.within == "session" or events[first].at_ms + pattern.within * 1000 < events[one - 1].at_ms
        if begins_session and has_ended:
            return None
    return first


def _holds_from(
    pattern: NavigationPattern,
    wanted: list[PatternStep],
    events: list[Happening],
    first: int,
    now_ms: int,
    catalogue: Catalogue,
) -> bool:
    if not is_one_of(events[first], wanted[0], catalogue):
        return False
    if pattern.within == "session":
        in_window = first >= _session_begin(events, now_ms)
    else:
        in_window = now_ms - events[first].at_ms <= pattern.within * 1000
    if not in_window:
        return False
    done = 1
    for event in events[first + 1 :]:
        if any(is_one_of(event, forbidden, catalogue) for forbidden in pattern.without):
            return False
        if done < len(wanted) and is_one_of(event, wanted[done], catalogue):
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


def is_one_of(event: Happening, step: PatternStep, catalogue: Catalogue = NO_CATALOGUE) -> bool:
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
    if step.product_target is not None:
        attributes = None if event.product_id is None else catalogue.get(event.product_id)
        if attributes is None or not target_holds(step.product_target, attributes):
            return False
    if step.query_contains is not None:
        return event.query is not None and words_of(step.query_contains) <= words_of(event.query)
    return True


def target_holds(target: Target, attributes: Mapping[str, Attribute]) -> bool:
    """Say whether a target that asks for attributes is about a product with these."""
    if target.all is not None:
        return all(target_holds(part, attributes) for part in target.all)
    if target.any is not None:
        return any(target_holds(part, attributes) for part in target.any)
    if target.not_ is not None:
        return not target_holds(target.not_, attributes)
    value = attributes.get(target.field or "")
    if value is None:
        return False
    wanted = target.one_of if target.equals is None else [target.equals]
    if wanted is not None and not any(type(one) is type(value) and one == value for one in wanted):
        return False
    if target.at_least is not None and not float(value) >= target.at_least:
        return False
    return target.at_most is None or float(value) <= target.at_most


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


def rank_visitor(learnt: Learnt, events: Sequence[Happening], now_ms: int) -> dict[int, float]:
    """Return each candidate's probability, by going through every session; for visitors who only look or buy."""
    bought_last = bool(events) and events[-1].action == "purchase"
    situation = 1 if not events or bought_last or now_ms - events[-1].at_ms > SESSION_GAP_MS else 0
    parameter, combiner = learnt.parameter[situation], learnt.combiner[situation]
    item_of = {product_id: item for item, product_id in enumerate(learnt.product_id)}
    known = [event for event in events if event.product_id in item_of]
    own_sessions: list[list[tuple[int, float, float]]] = []  # of each: (item, weight, weeks before the last event)
    before_ms = None
    for event in events:
        if before_ms is None or event.at_ms - before_ms > SESSION_GAP_MS:
            own_sessions.append([])
        before_ms = event.at_ms
        if event in known:
            age = (known[-1].at_ms - event.at_ms) / (7 * 86_400_000)
            weight = 1.0 if event.action == "purchase" else 0.1
            own_sessions[-1].append((item_of[str(event.product_id)], weight, age))
    while own_sessions and not own_sessions[-1]:
        own_sessions.pop()
    query = [item for item, _, _ in reversed(own_sessions[-1])][:12] if own_sessions else []
    sessions = [
        learnt.event_item[a:b].tolist()
        for a, b in zip(learnt.session_first[:-1], learnt.session_first[1:], strict=True)
    ]
    parts = _gather(learnt, parameter, sessions, query)
    flat = [one for session in own_sessions for one in session]
    for name, rate in (("fast", 0.8), ("own", 0.95), ("slow", 0.99)):
        for item, weight, age in flat:
            parts.setdefault(item, {})[name] = parts.get(item, {}).get(name, 0.0) + weight * rate**age
    for item in learnt.popular_item.tolist():
        parts.setdefault(item, {})
    total = {name: sum(part.get(name, 0.0) for part in parts.values()) for name in PART_NAMES}
    near = total["ahead"] + parameter[BACKWARD] * total["behind"] + parameter[REPEAT] * total["shared"]
    blend = {}
    for item, part in parts.items():
        of = {name: part.get(name, 0.0) for name in PART_NAMES}
        score = parameter[TRANSITION] * (of["follows"] + of["later"])
        if near:
            score += (of["ahead"] + parameter[BACKWARD] * of["behind"] + parameter[REPEAT] * of["shared"]) / near
        if total["own"]:
            score += parameter[HISTORY] * of["own"] / total["own"]
        blend[item] = score + parameter[POPULARITY] * float(learnt.item_fact[item, 0])
    whole = sum(blend.values())
    logit = {}
    for item, part in parts.items():
        of = {name: part.get(name, 0.0) for name in PART_NAMES}
        share = {name: of[name] / total[name] if total[name] else 0.0 for name in PART_NAMES}
        fact = learnt.item_fact[item].tolist()
        b = blend[item] / whole if whole else 0.0
        has = [back for back, one in enumerate(reversed(own_sessions)) if any(own == item for own, _, _ in one)]
        ages = [age for own, _, age in flat if own == item]
        pause = (ages[0] - ages[-1]) / (len(has) - 1) if len(has) > 1 else 0.0
        place = query.index(item) if item in query else None
        feature = [
            log(b + 1e-5),
            b,
            *(log(share[name] + 1e-3) for name in ("ahead", "behind", "shared", "next", "anywhere")),
            *(log(of[name] + 1e-3) for name in ("follows", "later", "precedes", "second")),
            of["follows"],
            0.0 if place is None else exp(-place / 3),
            float(query.count(item)),
            float(place == 0),
            float(place is not None),
            log(fact[0] + 1e-6),
            log(fact[1] + 1e-6),
            log(fact[2] + 1e-5),
            *(log(share[name] + 1e-4) for name in ("fast", "own", "slow")),
            float(bool(has)),
            log(len(has) + 1),
            log(len(has) / max(len(own_sessions), 1) + 0.01),
            log(ages[-1] + 1) if has else 0.0,
            min(ages[-1] / (pause + 0.5), 5.0) if len(has) > 1 else 0.0,
            fact[3] if has else 0.0,
            log((fact[3] if has else 0.0) + 0.01),
            float(bool(has) and has[0] == 0),
            float(bool(has) and has[0] == 1),
            float(len(has) == 1),
            share["own"],
        ]
        crossed = [feature[column] + shift for column, shift in CROSSED]
        feature += [left * right for one, left in enumerate(crossed) for right in crossed[one:]]
        logit[item] = sum(weight * value for weight, value in zip(combiner.tolist(), feature, strict=True))
    odds = {item: exp(value - max(logit.values())) for item, value in logit.items()}
    return {item: value / sum(odds.values()) for item, value in odds.items()}


PART_NAMES = (
    *("ahead", "behind", "shared", "next", "anywhere"),
    *("follows", "later", "precedes", "second", "fast", "own", "slow"),
)


def _gather(
    learnt: Learnt, parameter: NDArray[np.float64], sessions: list[list[int]], query: list[int]
) -> dict[int, dict[str, float]]:
    """Return what sessions say of each item, by name."""
    where: dict[int, list[tuple[int, int]]] = {}
    for number, session in enumerate(sessions):
        for place, item in enumerate(session):
            where.setdefault(item, []).append((number, place))
    parts: dict[int, dict[str, float]] = {}

    def add(item: int, name: str, gain: float) -> None:
        part = parts.setdefault(item, {})
        part[name] = part.get(name, 0.0) + gain

    alike: dict[int, float] = {}
    match: dict[int, int] = {}
    for back, item in enumerate(query):
        if item in query[:back]:
            continue
        youngest = sorted(where[item], reverse=True)[: int(parameter[SESSIONS_PER_ITEM]) // (1 if back < 2 else 2)]
        for number in dict.fromkeys(number for number, _ in youngest):
            alike[number] = alike.get(number, 0.0) + exp(-back / parameter[QUERY_DECAY]) * float(learnt.rarity[item])
            match.setdefault(number, max(place for one, place in youngest if one == number))
    for number, value in alike.items():
        age = (len(sessions) - number) / len(sessions)
        score = value * exp(-age / parameter[AGE_DECAY]) / len(sessions[number]) ** parameter[LENGTH_POWER]
        for place, item in enumerate(sessions[number]):
            distance = place - match[number]
            gain = score * float(learnt.rarity[item]) ** parameter[RARITY_POWER]
            add(item, "anywhere", score)
            if distance == 0:
                add(item, "shared", gain)
            else:
                name = "ahead" if distance > 0 else "behind"
                add(item, name, gain * exp(-(abs(distance) - 1) / parameter[DISTANCE_DECAY]))
            if distance == 1:
                add(item, "next", score)
    for back, item in enumerate(query[:2]):
        youngest = sorted(where[item], reverse=True)[:1_000]
        for number, place in youngest:
            for distance, other in enumerate(sessions[number][place + 1 : place + 4], 1):
                name = "second" if back else ("follows" if distance == 1 else "later")
                add(other, name, 1 / (distance * len(youngest)))
            if back == 0:
                for distance, other in enumerate(reversed(sessions[number][max(place - 3, 0) : place]), 1):
                    add(other, "precedes", 1 / (distance * len(youngest)))
    return parts


# --- what stands in for history ---------------------------------------------------------------------------------------


def share_among_kin(
    events: Sequence[tuple[int, int, int]],
    products: Sequence[Product],
    kinds: Kinds,
    candidates: Sequence[int],
    weight: Sequence[float],
) -> dict[int, float]:
    """Return the shares of the products of a visitor's categories, by looking at every product of the catalogue.

    Events are (row of category, brand, sessions back), the oldest first.
    """
    paths = sorted(
        {above for one in products for above in category_and_ancestors(one.product_type or "")},
        key=lambda path: path.split(CATEGORY_SEPARATOR),
    )
    contexts: dict[str, tuple[int, int]] = {}
    about = [event for event in reversed(events) if event[0] >= 0]
    for place, (row, brand, back) in enumerate(about):
        nearness = 2 if back else 0 if place == 0 else 1
        earlier = sum(near == 2 for _, near in contexts.values())
        if len(contexts) == 6 or (nearness == 2 and earlier == 3):
            break
        contexts.setdefault(paths[row], (brand, nearness))
    worth: dict[int, float] = {}
    listed: set[int] = set()
    for number, product in enumerate(products):
        if number in candidates:
            continue
        above = set(category_and_ancestors(product.product_type or ""))
        kinship = 18 + int(kinds.seen[number])
        for path, (brand, nearness) in contexts.items():
            if path in above:
                is_same = brand >= 0 and brand == kinds.brand[number]
                kinship = (nearness * 2 + is_same) * 3 + int(kinds.seen[number])
                listed.add(number)
                break
        worth[number] = weight[kinship] * float(kinds.usual[number])
    total = sum(worth.values())
    return {number: worth[number] / total for number in listed}

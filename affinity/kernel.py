"""All compiled code of this package: arrays and numbers in, arrays out.

Dimensions: N nodes of all audiences, L predicates, A audiences; I items a model knows, S sessions it learnt from,
E events of all those sessions, H events of a visitor's history, Q of those in the last session, C cases, T items
ranked; P products of a catalogue, G its categories, K categories a visitor was in.
"""

from typing import NamedTuple

import numpy as np
from numba import float32, float64, int32, int64, njit, types, uint8
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Uint8s = NDArray[np.uint8]
Uint64s = NDArray[np.uint64]

NODE_LEAF, NODE_NOT, NODE_ALL, NODE_ANY = 0, 1, 2, 3

# Places in the array of a ranking's parameters.
(
    SESSIONS_PER_ITEM,
    NEIGHBOUR_COUNT,
    QUERY_DECAY,
    DISTANCE_DECAY,
    BACKWARD,
    REPEAT,
    LENGTH_POWER,
    AGE_DECAY,
    RARITY_POWER,
    TRANSITION,
    HISTORY,
    POPULARITY,
) = range(12)
PARAMETER_COUNT = 12
SESSION_LENGTH_MAX = 50  # of what a model learns from
QUERY_LENGTH_MAX = 12  # products of the visitor's session that sessions alike are looked for by
FULL_REACH_COUNT = 2  # of those, how many are looked for in as many sessions as there may be; others in half as many
TRANSITION_COUNT_MAX = 1_000  # youngest events of an item whose neighbours are looked at
TRANSITION_REACH = 3  # how many of the next items count as following an item, and before as preceding it

# What is gathered of an item for one visitor, as columns.
(
    IS_TOUCHED,
    AHEAD,  # nearest sessions: after the item shared, by nearness
    BEHIND,
    SHARED,  # the item shared itself
    NEXT,  # right after it
    ANYWHERE,
    FOLLOWS,  # right after the last item, in any session
    FOLLOWS_LATER,
    PRECEDES,
    FOLLOWS_SECOND,  # after the last item but one
    RECENCY,  # in the visitor's last session
    TIMES,
    OWN_FAST,  # in all of the visitor's history, forgotten fast, at middle pace, slowly
    OWN,
    OWN_SLOW,
    OWN_SESSIONS,  # in how many of the visitor's sessions
    OWN_LAST_AGE,
    OWN_FIRST_AGE,
    OWN_LAST_BACK,
    OWN_FIRST_BACK,
) = range(20)
PART_COUNT = 20
# What is known of an item whoever the visitor is, as columns of `Index.item_fact`.
SHARE, SHARE_LATELY, SHARE_NOW, RETURN_RATE = range(4)
FACT_COUNT = 4
CROSSED = ((18, 9.0), (20, 6.0), (23, -1.0), (25, -1.5), (28, 2.5))  # features multiplied with one another, and what
FEATURE_COUNT = 33 + 15  # is added to each first: each with itself and every later one

# How a product stands to a visitor by its attributes: how near its category is, whether its brand is the one the
# visitor looked at there, and how much is known of it. `kinship_nb` numbers these.
LAST, SESSION, EARLIER, ELSEWHERE = range(4)  # category of the last event, of the session, of sessions before, of none
NEARNESS_COUNT = 4
UNSEEN, SCARCE, KNOWN = range(3)  # by events that the model knows
SEEN_COUNT = 3
KINSHIP_COUNT = NEARNESS_COUNT * 2 * SEEN_COUNT
CONTEXT_COUNT_MAX = 6  # K: categories of a visitor that count, the latest
EARLIER_COUNT_MAX = 3  # of those, from sessions before
CONTEXT_EVENT_COUNT_MAX = 60  # of a visitor's latest events, in which they are looked for
CONTEXT_SIZE_MAX = 2_000  # products of a category, and of all that count; a larger one tells little

FORGET_FAST, FORGET, FORGET_SLOW = 0.22314355, 0.05129329, 0.01005034  # 0.8, 0.95 and 0.99 a week


class Index(NamedTuple):
    """Sessions as a ranking reads them.

    Attributes:
        event_item: (E,) items of the sessions, in order, session after session.
        session_first: (S + 1,) where a session begins in `event_item`; later sessions are younger.
        session_weight: (S,) what a session counts by its age and length.
        item_first: (I + 1,) where an item's events begin in `item_event`.
        item_event: (E,) events of each item, the youngest first.
        item_session: (E,) session of each of those.
        rarity: (I,) how telling it is to share the item.
        item_weight: (I,) what an item counts that sessions alike have.
        item_fact: (I, FACT_COUNT) shares of all events, of the last tenth, of the last fiftieth; of those who touched
            the item, the share who did in another session again.
        popular_item: items most looked at lately, the most first.
    """

    event_item: Int32s
    session_first: Int64s
    session_weight: Float32s
    item_first: Int64s
    item_event: Int32s
    item_session: Int32s
    rarity: Float32s
    item_weight: Float32s
    item_fact: Float32s
    popular_item: Int32s


class Trail(NamedTuple):
    """What visitors did, the oldest first; one visitor's, or many's one after another.

    Attributes:
        item: (H,) items.
        weight: (H,) what the event counts in a history.
        age: (H,) weeks before the visitor's last event.
        back: (H,) sessions back from the visitor's last, 0 for that one.
    """

    item: Int32s
    weight: Float32s
    age: Float32s
    back: Int32s


class Kinds(NamedTuple):
    """Products by what they are.

    Attributes:
        category: (P,) its category, -1 for none.
        brand: (P,) its brand; -1 or a number of its own for none.
        seen: (P,) UNSEEN, SCARCE or KNOWN.
        usual: (P,) how likely it is against others, whoever the visitor is.
        category_end: (G,) categories in the order of their paths: those below g are g..category_end[g].
        by_category: (P,) products in the order of their category, those of none first.
        category_first: (G + 1,) where each category's begin in it.
        usual_of_seen: (SEEN_COUNT,) sums of `usual`.
    """

    category: Int32s
    brand: Int32s
    seen: Int32s
    usual: Float32s
    category_end: Int64s
    by_category: Int32s
    category_first: Int64s
    usual_of_seen: Float64s


class Room(NamedTuple):
    """Room to rank in; zeros between calls.

    Attributes:
        session_score: (S,).
        session_match: (S,).
        session_touched: (S,).
        part: (I, PART_COUNT).
        item_touched: (I,).
    """

    session_score: Float32s
    session_match: Int32s
    session_touched: Int32s
    part: Float32s
    item_touched: Int32s


_I4, _I8, _F4, _F8, _U1 = (types.Array(one, 1, "C") for one in (int32, int64, float32, float64, uint8))
_F4_2D, _F4_3D, _I4_2D, _U1_2D = (
    types.Array(float32, 2, "C"),
    types.Array(float32, 3, "C"),
    types.Array(int32, 2, "C"),
    types.Array(uint8, 2, "C"),
)
_INDEX = types.NamedTuple((_I4, _I8, _F4, _I8, _I4, _I4, _F4, _F4, _F4_2D, _I4), Index)  # type: ignore[no-untyped-call]
_TRAIL = types.NamedTuple((_I4, _F4, _F4, _I4), Trail)  # type: ignore[no-untyped-call]
_KINDS = types.NamedTuple((_I4, _I4, _I4, _F4, _I8, _I4, _I8, _F8), Kinds)  # type: ignore[no-untyped-call]
_ROOM = types.NamedTuple((_F4, _I4, _I4, _F4_2D, _I4), Room)  # type: ignore[no-untyped-call]


def make_room(index: Index) -> Room:
    """Return room to rank in by the index."""
    session_count, item_count = len(index.session_first) - 1, len(index.item_first) - 1
    return Room(
        np.zeros(session_count, np.float32),
        np.zeros(session_count, np.int32),
        np.zeros(session_count, np.int32),
        np.zeros((item_count, PART_COUNT), np.float32),
        np.zeros(item_count, np.int32),
    )


@njit("void(i1[::1], i8[::1], i8[::1], u1[::1], i8[::1], u8[::1])", cache=True)
def evaluate_nodes_nb(
    kind: Int8s, first: Int64s, child: Int64s, leaf_holds: Uint8s, root: Int64s, bits: Uint64s
) -> None:
    """Say which audiences hold, given which predicates do.

    Args:
        kind: (N,) of each node, children before parents.
        first: (N + 1,) where a node's children begin in `child`.
        child: rows of nodes; of a leaf, the number of its predicate.
        leaf_holds: (L,) 1 where the predicate holds.
        root: (A,) node of each audience.
        bits: (A / 64, rounded up) out, zeros at first: bit a % 64 of word a // 64.
    """
    holds = np.empty(kind.shape[0], np.uint8)
    for node in range(kind.shape[0]):
        begin, end = first[node], first[node + 1]
        if kind[node] == NODE_LEAF:
            holds[node] = leaf_holds[child[begin]]
        elif kind[node] == NODE_NOT:
            holds[node] = 1 - holds[child[begin]]
        elif kind[node] == NODE_ALL:
            value = np.uint8(1)
            for place in range(begin, end):
                value &= holds[child[place]]
            holds[node] = value
        else:
            value = np.uint8(0)
            for place in range(begin, end):
                value |= holds[child[place]]
            holds[node] = value
    for audience in range(root.shape[0]):
        if holds[root[audience]]:
            bits[audience >> 6] |= np.uint64(1) << np.uint64(audience & 63)


@njit(int64(int32, _ROOM, int64), cache=True)
def touch_nb(item: int, room: Room, touched_count: int) -> int:
    """Note that something is known of an item; return how many items that holds for."""
    if room.part[item, IS_TOUCHED] == 0.0:
        room.part[item, IS_TOUCHED] = 1.0
        room.item_touched[touched_count] = item
        return touched_count + 1
    return touched_count


@njit(int64(_TRAIL, _I4), cache=True)
def read_query_nb(trail: Trail, query: Int32s) -> int:
    """Write the items of a visitor's last session, the last first; return how many."""
    count = 0
    for at in range(trail.item.shape[0] - 1, -1, -1):
        if trail.back[at] != 0 or count == query.shape[0]:
            break
        query[count] = trail.item[at]
        count += 1
    return count


@njit(int64(_I4, _INDEX, _F8, _ROOM, _F8, int64), cache=True)
def add_neighbours_nb(
    query: Int32s, index: Index, parameter: Float64s, room: Room, total: Float64s, touched_count: int
) -> int:
    """Gather what the most alike sessions have.

    A session counts by the items it shares with the query, the later ones more; an item of it by how near it stands
    to the last item shared. Returns how many items are touched; `total` (PART_COUNT,) has the sums of the columns.

    Source: Ludewig, Mauro, Latifi, Jannach, "Empirical analysis of session-based recommendation algorithms" (V-SKNN,
        VSTAN); Kersbergen, Sprangers, Schelter, "Serenade" (VMIS-kNN's index of an item's youngest sessions).
    """
    reach = int(parameter[SESSIONS_PER_ITEM])
    session_count = 0
    for place in range(query.shape[0]):
        item = query[place]
        is_repeated = False
        for earlier in range(place):
            if query[earlier] == item:
                is_repeated = True
                break
        if is_repeated:
            continue
        weight = np.exp(-place / parameter[QUERY_DECAY]) * index.rarity[item]
        begin = index.item_first[item]
        last = -1
        of_item = reach if place < FULL_REACH_COUNT else reach // 2
        for at in range(begin, min(index.item_first[item + 1], begin + of_item)):
            session = index.item_session[at]
            if session == last:
                continue
            last = session
            if room.session_score[session] == 0.0:
                room.session_touched[session_count] = session
                room.session_match[session] = index.item_event[at]
                session_count += 1
            room.session_score[session] += weight
    scores = np.empty(session_count, np.float32)
    for at in range(session_count):
        session = room.session_touched[at]
        scores[at] = room.session_score[session] * index.session_weight[session]
        room.session_score[session] = 0.0
    neighbour_count = int(parameter[NEIGHBOUR_COUNT])
    least = np.float32(np.inf) if neighbour_count == 0 else np.float32(0.0)
    if session_count > neighbour_count > 0:
        least = np.partition(scores, session_count - neighbour_count)[session_count - neighbour_count]
    nearness = np.empty(SESSION_LENGTH_MAX, np.float32)
    for distance in range(SESSION_LENGTH_MAX):
        nearness[distance] = np.exp(-distance / parameter[DISTANCE_DECAY])
    for at in range(session_count):
        score = scores[at]
        if score < least:
            continue
        session = room.session_touched[at]
        match = room.session_match[session]
        for event in range(index.session_first[session], index.session_first[session + 1]):
            item = index.event_item[event]
            touched_count = touch_nb(item, room, touched_count)
            part = room.part[item]
            gain = score * index.item_weight[item]
            part[ANYWHERE] += score
            total[ANYWHERE] += score
            if event > match:
                part[AHEAD] += gain * nearness[event - match - 1]
                total[AHEAD] += gain * nearness[event - match - 1]
                if event == match + 1:
                    part[NEXT] += score
                    total[NEXT] += score
            elif event < match:
                part[BEHIND] += gain * nearness[match - event - 1]
                total[BEHIND] += gain * nearness[match - event - 1]
            else:
                part[SHARED] += gain
                total[SHARED] += gain
    return touched_count


@njit(int64(_I4, _INDEX, _ROOM, int64), cache=True)
def add_transitions_nb(query: Int32s, index: Index, room: Room, touched_count: int) -> int:
    """Gather what followed and preceded the last item, and followed the one before; return how many are touched."""
    for place in range(min(query.shape[0], 2)):
        begin = index.item_first[query[place]]
        end = min(index.item_first[query[place] + 1], begin + TRANSITION_COUNT_MAX)
        for at in range(begin, end):
            event = index.item_event[at]
            session = index.item_session[at]
            stop = min(index.session_first[session + 1], event + 1 + TRANSITION_REACH)
            for following in range(event + 1, stop):
                item = index.event_item[following]
                touched_count = touch_nb(item, room, touched_count)
                gain = np.float32(1.0 / ((following - event) * (end - begin)))
                if place == 1:
                    room.part[item, FOLLOWS_SECOND] += gain
                elif following == event + 1:
                    room.part[item, FOLLOWS] += gain
                else:
                    room.part[item, FOLLOWS_LATER] += gain
            if place == 0:
                for preceding in range(max(index.session_first[session], event - TRANSITION_REACH), event):
                    item = index.event_item[preceding]
                    touched_count = touch_nb(item, room, touched_count)
                    room.part[item, PRECEDES] += np.float32(1.0 / ((event - preceding) * (end - begin)))
    return touched_count


@njit(int64(_I4, _TRAIL, _ROOM, _F8, int64), cache=True)
def add_own_nb(query: Int32s, trail: Trail, room: Room, total: Float64s, touched_count: int) -> int:
    """Gather what the visitor had before, in the last session and in all; return how many items are touched."""
    for place in range(query.shape[0]):
        part = room.part[query[place]]
        if part[TIMES] == 0.0:
            part[RECENCY] = np.exp(-place / 3.0)
        part[TIMES] += 1.0
    for at in range(trail.item.shape[0] - 1, -1, -1):
        item = trail.item[at]
        touched_count = touch_nb(item, room, touched_count)
        part = room.part[item]
        age, weight = trail.age[at], trail.weight[at]
        for column, pace in ((OWN_FAST, FORGET_FAST), (OWN, FORGET), (OWN_SLOW, FORGET_SLOW)):
            gain = np.float32(weight * np.exp(-age * pace))
            part[column] += gain
            total[column] += gain
        if part[OWN_SESSIONS] == 0.0:
            part[OWN_LAST_AGE] = age
            part[OWN_LAST_BACK] = trail.back[at]
            part[OWN_SESSIONS] = 1.0
        elif part[OWN_FIRST_BACK] != trail.back[at]:
            part[OWN_SESSIONS] += 1.0
        part[OWN_FIRST_BACK] = trail.back[at]
        part[OWN_FIRST_AGE] = age
    return touched_count


@njit(int64(_INDEX, _F8, _ROOM, _F8, int64, _I4, _F4), cache=True)
def choose_candidates_nb(
    index: Index,
    parameter: Float64s,
    room: Room,
    total: Float64s,
    touched_count: int,
    candidate: Int32s,
    blend: Float32s,
) -> int:
    """Write the items of the highest blend of what was gathered, the best first, and their shares of it."""
    near = total[AHEAD] + parameter[BACKWARD] * total[BEHIND] + parameter[REPEAT] * total[SHARED]
    of_near = 1.0 / near if near > 0.0 else 0.0
    of_own = parameter[HISTORY] / total[OWN] if total[OWN] > 0.0 else 0.0
    negative = np.empty(touched_count, np.float32)
    sum_of_all = 0.0
    for at in range(touched_count):
        item = room.item_touched[at]
        part = room.part[item]
        score = of_near * (part[AHEAD] + parameter[BACKWARD] * part[BEHIND] + parameter[REPEAT] * part[SHARED])
        score += parameter[TRANSITION] * (part[FOLLOWS] + part[FOLLOWS_LATER])
        score += of_own * part[OWN] + parameter[POPULARITY] * index.item_fact[item, SHARE]
        negative[at] = -score
        sum_of_all += score
    count: int = min(candidate.shape[0], touched_count)
    most = np.float32(np.inf)
    if touched_count > count:
        most = np.partition(negative, count - 1)[count - 1]
    kept = np.empty(touched_count, np.int32)
    kept_count = 0
    for at in range(touched_count):
        if negative[at] <= most:
            kept[kept_count] = at
            kept_count += 1
    order = np.argsort(negative[kept[:kept_count]], kind="mergesort")
    for place in range(count):
        at = kept[order[place]]
        candidate[place] = room.item_touched[at]
        blend[place] = -negative[at] / sum_of_all if sum_of_all > 0.0 else 0.0
    return count


@njit(types.void(_INDEX, _ROOM, _F8, _I4, int64, int64, int32, _I4, _F4, _F4_2D), cache=True)
def describe_candidates_nb(
    index: Index,
    room: Room,
    total: Float64s,
    query: Int32s,
    session_count: int,
    count: int,
    last_item: np.int32,
    candidate: Int32s,
    blend: Float32s,
    feature: Float32s,
) -> None:
    """Write the features (T, FEATURE_COUNT) of candidates that the combiner weighs."""
    for place in range(count):
        item = candidate[place]
        part, fact, row = room.part[item], index.item_fact[item], feature[place]
        row[0] = np.log(blend[place] + 1e-5)
        row[1] = blend[place]
        at = 2
        for column in (AHEAD, BEHIND, SHARED, NEXT, ANYWHERE):
            row[at] = np.log(part[column] / total[column] + 1e-3) if total[column] > 0.0 else np.log(1e-3)
            at += 1
        for column in (FOLLOWS, FOLLOWS_LATER, PRECEDES, FOLLOWS_SECOND):
            row[at] = np.log(part[column] + 1e-3)
            at += 1
        row[11] = part[FOLLOWS]
        row[12] = part[RECENCY]
        row[13] = part[TIMES]
        row[14] = 1.0 if item == last_item else 0.0
        row[15] = 1.0 if part[TIMES] > 0.0 else 0.0
        row[16] = np.log(fact[SHARE] + 1e-6)
        row[17] = np.log(fact[SHARE_LATELY] + 1e-6)
        row[18] = np.log(fact[SHARE_NOW] + 1e-5)
        at = 19
        for column in (OWN_FAST, OWN, OWN_SLOW):
            row[at] = np.log(part[column] / total[column] + 1e-4) if total[column] > 0.0 else np.log(1e-4)
            at += 1
        sessions = part[OWN_SESSIONS]
        is_own = sessions > 0.0
        age = part[OWN_LAST_AGE]
        row[22] = 1.0 if is_own else 0.0
        row[23] = np.log(sessions + 1.0)
        row[24] = np.log(sessions / max(session_count, 1) + 0.01)
        row[25] = np.log(age + 1.0) if is_own else 0.0
        pause = (part[OWN_FIRST_AGE] - age) / (sessions - 1.0) if sessions > 1.0 else 0.0
        row[26] = min(age / (pause + 0.5), 5.0) if sessions > 1.0 else 0.0
        row[27] = fact[RETURN_RATE] if is_own else 0.0
        row[28] = np.log(fact[RETURN_RATE] + 1e-2) if is_own else np.log(1e-2)
        row[29] = 1.0 if is_own and part[OWN_LAST_BACK] == 0.0 else 0.0
        row[30] = 1.0 if is_own and part[OWN_LAST_BACK] == 1.0 else 0.0
        row[31] = 1.0 if sessions == 1.0 else 0.0
        row[32] = part[OWN] / total[OWN] if total[OWN] > 0.0 else 0.0
        at = 33
        for one in range(len(CROSSED)):
            for other in range(one, len(CROSSED)):
                row[at] = (row[CROSSED[one][0]] + CROSSED[one][1]) * (row[CROSSED[other][0]] + CROSSED[other][1])
                at += 1


@njit(int64(_TRAIL, _INDEX, _F8, _ROOM, _I4, _F4, _F4_2D, uint8), cache=True)
def find_candidates_nb(
    trail: Trail,
    index: Index,
    parameter: Float64s,
    room: Room,
    candidate: Int32s,
    blend: Float32s,
    feature: Float32s,
    describes: int,
) -> int:
    """Find the items most likely next for a visitor, by sessions alike, transitions, history and popularity.

    Args:
        trail: the visitor's.
        index: sessions learnt from.
        parameter: (PARAMETER_COUNT,) see the names above.
        room: to work in.
        candidate: (T,) out: the best items, the best blend first.
        blend: (T,) out: their shares of the blend, 0 to 1.
        feature: (T, FEATURE_COUNT) out, if `describes` is not 0.
        describes: whether features are wanted.

    Returns:
        How many were found, at most T.
    """
    room_for_query = np.empty(QUERY_LENGTH_MAX, np.int32)
    query = room_for_query[: read_query_nb(trail, room_for_query)]
    total = np.zeros(PART_COUNT)
    touched = add_neighbours_nb(query, index, parameter, room, total, 0)
    touched = add_transitions_nb(query, index, room, touched)
    touched = add_own_nb(query, trail, room, total, touched)
    for at in range(index.popular_item.shape[0]):
        touched = touch_nb(index.popular_item[at], room, touched)
    count = choose_candidates_nb(index, parameter, room, total, touched, candidate, blend)
    if describes:
        session_count = trail.back[0] + 1 if trail.back.shape[0] > 0 else 0
        last_item = query[0] if query.shape[0] > 0 else np.int32(-1)
        describe_candidates_nb(index, room, total, query, session_count, count, last_item, candidate, blend, feature)
    for at in range(touched):
        room.part[room.item_touched[at]] = 0.0
    return count


@njit(int64(_TRAIL, _INDEX, _F8, _F8, _ROOM, _F4_2D, _I4, _F4), cache=True)
def rank_visitor_nb(
    trail: Trail,
    index: Index,
    parameter: Float64s,
    combiner: Float64s,
    room: Room,
    feature: Float32s,
    top_item: Int32s,
    top_share: Float32s,
) -> int:
    """Rank the items most likely next for a visitor by the combiner.

    Args:
        trail: see `find_candidates_nb`, as the next three.
        index: same.
        parameter: same.
        combiner: (FEATURE_COUNT,) weight of each feature in the logit.
        room: same.
        feature: (T, FEATURE_COUNT) room.
        top_item: (T,) out: the best items, the best first.
        top_share: (T,) out: their probabilities, given that the next is among them.

    Returns:
        How many were ranked, at most T.
    """
    candidate = np.empty(top_item.shape[0], np.int32)
    blend = np.empty(top_item.shape[0], np.float32)
    count = find_candidates_nb(trail, index, parameter, room, candidate, blend, feature, 1)
    negative = np.empty(count, np.float64)
    for place in range(count):
        logit = 0.0
        for column in range(FEATURE_COUNT):
            logit += combiner[column] * feature[place, column]
        negative[place] = -logit
    order = np.argsort(negative, kind="mergesort")
    total = 0.0
    for place in range(count):
        total += np.exp(negative[order[0]] - negative[place])
    for place in range(count):
        top_item[place] = candidate[order[place]]
        top_share[place] = np.exp(negative[order[0]] - negative[order[place]]) / total
    return count


@njit(types.void(_TRAIL, _I8, _I4, _I8, _INDEX, _F8, _ROOM, _I4_2D, _F4_3D, _U1_2D, uint8), cache=True)
def find_candidates_of_many_nb(
    trail: Trail,
    trail_first: Int64s,
    target: Int32s,
    target_first: Int64s,
    index: Index,
    parameter: Float64s,
    room: Room,
    candidate: Int32s,
    feature: Float32s,
    is_target: Uint8s,
    describes: int,
) -> None:
    """Find the candidates of many visitors, and say which are what came next indeed.

    Args:
        trail: of all; of each, from `trail_first[c]` to `trail_first[c + 1]`.
        trail_first: (C + 1,).
        target: items that came next, likewise by `target_first`.
        target_first: (C + 1,).
        index: see `find_candidates_nb`, as the next two.
        parameter: same.
        room: same.
        candidate: (C, T) out: the best items of each, the best blend first; -1 where there are no more.
        feature: (C, T, FEATURE_COUNT) out, if `describes` is not 0; else of any length.
        is_target: (C, T) out: 1 where the candidate came next.
        describes: whether features are wanted.
    """
    blend = np.empty(candidate.shape[1], np.float32)
    no_feature = np.empty((0, FEATURE_COUNT), np.float32)
    for case in range(candidate.shape[0]):
        begin, end = trail_first[case], trail_first[case + 1]
        one = Trail(trail.item[begin:end], trail.weight[begin:end], trail.age[begin:end], trail.back[begin:end])
        count = find_candidates_nb(
            one, index, parameter, room, candidate[case], blend, feature[case] if describes else no_feature, describes
        )
        for place in range(candidate.shape[1]):
            is_target[case, place] = 0
            if place >= count:
                candidate[case, place] = -1
                continue
            for at in range(target_first[case], target_first[case + 1]):
                if target[at] == candidate[case, place]:
                    is_target[case, place] = 1


@njit(int64(int64, int64, int64), cache=True)
def kinship_nb(nearness: int, is_same_brand: int, seen: int) -> int:
    """Return the number of how a product stands to a visitor."""
    return (nearness * 2 + is_same_brand) * SEEN_COUNT + seen


@njit(int64(_I4_2D, _KINDS, _I4_2D), cache=True)
def find_contexts_nb(about: Int32s, kinds: Kinds, context: Int32s) -> int:
    """Find the latest categories a visitor was in, each once.

    Args:
        about: (H, 3) category of each event, brand of the product it was about, and sessions back from the last, the
            oldest first; -1 for no category or brand.
        kinds: products.
        context: (CONTEXT_COUNT_MAX, 3) out: category, brand and nearness of each, the latest first.

    Returns:
        How many, K.
    """
    count = earlier_count = 0
    is_last = True
    for at in range(about.shape[0] - 1, max(-1, about.shape[0] - 1 - CONTEXT_EVENT_COUNT_MAX), -1):
        row = about[at, 0]
        if row < 0:
            continue
        nearness = EARLIER if about[at, 2] != 0 else LAST if is_last else SESSION
        is_last = False
        if count == CONTEXT_COUNT_MAX or (nearness == EARLIER and earlier_count == EARLIER_COUNT_MAX):
            break
        is_there = False
        for place in range(count):
            is_there |= context[place, 0] == row
        size = kinds.category_first[kinds.category_end[row]] - kinds.category_first[row]
        if is_there or size > CONTEXT_SIZE_MAX:
            continue
        context[count, 0], context[count, 1], context[count, 2] = row, about[at, 1], nearness
        count += 1
        earlier_count += nearness == EARLIER
    return count


@njit(int64(_I4_2D, int64, _KINDS, _I4, _I4, _I4, _I4), cache=True)
def find_kin_nb(
    context: Int32s,
    context_count: int,
    kinds: Kinds,
    left_out: Int32s,
    mark: Int32s,
    product: Int32s,
    kinship: Int32s,
) -> int:
    """List the products of a visitor's categories and of those below them, each once, at its nearest.

    Args:
        context: see `find_contexts_nb`.
        context_count: K.
        kinds: products.
        left_out: products that are not to be listed; -1 for none.
        mark: (P,) room, zeros between calls.
        product: (CONTEXT_SIZE_MAX,) out.
        kinship: (CONTEXT_SIZE_MAX,) out: see `kinship_nb`.

    Returns:
        How many were listed.
    """
    for at in range(left_out.shape[0]):
        if left_out[at] >= 0:
            mark[left_out[at]] = 1
    count = 0
    for place in range(context_count):
        row, brand, nearness = context[place, 0], context[place, 1], context[place, 2]
        for at in range(kinds.category_first[row], kinds.category_first[kinds.category_end[row]]):
            one = kinds.by_category[at]
            if mark[one] != 0 or count == product.shape[0]:
                continue
            mark[one] = 1
            product[count] = one
            is_same_brand = 1 if brand >= 0 and kinds.brand[one] == brand else 0
            kinship[count] = kinship_nb(nearness, is_same_brand, kinds.seen[one])
            count += 1
    for at in range(left_out.shape[0]):
        if left_out[at] >= 0:
            mark[left_out[at]] = 0
    for at in range(count):
        mark[product[at]] = 0
    return count


@njit(int64(_I4, _F4, float64, types.Array(types.boolean, 1, "C"), _I4, _F4, int64, int64), cache=True)
def keep_likeliest_nb(
    found: Int32s,
    negative: Float32s,
    total: float,
    is_wanted: NDArray[np.bool_],
    product: Int32s,
    share: Float32s,
    count: int,
    end: int,
) -> int:
    """Write the likeliest of the wanted products and their shares behind the first `count`, up to `end`.

    Args:
        found: products.
        negative: minus what each counts.
        total: what all products count.
        is_wanted: whether each may be written.
        product: out.
        share: out.
        count: how many are written already.
        end: most there may be.

    Returns:
        How many are written now.
    """
    wanted = negative[is_wanted]
    room = end - count
    most = np.float32(np.inf)
    if wanted.shape[0] > room:
        most = np.partition(wanted, room - 1)[room - 1]
    for keeps_equal in range(2):  # those above the last one that fits, then its equals as far as there is room
        for place in range(found.shape[0]):
            if not is_wanted[place] or count == end:
                continue
            if negative[place] == most if keeps_equal else negative[place] < most:
                product[count] = found[place]
                share[count] = -negative[place] / total
                count += 1
    return count


@njit(int64(_I4_2D, _KINDS, _I4, _F8, _I4, _I4, _F4), cache=True)
def share_among_kin_nb(
    about: Int32s,
    kinds: Kinds,
    candidate: Int32s,
    weight: Float64s,
    mark: Int32s,
    product: Int32s,
    share: Float32s,
) -> int:
    """Share among all products that are no candidates what is left for them, by how they stand to the visitor.

    Args:
        about: see `find_contexts_nb`, as the next.
        kinds: same.
        candidate: products that have a probability of their own; -1 for none, each at most once.
        weight: (KINSHIP_COUNT,) what each kinship counts.
        mark: see `find_kin_nb`.
        product: (B,) out: products of the visitor's categories, if there are more the likeliest; those hardly known
            have half of the room, and no more.
        share: (B,) out: P(it comes next, given that no candidate does).

    Returns:
        How many, at most B; 0 where the visitor was in no category.
    """
    context = np.empty((CONTEXT_COUNT_MAX, 3), np.int32)
    context_count = find_contexts_nb(about, kinds, context)
    if context_count == 0:
        return 0
    found = np.empty(CONTEXT_SIZE_MAX, np.int32)
    kinship = np.empty(CONTEXT_SIZE_MAX, np.int32)
    found_count = find_kin_nb(context, context_count, kinds, candidate, mark, found, kinship)
    found = found[:found_count]
    left = kinds.usual_of_seen.copy()
    for at in range(candidate.shape[0]):
        if candidate[at] >= 0:
            left[kinds.seen[candidate[at]]] -= kinds.usual[candidate[at]]
    total = 0.0
    negative = np.empty(found_count, np.float32)
    for at in range(found_count):
        usual = kinds.usual[found[at]]
        left[kinds.seen[found[at]]] -= usual
        negative[at] = -weight[kinship[at]] * usual
        total -= negative[at]
    for seen in range(SEEN_COUNT):
        total += max(left[seen], 0.0) * weight[kinship_nb(ELSEWHERE, 0, seen)]
    if total <= 0.0:
        return 0
    is_scarce = np.empty(found_count, np.bool_)
    for at in range(found_count):
        is_scarce[at] = kinds.seen[found[at]] != KNOWN
    count = keep_likeliest_nb(found, negative, total, is_scarce, product, share, 0, product.shape[0] // 2)
    return keep_likeliest_nb(found, negative, total, ~is_scarce, product, share, count, product.shape[0])


@njit(types.void(_I4_2D, _I8, _I4, _I8, _KINDS, _I4_2D, _I4, _F4_2D, _F4_2D), cache=True)
def count_kin_of_many_nb(
    about: Int32s,
    trail_first: Int64s,
    target: Int32s,
    target_first: Int64s,
    kinds: Kinds,
    candidate: Int32s,
    mark: Int32s,
    usual: Float32s,
    hit: Float32s,
) -> None:
    """Sum up the products that are no candidates of many visitors, by how they stand to them.

    Args:
        about: see `find_contexts_nb`; of all visitors, of each from `trail_first[c]` on.
        trail_first: (C + 1,).
        target: products that came next, likewise by `target_first`.
        target_first: (C + 1,).
        kinds: products.
        candidate: (C, T) of each; -1 for none.
        mark: see `find_kin_nb`.
        usual: (C, KINSHIP_COUNT) out: sums of `Kinds.usual`.
        hit: (C, KINSHIP_COUNT) out: how many of them came next.
    """
    context = np.empty((CONTEXT_COUNT_MAX, 3), np.int32)
    product = np.empty(CONTEXT_SIZE_MAX, np.int32)
    kinship = np.empty(CONTEXT_SIZE_MAX, np.int32)
    for case in range(candidate.shape[0]):
        context_count = find_contexts_nb(about[trail_first[case] : trail_first[case + 1]], kinds, context)
        count = find_kin_nb(context, context_count, kinds, candidate[case], mark, product, kinship)
        usual[case] = 0.0
        hit[case] = 0.0
        left = kinds.usual_of_seen.copy()
        for at in range(candidate.shape[1]):
            if candidate[case, at] >= 0:
                left[kinds.seen[candidate[case, at]]] -= kinds.usual[candidate[case, at]]
                mark[candidate[case, at]] = -1
        for at in range(count):
            left[kinds.seen[product[at]]] -= kinds.usual[product[at]]
            usual[case, kinship[at]] += kinds.usual[product[at]]
            mark[product[at]] = kinship[at] + 1
        for seen in range(SEEN_COUNT):
            usual[case, kinship_nb(ELSEWHERE, 0, seen)] += max(left[seen], 0.0)
        for at in range(target_first[case], target_first[case + 1]):
            if target[at] >= 0 and mark[target[at]] >= 0:
                stands = mark[target[at]] - 1
                hit[case, stands if stands >= 0 else kinship_nb(ELSEWHERE, 0, kinds.seen[target[at]])] += 1.0
        for at in range(candidate.shape[1]):
            if candidate[case, at] >= 0:
                mark[candidate[case, at]] = 0
        for at in range(count):
            mark[product[at]] = 0


@njit(
    types.int64[::1](
        types.Array(types.int64, 1, "C", readonly=True),
        types.Array(types.int32, 1, "C", readonly=True),
        types.Array(types.int64, 1, "C", readonly=True),
    ),
    cache=True,
)
def correct_qualities_nb(quality_ppm: Int64s, rows: Int32s, factor_ppm: Int64s) -> Int64s:
    """Return (V,) a visitor's qualities times the factor of each product, 1 to a million.

    Args:
        quality_ppm: (V,) of some products.
        rows: (V,) these products.
        factor_ppm: (P,) of all products.
    """
    corrected = np.empty(rows.shape[0], np.int64)
    for at in range(rows.shape[0]):
        corrected[at] = min(max(quality_ppm[at] * factor_ppm[rows[at]] // 1_000_000, 1), 1_000_000)
    return corrected


def warm() -> None:
    """Load every kernel, so that none is compiled on a request: written signatures compile at import."""
    none = np.zeros(0, np.int64)
    bits = np.zeros(0, np.uint64)
    evaluate_nodes_nb(np.zeros(0, np.int8), np.zeros(1, np.int64), none, np.zeros(0, np.uint8), none, bits)

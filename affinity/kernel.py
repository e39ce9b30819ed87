"""All compiled code of this package: arrays and numbers in, arrays out.

Dimensions: N nodes of all audiences, L predicates, A audiences; I items a model knows, S sessions it learnt from,
E events of all those sessions, Q items of a visitor's session, H items of a visitor's history, T items ranked.
"""

import numpy as np
from numba import njit, types
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
TRANSITION_REACH = 3  # how many of the next items count as following an item


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


@njit(
    "i8(i4[::1], i4[::1], f4[::1], i4[::1], i8[::1], f4[::1], i8[::1], i4[::1], i4[::1], f4[::1], f4[::1], i4[::1],"
    " f4[::1], f8[::1], f4[::1], i4[::1], i4[::1], f4[::1], i4[::1], i4[::1], f4[::1])",
    cache=True,
)
def rank_session_nb(
    query: Int32s,
    history_item: Int32s,
    history_weight: Float32s,
    event_item: Int32s,
    session_first: Int64s,
    session_weight: Float32s,
    item_first: Int64s,
    item_event: Int32s,
    event_session: Int32s,
    rarity: Float32s,
    item_weight: Float32s,
    popular_item: Int32s,
    popular_share: Float32s,
    parameter: Float64s,
    session_score: Float32s,
    session_match: Int32s,
    session_touched: Int32s,
    item_score: Float32s,
    item_touched: Int32s,
    top_item: Int32s,
    top_share: Float32s,
) -> int:
    """Rank items by what the most alike sessions went on with, what followed, and what the visitor had before.

    A session counts by the items it shares with the query, the later ones more; an item of it by how near it stands
    to the last item shared. Those scores, the transitions and the history are each taken as shares of their sum.

    Args:
        query: (Q,) items of the visitor's session, the last first; may repeat.
        history_item: (H,) items of the visitor's history, each once.
        history_weight: (H,) of each.
        event_item: (E,) items of the sessions, in order, session after session.
        session_first: (S + 1,) where a session begins in `event_item`; later sessions are younger.
        session_weight: (S,) what a session counts by its age and length.
        item_first: (I + 1,) where an item's events begin in `item_event`.
        item_event: (E,) events of each item, the youngest first.
        event_session: (E,) session of each event.
        rarity: (I,) how telling it is to share the item.
        item_weight: (I,) what a score of the item counts.
        popular_item: items most looked at, the most first.
        popular_share: of each, its share of all events.
        parameter: (PARAMETER_COUNT,) see the names above.
        session_score: (S,) zeros, and zeros again at the end.
        session_match: (S,) room.
        session_touched: (S,) room.
        item_score: (I,) zeros, and zeros again at the end.
        item_touched: (I,) room.
        top_item: (T,) out: the best items, the best first.
        top_share: (T,) out: their shares of all scores, 0 to 1.

    Returns:
        How many were ranked, at most T.

    Source: Ludewig, Mauro, Latifi, Jannach, "Empirical analysis of session-based recommendation algorithms" (V-SKNN,
        VSTAN); Kersbergen, Sprangers, Schelter, "Serenade" (VMIS-kNN's index of an item's youngest sessions).
    """
    reach = int(parameter[SESSIONS_PER_ITEM])
    touched_count = 0
    for place in range(query.shape[0]):
        item = query[place]
        is_repeated = False
        for earlier in range(place):
            if query[earlier] == item:
                is_repeated = True
                break
        if is_repeated:
            continue
        weight = np.exp(-place / parameter[QUERY_DECAY]) * rarity[item]
        begin = item_first[item]
        end = min(item_first[item + 1], begin + reach)
        last = -1
        for at in range(begin, end):
            event = item_event[at]
            session = event_session[event]
            if session == last:
                continue
            last = session
            if session_score[session] == 0.0:
                session_touched[touched_count] = session
                session_match[session] = event
                touched_count += 1
            session_score[session] += weight
    for at in range(touched_count):
        session = session_touched[at]
        session_score[session] *= session_weight[session]
    nearness = np.empty(2 * SESSION_LENGTH_MAX + 1)
    nearness[SESSION_LENGTH_MAX] = parameter[REPEAT]
    for distance in range(SESSION_LENGTH_MAX):
        value = np.exp(-distance / parameter[DISTANCE_DECAY])
        nearness[SESSION_LENGTH_MAX + 1 + distance] = value
        nearness[SESSION_LENGTH_MAX - 1 - distance] = value * parameter[BACKWARD]
    least = np.float32(0.0)
    neighbour_count = int(parameter[NEIGHBOUR_COUNT])
    if touched_count > neighbour_count:
        scores = np.empty(touched_count, np.float32)
        for at in range(touched_count):
            scores[at] = session_score[session_touched[at]]
        least = np.partition(scores, touched_count - neighbour_count)[touched_count - neighbour_count]
    item_count = 0
    for at in range(touched_count):
        session = session_touched[at]
        score = session_score[session]
        session_score[session] = 0.0
        if score < least:
            continue
        match = session_match[session]
        for event in range(session_first[session], session_first[session + 1]):
            item = event_item[event]
            gain = np.float32(score * nearness[event - match + SESSION_LENGTH_MAX] * item_weight[item])
            if gain > 0.0:
                if item_score[item] == 0.0:
                    item_touched[item_count] = item
                    item_count += 1
                item_score[item] += gain
    total = np.float32(0.0)
    for at in range(item_count):
        total += item_score[item_touched[at]]
    if total > 0.0:
        for at in range(item_count):
            item_score[item_touched[at]] /= total
    if query.shape[0] > 0 and parameter[TRANSITION] > 0.0:
        begin = item_first[query[0]]
        end = min(item_first[query[0] + 1], begin + reach)
        for at in range(begin, end):
            event = item_event[at]
            stop = min(session_first[event_session[event] + 1], event + 1 + TRANSITION_REACH)
            for following in range(event + 1, stop):
                item = event_item[following]
                gain = np.float32(parameter[TRANSITION] / ((following - event) * (end - begin)))
                if item_score[item] == 0.0:
                    item_touched[item_count] = item
                    item_count += 1
                item_score[item] += gain
    total = np.float32(0.0)
    for at in range(history_item.shape[0]):
        total += history_weight[at]
    if total > 0.0 and parameter[HISTORY] > 0.0:
        for at in range(history_item.shape[0]):
            item = history_item[at]
            gain = np.float32(parameter[HISTORY] * history_weight[at] / total)
            if gain > 0.0:
                if item_score[item] == 0.0:
                    item_touched[item_count] = item
                    item_count += 1
                item_score[item] += gain
    for at in range(popular_item.shape[0]):
        item = popular_item[at]
        gain = np.float32(parameter[POPULARITY] * popular_share[at])
        if gain > 0.0:
            if item_score[item] == 0.0:
                item_touched[item_count] = item
                item_count += 1
            item_score[item] += gain
    total = np.float32(0.0)
    for at in range(item_count):
        total += item_score[item_touched[at]]
    ranked_count: int = min(top_item.shape[0], item_count)
    least = np.float32(0.0)
    if item_count > ranked_count:
        scores = np.empty(item_count, np.float32)
        for at in range(item_count):
            scores[at] = item_score[item_touched[at]]
        least = np.partition(scores, item_count - ranked_count)[item_count - ranked_count]
    kept_count = 0
    kept = np.empty(item_count, np.int32)
    kept_score = np.empty(item_count, np.float32)
    for at in range(item_count):
        item = item_touched[at]
        if item_score[item] >= least:
            kept[kept_count] = item
            kept_score[kept_count] = -item_score[item]
            kept_count += 1
        item_score[item] = 0.0
    order = np.argsort(kept_score[:kept_count])
    for at in range(ranked_count):
        top_item[at] = kept[order[at]]
        top_share[at] = -kept_score[order[at]] / total
    return ranked_count


@njit(
    "void(i4[::1], i8[::1], i4[::1], f4[::1], i8[::1], i4[::1], i4[::1], i8[::1], f4[::1], i8[::1], i4[::1], i4[::1],"
    " f4[::1], f4[::1], i4[::1], f4[::1], f8[::1], i4[:,::1], f4[:,::1], i8[::1])",
    cache=True,
)
def rank_sessions_nb(
    query: Int32s,
    query_first: Int64s,
    history_item: Int32s,
    history_weight: Float32s,
    history_first: Int64s,
    target: Int32s,
    event_item: Int32s,
    session_first: Int64s,
    session_weight: Float32s,
    item_first: Int64s,
    item_event: Int32s,
    event_session: Int32s,
    rarity: Float32s,
    item_weight: Float32s,
    popular_item: Int32s,
    popular_share: Float32s,
    parameter: Float64s,
    top_item: Int32s,
    top_share: Float32s,
    target_place: Int64s,
) -> None:
    """Rank many visitors' sessions, and say where each one's true next item came.

    Args:
        query: items of all the sessions, of each the last first; from `query_first[c]` to `query_first[c + 1]`.
        query_first: (C + 1,).
        history_item: items of all the histories, likewise by `history_first`.
        history_weight: of each.
        history_first: (C + 1,).
        target: (C,) the true next item of each; -1 where the model does not know it.
        event_item: see `rank_session_nb`, as what follows it.
        session_first: same.
        session_weight: same.
        item_first: same.
        item_event: same.
        event_session: same.
        rarity: same.
        item_weight: same.
        popular_item: same.
        popular_share: same.
        parameter: same.
        top_item: (C, T) out: the best items of each; -1 where there are no more.
        top_share: (C, T) out: their shares.
        target_place: (C,) out: place of the target among them, from 0; -1 where it is not.
    """
    session_count = session_first.shape[0] - 1
    item_count = item_first.shape[0] - 1
    session_score = np.zeros(session_count, np.float32)
    session_match = np.zeros(session_count, np.int32)
    session_touched = np.zeros(session_count, np.int32)
    item_score = np.zeros(item_count, np.float32)
    item_touched = np.zeros(item_count, np.int32)
    for case in range(target.shape[0]):
        count = rank_session_nb(
            query[query_first[case] : query_first[case + 1]],
            history_item[history_first[case] : history_first[case + 1]],
            history_weight[history_first[case] : history_first[case + 1]],
            event_item,
            session_first,
            session_weight,
            item_first,
            item_event,
            event_session,
            rarity,
            item_weight,
            popular_item,
            popular_share,
            parameter,
            session_score,
            session_match,
            session_touched,
            item_score,
            item_touched,
            top_item[case],
            top_share[case],
        )
        target_place[case] = -1
        for place in range(count):
            if top_item[case, place] == target[case]:
                target_place[case] = place
        for place in range(count, top_item.shape[1]):
            top_item[case, place] = -1


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

"""Learns an affinity model from sessions: the index it ranks by, its parameters by validation, its calibration.

Sessions are split by time. Nothing is set per shop: the parameters that do best on the last sessions are kept, then
the index is made of all of them.
"""

from collections.abc import Callable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.calibration import apply_monotone, expected_calibration_error, fit_monotone
from affinity.errors import TrainingRefused
from affinity.kernel import (
    AGE_DECAY,
    BACKWARD,
    DISTANCE_DECAY,
    HISTORY,
    LENGTH_POWER,
    NEIGHBOUR_COUNT,
    PARAMETER_COUNT,
    POPULARITY,
    QUERY_DECAY,
    RARITY_POWER,
    REPEAT,
    SESSIONS_PER_ITEM,
    TRANSITION,
    rank_sessions_nb,
)
from affinity.model import POPULAR_COUNT, QUERY_LENGTH_MAX, AffinityModel, Learnt, weigh
from affinity.sessions import HISTORY_HALF_LIFE_MS, Sessions

Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Progress = Callable[[int, int | None], None]

SESSION_COUNT_MAX = 500_000
HELD_OUT_SHARE = 0.05
HELD_OUT_COUNT = 50  # at least so many sessions, if that is at most a fifth of all
HELD_OUT_COUNT_MIN = 20  # with fewer nothing is tuned
PRIOR_KNOTS = (np.array([0.0, 1.0]), np.array([0.0, 0.5]))  # until calibrated, a share of the scores is half believed
CASE_COUNT_MAX = 3_000
LEAST_GAIN = 0.0005  # of the cases: a choice is not changed for what may be chance
TOP_COUNT = 20
CALIBRATION_TOP_COUNT = 100

START: Mapping[int, float] = {
    SESSIONS_PER_ITEM: 1_000,
    NEIGHBOUR_COUNT: 200,
    QUERY_DECAY: 2.5,
    DISTANCE_DECAY: 4.0,
    BACKWARD: 0.5,
    REPEAT: 0.25,
    LENGTH_POWER: 0.0,
    AGE_DECAY: 10.0,
    RARITY_POWER: 0.2,
    TRANSITION: 0.3,
    HISTORY: 0.3,
    POPULARITY: 0.01,
}
# Tried one after another, each with the best so far of the others.
CHOICES: Mapping[int, tuple[float, ...]] = {
    REPEAT: (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    BACKWARD: (0.25, 0.5, 1.0),
    QUERY_DECAY: (0.7, 1.0, 1.5, 2.5, 4.0),
    TRANSITION: (0.0, 0.15, 0.3, 0.6, 1.0, 2.0, 4.0),
    HISTORY: (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    DISTANCE_DECAY: (0.7, 1.0, 2.0, 4.0, 10.0),
    RARITY_POWER: (0.0, 0.2, 0.4, 0.7),
    LENGTH_POWER: (0.0, 0.3, 0.6),
    NEIGHBOUR_COUNT: (100, 200, 300, 500),
    AGE_DECAY: (0.3, 1.0, 3.0, 10.0),
    POPULARITY: (0.0, 0.01, 0.1),
}


class Cases(Struct, frozen=True, eq=False):
    """Beginnings of sessions with the item that came next; see `kernel.rank_sessions_nb`."""

    query: Int32s
    query_first: Int64s
    history_item: Int32s
    history_weight: NDArray[np.float32]
    history_first: Int64s
    target: Int32s

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.target)

    def take(self, rows: Int64s) -> "Cases":
        """Return only some of the cases."""
        query, query_first = _take(self.query_first, rows)
        history, history_first = _take(self.history_first, rows)
        return Cases(
            self.query[query],
            query_first,
            self.history_item[history],
            self.history_weight[history],
            history_first,
            self.target[rows],
        )


def train_model(
    sessions: Sessions,
    now_ms: int,
    progress: Progress = lambda done, total: None,
    clicks: Mapping[str, tuple[int, int]] | None = None,
    tuned: Mapping[int, float] | None = None,
) -> AffinityModel:
    """Return a model of all the sessions, its metrics from the last ones before it knew them.

    Args:
        sessions: in the order of time.
        now_ms: stamped on the model.
        progress: called with how many parameters were tried, and of how many.
        clicks: product id to (clicks, times seen), where click logs exist.
        tuned: parameters found before, to be used as they are: that takes a tenth of the time.

    Raises:
        TrainingRefused: there is no session to learn from.
    """
    if not len(sessions):
        raise TrainingRefused("there is no navigation with products to learn from: import some first")
    held_out = max(int(len(sessions) * HELD_OUT_SHARE), min(HELD_OUT_COUNT, len(sessions) // 5))
    parameter = parameters(START if tuned is None else tuned)
    knots = PRIOR_KNOTS
    metrics: dict[str, float] = {}
    if held_out >= HELD_OUT_COUNT_MIN:
        cut = len(sessions) - held_out
        index = make_index(sessions.between(0, cut), now_ms)
        tuning, checking = split_cases(sessions, cut, CASE_COUNT_MAX)
        if len(tuning) and len(checking):
            parameter = tune(index, tuning, parameter, progress) if tuned is None else parameter
            knots = calibrate(index, tuning, parameter)
            metrics = measure(index, checking, parameter, knots)
    learnt = make_index(sessions, now_ms, parameter, knots, clicks)
    metrics["session_count"] = len(sessions)
    metrics["event_count"] = len(sessions.item)
    metrics["product_count"] = len(sessions.product_ids)
    return AffinityModel(learnt, metrics)


def evaluate_model(
    sessions: Sessions, now_ms: int, progress: Progress = lambda done, total: None, held_out_share: float = 0.1
) -> dict[str, float]:
    """Return how well a model of the earlier sessions foresees the later ones.

    Raises:
        TrainingRefused: there are too few sessions to set some apart.
    """
    held_out = int(len(sessions) * held_out_share)
    if held_out < 1 or len(sessions) - held_out < 1:
        raise TrainingRefused(f"evaluating needs at least {round(1 / held_out_share)} sessions, had {len(sessions)}")
    cut = len(sessions) - held_out
    model = train_model(sessions.between(0, cut), now_ms, progress)
    _, cases = split_cases(sessions, cut, 10 * CASE_COUNT_MAX, tuning_share=0.0)
    knots = (model.learnt.knot_score, model.learnt.knot_rate)
    return measure(model.learnt, cases, model.learnt.parameter, knots) | {
        "trained_session_count": cut,
        "held_out_session_count": held_out,
    }


def parameters(values: Mapping[int, float]) -> Float64s:
    """Return a ranking's parameters as the kernel takes them."""
    parameter = np.zeros(PARAMETER_COUNT)
    for place, value in values.items():
        parameter[place] = value
    return parameter


def make_index(
    sessions: Sessions,
    now_ms: int,
    parameter: Float64s | None = None,
    knots: tuple[Float64s, Float64s] | None = None,
    clicks: Mapping[str, tuple[int, int]] | None = None,
) -> Learnt:
    """Return the index of the sessions a ranking reads."""
    item_count, event_count = len(sessions.product_ids), len(sessions.item)
    item = sessions.item.astype(np.int32)
    by_item = np.argsort(item[::-1], kind="stable")
    item_event = (event_count - 1 - by_item).astype(np.int32)  # of each item, the youngest first
    counts = np.bincount(item, minlength=item_count)
    item_first = np.zeros(item_count + 1, np.int64)
    item_first[1:] = np.cumsum(counts)
    rarity = np.log(len(sessions) / (counts + 1.0) + 1.0).astype(np.float32)
    popular = np.argsort(-counts, kind="stable")[:POPULAR_COUNT]
    known_clicks = [(clicks or {}).get(product_id, (0, 0)) for product_id in sessions.product_ids]
    at, rate = PRIOR_KNOTS if knots is None else knots
    return Learnt(
        event_item=item,
        session_first=sessions.first.astype(np.int64),
        item_first=item_first,
        item_event=item_event,
        event_session=np.repeat(np.arange(len(sessions), dtype=np.int32), np.diff(sessions.first)),
        rarity=rarity,
        popular_item=popular.astype(np.int32),
        popular_share=(counts[popular] / max(event_count, 1)).astype(np.float32),
        parameter=parameters(START) if parameter is None else parameter,
        knot_score=at,
        knot_rate=rate,
        clicks=np.array([float(one) for one, _ in known_clicks]),
        seen=np.array([float(one) for _, one in known_clicks]),
        product_id=sessions.product_ids,
        trained_at_ms=now_ms,
    )


def split_cases(sessions: Sessions, cut: int, count_max: int, tuning_share: float = 0.5) -> tuple[Cases, Cases]:
    """Return cases of the sessions from `cut` on, in two parts: to tune by, and to check by.

    Each is a beginning of a session and the item that came next; with the history of the visitor's sessions before,
    where there is one, the first item is to be foreseen too.
    """
    rng = np.random.default_rng(0)
    earlier: dict[int, list[int]] = {}
    for session in range(len(sessions)):
        earlier.setdefault(int(sessions.visitor[session]), []).append(session)
    pairs = []
    for session in range(cut, len(sessions)):
        length = int(sessions.first[session + 1] - sessions.first[session])
        has_history = earlier[int(sessions.visitor[session])][0] < session
        pairs += [(session, place) for place in range(0 if has_history else 1, length)]
    if len(pairs) > 2 * count_max:
        chosen = rng.choice(len(pairs), 2 * count_max, replace=False)
        pairs = [pairs[one] for one in np.sort(chosen)]
    is_tuning = rng.random(len(pairs)) < tuning_share
    return (
        _cases(sessions, earlier, [pair for pair, tunes in zip(pairs, is_tuning, strict=True) if tunes]),
        _cases(sessions, earlier, [pair for pair, tunes in zip(pairs, is_tuning, strict=True) if not tunes]),
    )


def tune(index: Learnt, cases: Cases, parameter: Float64s, progress: Progress) -> Float64s:
    """Return the parameters that foresee best: Recall@20 plus MRR@20.

    Every choice is tried on half of the cases; then those beside the best, on all of them.
    """
    some = cases.take(np.arange(0, len(cases), 2))
    trials = [(some, place, values) for place, values in CHOICES.items()]
    best = _climb(index, trials, parameter, progress)
    beside = []
    for place, values in CHOICES.items():
        at = min(range(len(values)), key=lambda one: abs(values[one] - best[place]))
        beside.append((cases, place, values[max(at - 1, 0) : at + 2]))
    return _climb(index, beside, best, progress)


def _climb(
    index: Learnt, trials: list[tuple[Cases, int, tuple[float, ...]]], parameter: Float64s, progress: Progress
) -> Float64s:
    """Return the parameters after trying one choice after another, each kept if it is better."""
    best = parameter.copy()
    best_value = _value(index, trials[0][0], best)
    for done, (cases, place, values) in enumerate(trials):
        for value in values:
            if best[place] == value:
                continue
            trial = best.copy()
            trial[place] = value
            trial_value = _value(index, cases, trial)
            if trial_value > best_value + LEAST_GAIN * len(cases):
                best, best_value = trial, trial_value
        progress(done + 1, len(trials))
    return best


def calibrate(index: Learnt, cases: Cases, parameter: Float64s) -> tuple[Float64s, Float64s]:
    """Return the monotone knots from a score's share to P(it is the next item), over the products ranked."""
    _, top_share, is_hit = _ranked(index, cases, parameter)
    return fit_monotone(top_share, is_hit)


def measure(index: Learnt, cases: Cases, parameter: Float64s, knots: tuple[Float64s, Float64s]) -> dict[str, float]:
    """Return Recall@20, MRR@20, NDCG@20, coverage, and how far the calibrated probabilities are off."""
    place, top_item, _ = rank_cases(index, cases, parameter, TOP_COUNT)
    found = place >= 0
    _, share, is_hit = _ranked(index, cases, parameter)
    rate = apply_monotone(knots, share)
    count = max(len(cases), 1)
    return {
        "case_count": len(cases),
        "recall_at_20": float(found.sum() / count),
        "mrr_at_20": float((1.0 / (place[found] + 1)).sum() / count),
        "ndcg_at_20": float((1.0 / np.log2(place[found] + 2)).sum() / count),
        "coverage_at_20": float(len(np.unique(top_item[top_item >= 0])) / max(len(index.product_id), 1)),
        "calibration_error": expected_calibration_error(rate, is_hit),
        "calibration_ratio": float(is_hit.sum() / rate.sum()) if rate.sum() > 0 else 0.0,
    }


def rank_cases(
    index: Learnt, cases: Cases, parameter: Float64s, top_count: int
) -> tuple[Int64s, Int32s, NDArray[np.float32]]:
    """Return of each case the place of its true next item (-1: not ranked), and what was ranked, with shares."""
    top_item = np.zeros((len(cases), top_count), np.int32)
    top_share = np.zeros((len(cases), top_count), np.float32)
    place = np.full(len(cases), -1, np.int64)
    session_weight, item_weight = weigh(index, parameter)
    rank_sessions_nb(
        cases.query,
        cases.query_first,
        cases.history_item,
        cases.history_weight,
        cases.history_first,
        cases.target,
        index.event_item,
        index.session_first,
        session_weight,
        index.item_first,
        index.item_event,
        index.event_session,
        index.rarity,
        item_weight,
        index.popular_item,
        index.popular_share,
        parameter,
        top_item,
        top_share,
        place,
    )
    return place, top_item, top_share


def _ranked(index: Learnt, cases: Cases, parameter: Float64s) -> tuple[Int32s, Float64s, Float64s]:
    _, top_item, top_share = rank_cases(index, cases, parameter, CALIBRATION_TOP_COUNT)
    is_there = top_item >= 0
    is_hit = top_item == cases.target[:, None]
    return top_item[is_there], top_share[is_there].astype(np.float64), is_hit[is_there].astype(np.float64)


def _value(index: Learnt, cases: Cases, parameter: Float64s) -> float:
    place, _, _ = rank_cases(index, cases, parameter, TOP_COUNT)
    found = place[place >= 0]
    return float(len(found) + (1.0 / (found + 1)).sum())


def _cases(sessions: Sessions, earlier: Mapping[int, list[int]], pairs: list[tuple[int, int]]) -> Cases:
    query: list[NDArray[np.int32]] = []
    history: list[dict[int, float]] = []
    target = []
    for session, place in pairs:
        first = int(sessions.first[session])
        seen = sessions.item[first : first + place]
        target.append(int(sessions.item[first + place]))
        before = [one for one in earlier[int(sessions.visitor[session])] if one < session]
        if not len(seen) and before:  # a new session: what is known is the one before
            last = before[-1]
            seen = sessions.item[sessions.first[last] : sessions.first[last + 1]]
        query.append(seen[::-1][:QUERY_LENGTH_MAX])
        history.append(_history(sessions, before, session, place))
    return Cases(
        np.concatenate([*query, np.zeros(0, np.int32)]).astype(np.int32),
        _firsts([len(one) for one in query]),
        np.array([item for one in history for item in one], np.int32),
        np.array([weight for one in history for weight in one.values()], np.float32),
        _firsts([len(one) for one in history]),
        np.array(target, np.int32),
    )


def _history(sessions: Sessions, before: list[int], session: int, place: int) -> dict[int, float]:
    weights: dict[int, float] = {}
    now_ms = int(sessions.ended_at_ms[session])
    for one in [*before[-30:], session]:
        first, end = int(sessions.first[one]), int(sessions.first[one + 1])
        if one == session:
            end = first + place
        age = (now_ms - int(sessions.ended_at_ms[one])) / HISTORY_HALF_LIFE_MS
        for item, weight in zip(sessions.item[first:end].tolist(), sessions.weight[first:end].tolist(), strict=True):
            weights[item] = weights.get(item, 0.0) + weight * 2.0**-age
    return weights


def _take(first: Int64s, rows: Int64s) -> tuple[Int64s, Int64s]:
    """Return the places of the rows' entries, and where each row's begin among them."""
    lengths = np.diff(first)[rows]
    begin = _firsts(lengths.tolist())
    return np.repeat(first[rows] - begin[:-1], lengths) + np.arange(begin[-1]), begin


def _firsts(lengths: list[int]) -> Int64s:
    first = np.zeros(len(lengths) + 1, np.int64)
    first[1:] = np.cumsum(lengths)
    return first

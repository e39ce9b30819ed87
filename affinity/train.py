"""Learns an affinity model from sessions: the index it ranks by, its parameters by validation, its calibration.

Sessions are split by time. Nothing is set per shop: the parameters that do best on the last sessions are kept, the
combiner is fitted to them, then the index is made of all of them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.back_off import NO_BACK_OFF, BackOff, Kin, count_kin, fit_back_off
from affinity.calibration import KNOT_COUNT_MAX, apply_monotone, expected_calibration_error, fit_monotone
from affinity.cases import Cases, gather_cases
from affinity.catalog import Product
from affinity.combiner import fit_combiner
from affinity.errors import TrainingRefused
from affinity.kernel import (
    AGE_DECAY,
    BACKWARD,
    DISTANCE_DECAY,
    FACT_COUNT,
    FEATURE_COUNT,
    HISTORY,
    KINSHIP_COUNT,
    LENGTH_POWER,
    NEIGHBOUR_COUNT,
    PARAMETER_COUNT,
    POPULARITY,
    QUERY_DECAY,
    RARITY_POWER,
    REPEAT,
    RETURN_RATE,
    SESSIONS_PER_ITEM,
    SHARE,
    SHARE_LATELY,
    SHARE_NOW,
    TRANSITION,
    Kinds,
    find_candidates_of_many_nb,
    make_room,
)
from affinity.kinds import kinds_of, read_attributes
from affinity.model import CANDIDATE_COUNT, POPULAR_COUNT, SITUATION_COUNT, AffinityModel, Learnt
from affinity.segment_taste import NO_TASTE, SegmentTaste
from affinity.sessions import Sessions

Bools = NDArray[np.bool_]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Progress = Callable[[int, int | None], None]

SESSION_COUNT_MAX = 500_000
HELD_OUT_SHARE = 0.05
HELD_OUT_COUNT = 50  # at least so many sessions, if that is at most a fifth of all
HELD_OUT_COUNT_MIN = 20  # with fewer nothing is tuned
CASE_COUNT_MIN = 20  # of a situation; with fewer it is taken to be like the other
TUNED_COUNT_MIN = 150  # cases; with fewer, parameters chosen by them would be chance
TUNING_COUNT_MAX = 1_200  # cases that parameters are chosen by
FITTING_COUNT_MAX = 4_000  # cases that the combiner is fitted to, those included
CHECKING_COUNT_MAX = 2_500  # cases that are kept for the metrics alone, of each situation
EVALUATION_COUNT_MAX = 15_000  # cases of each situation that `evaluate` measures on
QUICK_SHARE = 0.25  # of the cases, where the parameters are given
FITTING_SHARE = 2 / 3
LEAST_GAIN = 0.0005  # of the cases: a choice is not changed for what may be chance
TOP_COUNT = 20
LATELY_SHARE, NOW_SHARE = 0.1, 0.02  # of all events, the last
RETURN_STRENGTH = 5.0  # visitors the shop's own rate of coming back to a product weighs as much as

START: Mapping[int, float] = {
    SESSIONS_PER_ITEM: 500,
    NEIGHBOUR_COUNT: 200,
    QUERY_DECAY: 2.5,
    DISTANCE_DECAY: 4.0,
    BACKWARD: 0.5,
    REPEAT: 0.25,
    LENGTH_POWER: 0.0,
    AGE_DECAY: 1.0,
    RARITY_POWER: 0.2,
    TRANSITION: 0.3,
    HISTORY: 0.3,
    POPULARITY: 0.01,
}
# What a model is compared with, by the same blend.
SIMPLER: Mapping[str, Mapping[int, float]] = {
    "sessions alike": {**START, HISTORY: 0.0, TRANSITION: 0.0, POPULARITY: 1e-9},
    "own history, then best-sellers": {**START, NEIGHBOUR_COUNT: 0, TRANSITION: 0.0, HISTORY: 1.0, POPULARITY: 1e-9},
    "best-sellers": {**START, NEIGHBOUR_COUNT: 0, TRANSITION: 0.0, HISTORY: 0.0, POPULARITY: 1.0},
}
# Tried one after another, each with the best so far of the others.
CHOICES: Mapping[int, tuple[float, ...]] = {
    HISTORY: (0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    REPEAT: (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    BACKWARD: (0.25, 0.5, 1.0),
    QUERY_DECAY: (0.7, 1.0, 1.5, 2.5, 4.0),
    TRANSITION: (0.0, 0.15, 0.3, 0.6, 1.0, 2.0, 4.0),
    DISTANCE_DECAY: (0.7, 1.0, 2.0, 4.0, 10.0),
    RARITY_POWER: (0.0, 0.2, 0.4, 0.7),
    LENGTH_POWER: (0.0, 0.3, 0.6),
    NEIGHBOUR_COUNT: (100, 200, 300, 500),
    AGE_DECAY: (0.3, 1.0, 3.0, 10.0),
    POPULARITY: (0.0, 0.01, 0.1),
}
PLAIN_COMBINER = np.eye(1, FEATURE_COUNT)[0]  # the first feature, the blend's logarithm, as it is
PRIOR_KNOTS = np.array([[0.0, 1.0], [0.0, 0.5]])  # until calibrated, a share is half believed


class Found(Struct, frozen=True, eq=False):
    """Candidates of cases, see `kernel.find_candidates_of_many_nb`; is_there and is_target are (C, T)."""

    candidate: Int32s
    feature: Float32s
    is_target: Bools
    target_count: Int64s

    @property
    def is_there(self) -> Bools:
        """Say which places hold a candidate."""
        return np.asarray(self.candidate >= 0)


class Fitted(Struct, frozen=True, eq=False):
    """What is learnt of one situation: see `Learnt`."""

    parameter: Float64s
    combiner: Float64s
    knot: Float64s
    back_off: BackOff = NO_BACK_OFF


def train_model(
    sessions: Sessions,
    now_ms: int,
    progress: Progress = lambda done, total: None,
    clicks: Mapping[str, tuple[int, int]] | None = None,
    tuned: Mapping[int, float] | None = None,
    products: Sequence[Product] = (),
    taste: SegmentTaste = NO_TASTE,
) -> AffinityModel:
    """Return a model of all the sessions, its metrics from the last ones before it knew them.

    Args:
        sessions: in the order of time.
        now_ms: stamped on the model.
        progress: called with how many parameters were tried, and of how many.
        clicks: product id to (clicks, times seen), where click logs exist.
        tuned: parameters found before, to be used as they are: that takes a tenth of the time.
        products: the catalogue, by whose categories and brands products without history are ranked.
        taste: what segments tell of visitors without history.

    Raises:
        TrainingRefused: there is no session to learn from.
    """
    if not len(sessions):
        raise TrainingRefused("there is no navigation with products to learn from: import some first")
    held_out = max(int(len(sessions) * HELD_OUT_SHARE), min(HELD_OUT_COUNT, len(sessions) // 5))
    fitted: list[Fitted] = []
    metrics: dict[str, float] = {}
    if held_out >= HELD_OUT_COUNT_MIN:
        cut = len(sessions) - held_out
        index = make_index(sessions.between(0, cut), now_ms)
        kinds = _kinds(index, products) if products else None
        fitted, metrics = _learn(index, sessions, cut, progress, tuned, kinds)
    unlearnt = [plain(START if tuned is None else tuned)] * SITUATION_COUNT
    learnt = make_index(sessions, now_ms, fitted or unlearnt, clicks, taste)
    metrics["segment_count"] = len(taste.segment_id)
    metrics["segment_gain"] = taste.gain
    metrics["session_count"] = len(sessions)
    metrics["event_count"] = len(sessions.item)
    metrics["product_count"] = len(sessions.product_ids)
    return AffinityModel(learnt, metrics)


def _learn(
    index: Learnt,
    sessions: Sessions,
    cut: int,
    progress: Progress,
    tuned: Mapping[int, float] | None,
    kinds: Kinds | None,
) -> tuple[list[Fitted], dict[str, float]]:
    """Return what is learnt of each situation from the sessions from `cut` on, and the metrics on some kept apart."""
    share = 1.0 if tuned is None else QUICK_SHARE
    of_both = gather_cases(sessions, cut, int(share * (FITTING_COUNT_MAX + CHECKING_COUNT_MAX)))
    counts = [int(len(cases) * FITTING_SHARE) for cases in of_both]
    fitted: dict[int, Fitted] = {}
    like = plain(START if tuned is None else tuned)
    for situation in sorted(range(SITUATION_COUNT), key=lambda one: -counts[one]):
        if counts[situation] >= CASE_COUNT_MIN:
            searches = tuned is None and counts[situation] >= TUNED_COUNT_MIN
            cases = of_both[situation].first(counts[situation])
            like = _fit(index, cases, like, progress, kinds, searches=searches)
        fitted[situation] = like
    complete = [fitted[situation] for situation in range(SITUATION_COUNT)]
    kept = [cases.after(count) for cases, count in zip(of_both, counts, strict=True)]
    metrics = measure(index, kept, complete)
    if kinds is not None:
        metrics |= measure_back_off(index, kept, complete, kinds)
    return complete, metrics


def _fit(
    index: Learnt, cases: Cases, like: Fitted, progress: Progress, kinds: Kinds | None, *, searches: bool
) -> Fitted:
    """Return what is learnt of a situation, beginning from one that is like it."""
    parameter = like.parameter
    if searches:
        parameter = tune(index, cases.first(TUNING_COUNT_MAX), parameter, progress)
    found = find_candidates(index, cases, parameter, CANDIDATE_COUNT, describes=True)
    combiner = fit_combiner(found.feature, found.is_there, found.is_target, like.combiner)
    share, is_target, candidate = shares(found, combiner)
    is_there = candidate >= 0
    knots = fit_monotone(share[is_there], is_target[is_there].astype(np.float64))
    if kinds is None:
        return Fitted(parameter, combiner, _padded(np.array(knots)))
    kin, candidates_rate = _kin(cases, candidate, share, knots, kinds)
    back_off = fit_back_off(kin, candidates_rate)
    return Fitted(parameter, combiner, _padded(np.array(knots)), back_off)


def _kinds(index: Learnt, products: Sequence[Product]) -> Kinds:
    """Return the products of the index by what they are, and after them those of the catalogue it does not know."""
    by_id = {product.product_id: product for product in products}
    known = set(index.product_id)
    every = [by_id.get(one) for one in index.product_id]
    every += [product for product in products if product.product_id not in known]
    views = np.zeros(len(every))
    views[: len(index.product_id)] = np.diff(index.item_first)
    return kinds_of(read_attributes(every), views)


def _kin(
    cases: Cases, candidate: Int32s, share: Float64s, knots: tuple[Float64s, Float64s], kinds: Kinds
) -> tuple[Kin, Float64s]:
    """Return how other products stand to the visitors of cases, and (C,) the sum of their candidates' probabilities."""
    trail = cases.trail
    kin = count_kin(trail.item, trail.back, cases.trail_first, cases.target, cases.target_first, kinds, candidate)
    rate = np.where(share > 0, apply_monotone(knots, share), 0.0)
    return kin, rate.sum(axis=1)


def measure_back_off(
    index: Learnt, of_both: Sequence[Cases], fitted: Sequence[Fitted], kinds: Kinds
) -> dict[str, float]:
    """Return how likely what came next was among the products that were no candidates, with the back-off and without.

    As log-losses a product, short of a constant: of all, and of those with fewer than five events (`scarce`) among one
    another. With it how many of those came next for one predicted.
    """
    figures = {"back_off_strength": max(one.back_off.strength for one in fitted)}
    loss = {name: np.zeros(2) for name in ("other", "scarce")}
    count = dict.fromkeys(loss, 0.0)
    predicted = 0.0
    for cases, one in zip(of_both, fitted, strict=True):
        found = find_candidates(index, cases, one.parameter, CANDIDATE_COUNT, describes=True)
        share, _, candidate = shares(found, one.combiner)
        every, rate = _kin(cases, candidate, share, (one.knot[0], one.knot[1]), kinds)
        back_off, alone = one.back_off, np.ones(KINSHIP_COUNT)
        weight = back_off.weight if back_off.strength else alone
        scarce = every.of_scarce()
        for name, kin in (("other", every), ("scarce", scarce)):
            count[name] += float(kin.hit.sum())
            loss[name] -= [kin.log_likelihood(used).sum() for used in (weight, alone)]
        share_of_scarce = (scarce.usual @ weight) / np.maximum(every.usual @ weight, 1e-12)
        predicted += float(share_of_scarce @ np.interp(-rate, *back_off.mass))
    for name, both in loss.items():
        used, unused = both / max(count[name], 1.0)
        figures[f"{name}_product_case_count"] = count[name]
        figures[f"{name}_product_log_loss"] = float(used)
        figures[f"{name}_product_log_loss_without"] = float(unused)
    figures["scarce_product_calibration_ratio"] = count["scarce"] / predicted if predicted > 0 else 0.0
    return figures


class Evaluation(Struct, frozen=True):
    """How well rankings foresee sessions later than what they know.

    Attributes:
        top_count: k of the figures `…_at_k`.
        trained_session_count: earlier sessions, that they know.
        held_out_session_count: later sessions, that they are measured on.
        figures: of each ranking by name, see `measure`; the model's first.
    """

    top_count: int
    trained_session_count: int
    held_out_session_count: int
    figures: dict[str, dict[str, float]]


def evaluate_model(
    sessions: Sessions,
    now_ms: int,
    progress: Progress = lambda done, total: None,
    top_count: int = TOP_COUNT,
    held_out_share: float = 0.1,
) -> Evaluation:
    """Return how well a model of the earlier sessions foresees the later ones, beside simpler rankings.

    Raises:
        TrainingRefused: there are too few sessions to set some apart.
    """
    held_out = int(len(sessions) * held_out_share)
    if held_out < 1 or len(sessions) - held_out < 1:
        raise TrainingRefused(f"evaluating needs at least {round(1 / held_out_share)} sessions, had {len(sessions)}")
    cut = len(sessions) - held_out
    learnt = train_model(sessions.between(0, cut), now_ms, progress).learnt
    cases = gather_cases(sessions, cut, EVALUATION_COUNT_MAX)
    fitted = [Fitted(*one) for one in zip(learnt.parameter, learnt.combiner, learnt.knot, strict=True)]
    figures = {"this model": measure(learnt, cases, fitted, top_count)}
    for name, values in SIMPLER.items():
        figures[name] = measure(learnt, cases, [plain(values)] * SITUATION_COUNT, top_count)
    return Evaluation(top_count, cut, held_out, figures)


def parameters(values: Mapping[int, float]) -> Float64s:
    """Return a ranking's parameters as the kernel takes them."""
    parameter = np.zeros(PARAMETER_COUNT)
    for place, value in values.items():
        parameter[place] = value
    return parameter


def plain(values: Mapping[int, float]) -> Fitted:
    """Return what holds of a situation nothing could be learnt of."""
    return Fitted(parameters(values), PLAIN_COMBINER, _padded(PRIOR_KNOTS))


def make_index(
    sessions: Sessions,
    now_ms: int,
    fitted: Sequence[Fitted] = (),
    clicks: Mapping[str, tuple[int, int]] | None = None,
    taste: SegmentTaste = NO_TASTE,
) -> Learnt:
    """Return the index of the sessions a ranking reads, with what was fitted of each situation."""
    fitted = fitted or [plain(START)] * SITUATION_COUNT
    item_count, event_count = len(sessions.product_ids), len(sessions.item)
    item = sessions.item.astype(np.int32)
    by_item = np.argsort(item[::-1], kind="stable")
    item_event = (event_count - 1 - by_item).astype(np.int32)  # of each item, the youngest first
    counts = np.bincount(item, minlength=item_count)
    item_first = np.zeros(item_count + 1, np.int64)
    item_first[1:] = np.cumsum(counts)
    rarity = np.log(len(sessions) / (counts + 1.0) + 1.0).astype(np.float32)
    fact = item_facts(sessions)
    popular = np.argsort(-(fact[:, SHARE] + fact[:, SHARE_LATELY]), kind="stable")[:POPULAR_COUNT]
    known_clicks = [(clicks or {}).get(product_id, (0, 0)) for product_id in sessions.product_ids]
    return Learnt(
        event_item=item,
        session_first=sessions.first.astype(np.int64),
        item_first=item_first,
        item_event=item_event,
        item_session=np.repeat(np.arange(len(sessions), dtype=np.int32), np.diff(sessions.first))[item_event],
        rarity=rarity,
        item_fact=fact,
        popular_item=popular.astype(np.int32),
        parameter=np.array([one.parameter for one in fitted]),
        combiner=np.array([one.combiner for one in fitted]),
        knot=np.array([one.knot for one in fitted]),
        kin_weight=np.array([one.back_off.weight for one in fitted]),
        kin_mass=np.array([_padded(one.back_off.mass) for one in fitted]),
        clicks=np.array([float(one) for one, _ in known_clicks]),
        seen=np.array([float(one) for _, one in known_clicks]),
        product_id=sessions.product_ids,
        trained_at_ms=now_ms,
        taste=taste,
    )


def item_facts(sessions: Sessions) -> Float32s:
    """Return what is known of each item whoever the visitor is: see `kernel.Index.item_fact`."""
    item_count, event_count = len(sessions.product_ids), len(sessions.item)
    fact = np.zeros((item_count, FACT_COUNT), np.float32)
    for column, share in ((SHARE, 1.0), (SHARE_LATELY, LATELY_SHARE), (SHARE_NOW, NOW_SHARE)):
        latest = sessions.item[event_count - int(np.ceil(event_count * share)) :]
        fact[:, column] = np.bincount(latest, minlength=item_count) / max(len(latest), 1)
    session = np.repeat(np.arange(len(sessions)), np.diff(sessions.first))
    in_session = np.unique(session * item_count + sessions.item)
    visitor = np.unique(sessions.visitor, return_inverse=True)[1][in_session // max(item_count, 1)]
    pair, times = np.unique(visitor * item_count + in_session % max(item_count, 1), return_counts=True)
    had = np.bincount(pair % max(item_count, 1), minlength=item_count)
    came_back = np.bincount(pair[times > 1] % max(item_count, 1), minlength=item_count)
    usual = came_back.sum() / max(had.sum(), 1)
    fact[:, RETURN_RATE] = (came_back + RETURN_STRENGTH * usual) / (had + RETURN_STRENGTH)
    return fact


def tune(index: Learnt, cases: Cases, parameter: Float64s, progress: Progress) -> Float64s:
    """Return the parameters whose blend foresees best: Recall@20 plus MRR@20.

    One choice after another is tried, and kept if it is better.
    """
    best, best_value = parameter, _value(index, cases, parameter)
    for done, (place, values) in enumerate(CHOICES.items()):
        for value in values:
            if best[place] == value:
                continue
            trial = best.copy()
            trial[place] = value
            trial_value = _value(index, cases, trial)
            if trial_value > best_value + LEAST_GAIN * len(cases):
                best, best_value = trial, trial_value
        progress(done + 1, len(CHOICES))
    return best


def _value(index: Learnt, cases: Cases, parameter: Float64s) -> float:
    found = find_candidates(index, cases, parameter, TOP_COUNT, describes=False)
    recall, reciprocal_rank, _ = foresight(found.is_target, found.target_count)
    return float(recall.sum() + reciprocal_rank.sum())


def measure(
    index: Learnt, of_both: Sequence[Cases], fitted: Sequence[Fitted], top_count: int = TOP_COUNT
) -> dict[str, float]:
    """Return Recall@k, MRR@k, NDCG@k, coverage, and how far the calibrated probabilities are off.

    Of a case with several targets, recall is the share of them found, and MRR is by the first.
    """
    figures: list[Float64s] = []
    tops: list[Int32s] = []
    rates: list[Float64s] = []
    hits: list[Float64s] = []
    for cases, one in zip(of_both, fitted, strict=True):
        found = find_candidates(index, cases, one.parameter, CANDIDATE_COUNT, describes=True)
        share, is_target, candidate = shares(found, one.combiner)
        figures.append(np.array(foresight(is_target[:, :top_count], found.target_count)))
        tops.append(candidate[:, :top_count].ravel())
        is_there = candidate >= 0
        rates.append(apply_monotone((one.knot[0], one.knot[1]), share[is_there]))
        hits.append(is_target[is_there].astype(np.float64))
    recall, reciprocal_rank, gain = np.concatenate(figures, axis=1)
    top, rate, hit = np.unique(np.concatenate(tops)), np.concatenate(rates), np.concatenate(hits)
    return {
        "case_count": len(recall),
        "between_sessions_case_count": len(of_both[1]),
        f"recall_at_{top_count}": _mean(recall),
        f"mrr_at_{top_count}": _mean(reciprocal_rank),
        f"ndcg_at_{top_count}": _mean(gain),
        f"coverage_at_{top_count}": int((top >= 0).sum()) / max(len(index.product_id), 1),
        "calibration_error": expected_calibration_error(rate, hit),
        "calibration_ratio": float(hit.sum() / rate.sum()) if rate.sum() > 0 else 0.0,
        "standard_error": float(np.std(recall + reciprocal_rank) / np.sqrt(len(recall))) if len(recall) else 0.0,
    }


def foresight(is_target: Bools, target_count: Int64s) -> tuple[Float64s, Float64s, Float64s]:
    """Return recall, reciprocal rank and normalised discounted gain (C,) of rankings (C, T)."""
    place = np.arange(is_target.shape[1])
    recall = is_target.sum(axis=1) / np.maximum(target_count, 1)
    found = is_target.any(axis=1)
    reciprocal_rank = np.where(found, 1.0 / (np.argmax(is_target, axis=1) + 1.0), 0.0)
    discount = 1.0 / np.log2(place + 2.0)
    best = np.append(0.0, np.cumsum(discount))[np.clip(target_count, 1, len(place))]
    return recall, reciprocal_rank, (is_target @ discount) / best


def find_candidates(index: Learnt, cases: Cases, parameter: Float64s, count: int, *, describes: bool) -> Found:
    """Return the candidates of cases, the best blend first; with their features if wanted."""
    read = index.index(parameter)
    shape = (len(cases), count)
    found = Found(
        np.zeros(shape, np.int32),
        np.zeros((*shape, FEATURE_COUNT) if describes else (0, 0, 0), np.float32),
        np.zeros(shape, np.bool_),
        np.diff(cases.target_first),
    )
    find_candidates_of_many_nb(
        cases.trail,
        cases.trail_first,
        cases.target,
        cases.target_first,
        read,
        parameter,
        make_room(read),
        found.candidate,
        found.feature,
        found.is_target.view(np.uint8),
        int(describes),
    )
    return found


def shares(found: Found, combiner: Float64s) -> tuple[Float64s, Bools, Int32s]:
    """Return (C, T) of candidates, ordered by the combiner: probabilities among them, whether they came next, items."""
    logit = (found.feature @ combiner.astype(np.float32)).astype(np.float64)
    logit[~found.is_there] = -np.inf
    order = np.argsort(-logit, axis=1, kind="stable")
    logit = np.take_along_axis(logit, order, 1)
    odds = np.exp(logit - logit[:, :1]) if logit.shape[1] else logit
    return (
        odds / odds.sum(axis=1, keepdims=True),
        np.take_along_axis(found.is_target, order, 1),
        np.take_along_axis(found.candidate, order, 1),
    )


def _mean(values: Float64s) -> float:
    return float(values.mean()) if len(values) else 0.0


def _padded(knots: Float64s) -> Float64s:
    """Return knots (2, KNOT_COUNT_MAX): the last one repeated changes nothing."""
    return np.pad(knots, ((0, 0), (0, KNOT_COUNT_MAX - knots.shape[1])), mode="edge")

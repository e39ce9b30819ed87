"""How likely a visitor is to click each product: learnt from sessions, bound to the products of a snapshot.

`AffinityModel` holds what was learnt, by the ids of products; no visitor is in it. `bind` gives a `BoundModel`, which
speaks in rows of one snapshot and is what an auction reads: a base quality for every product, and on top the few
products a visitor's own history makes more likely.
"""

import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import hypot
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.calibration import apply_monotone, back_off
from affinity.errors import ModelRefused
from affinity.kernel import (
    AGE_DECAY,
    CONTEXT_EVENT_COUNT_MAX,
    FACT_COUNT,
    FEATURE_COUNT,
    KINSHIP_COUNT,
    LENGTH_POWER,
    PARAMETER_COUNT,
    RARITY_POWER,
    SESSION_LENGTH_MAX,
    Index,
    Kinds,
    make_room,
    rank_visitor_nb,
    share_among_kin_nb,
)
from affinity.kinds import ProductAttributes, kinds_of, popularity_lift
from affinity.matching import Happening
from affinity.segment_taste import NO_TASTE, SegmentTaste, TasteRanker
from affinity.sessions import is_between_sessions, read_contexts, read_trail
from affinity.targets import frozen
from affinity.view import NO_AFFINITY, NO_PPMS, NO_ROWS, Ppms, Rows

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

FORMAT = 3
IN_SESSION, BETWEEN_SESSIONS = 0, 1  # a visitor in the middle of a session; one who begins anew
SITUATION_COUNT = 2
PPM = 1_000_000
PRIOR_CLICK_RATE = 0.01  # of a product that is seen and of which nothing is known: see the README
DIVERTED_SHARE = 0.5  # of visitors about to open a product, how many click it where they see it: see the README
CANDIDATE_COUNT = 120  # products ranked for one visitor, which get a quality of their own
KIN_COUNT_MAX = 120  # and others of a visitor's categories that get one
QUALITY_MAX = 0.25
POPULAR_COUNT = 100
SUFFIX = ".npz"
ACTIVE = "active"  # file that names the model in use


class Ranked(Struct, frozen=True, eq=False):
    """A visitor's own qualities.

    Attributes:
        product_row: (V,) ascending.
        quality_ppm: (V,) predicted clicks per million showings.
        affinity: (V,) 0 to 1, 1 for the strongest.
    """

    product_row: Rows
    quality_ppm: Ppms
    affinity: Float32s


NO_RATES = np.zeros(0)
NOTHING_RANKED = Ranked(NO_ROWS, NO_PPMS, NO_AFFINITY)


class Learnt(Struct, frozen=True, eq=False, kw_only=True):
    """The arrays of a model; see `kernel.Index` for most of them.

    Attributes:
        parameter: (SITUATION_COUNT, PARAMETER_COUNT) of finding candidates, by the visitor's situation.
        combiner: (SITUATION_COUNT, FEATURE_COUNT) weights of a candidate's features in its logit.
        knot: (SITUATION_COUNT, 2, knots) calibration of a share to P(the product comes next): shares, then rates.
        kin_weight: (SITUATION_COUNT, KINSHIP_COUNT) of products that are no candidates, see `back_off.BackOff`; zeros
            where that is not used.
        kin_mass: (SITUATION_COUNT, 2, knots) see there.
        clicks, seen: (I,) clicks and showings in the click logs it learnt from; zeros where there were none.
        product_id: (I,) of each item.
        taste: what segments tell of visitors who did nothing yet.
        trained_at_ms: when.
    """

    event_item: Int32s
    session_first: Int64s
    item_first: Int64s
    item_event: Int32s
    item_session: Int32s
    rarity: Float32s
    item_fact: Float32s
    popular_item: Int32s
    parameter: Float64s
    combiner: Float64s
    knot: Float64s
    kin_weight: Float64s
    kin_mass: Float64s
    clicks: Float64s
    seen: Float64s
    product_id: list[str]
    trained_at_ms: int
    taste: SegmentTaste = NO_TASTE

    def index(self, parameter: Float64s) -> Index:
        """Return the sessions as a ranking with these parameters (PARAMETER_COUNT,) reads them."""
        session_count = len(self.session_first) - 1
        age = (session_count - np.arange(session_count)) / max(session_count, 1)
        length = np.maximum(np.diff(self.session_first), 1)
        weight = np.exp(-age / parameter[AGE_DECAY]) / length ** parameter[LENGTH_POWER]
        return Index(
            self.event_item,
            self.session_first,
            weight.astype(np.float32),
            self.item_first,
            self.item_event,
            self.item_session,
            self.rarity,
            (self.rarity ** parameter[RARITY_POWER]).astype(np.float32),
            self.item_fact,
            self.popular_item,
        )


class AffinityModel:
    """What was learnt of which product goes with which.

    Attributes:
        learnt: its arrays.
        metrics: how well it did on sessions it had not seen.
        product_ids: of each item.
    """

    def __init__(self, learnt: Learnt, metrics: Mapping[str, float]) -> None:
        self.learnt = learnt
        self.metrics = dict(metrics)
        self.product_ids = learnt.product_id
        self.item_of = {product_id: item for item, product_id in enumerate(learnt.product_id)}

    @property
    def name(self) -> str:
        """Return what its file is called, without the ending."""
        return f"affinity-{self.learnt.trained_at_ms:013d}"

    def bind(self, product_ids: Sequence[str], attributes: ProductAttributes | None = None) -> "BoundModel":
        """Return the model in rows of a snapshot.

        Args:
            product_ids: of each row.
            attributes: of each row; None where not known.
        """
        learnt = self.learnt
        item = np.array([self.item_of.get(one, -1) for one in product_ids], np.int32)
        is_known = item >= 0
        views = np.zeros(len(item))
        clicks, seen = np.zeros(len(item)), np.zeros(len(item))
        views[is_known] = np.diff(learnt.item_first)[item[is_known]]
        clicks[is_known], seen[is_known] = learnt.clicks[item[is_known]], learnt.seen[item[is_known]]
        group = np.zeros(len(item), np.int64)
        if attributes is not None:
            kind = attributes.category.astype(np.int64) << 32 | attributes.brand.astype(np.int64) & 0xFFFF_FFFF
            group = np.unique(kind, return_inverse=True)[1]
        rate = back_off(clicks, seen, group, PRIOR_CLICK_RATE)
        # Until clicks are known, what is looked at more is taken to be clicked somewhat more.
        lift = popularity_lift(views)
        weight = seen / (seen + 1_000.0)
        base = np.clip(rate * (lift * (1.0 - weight) + weight), 1e-6, QUALITY_MAX)
        base_ppm = np.rint(base * PPM).astype(np.int64)
        kin = taste = None
        if attributes is not None and (learnt.kin_weight.any() or learnt.taste.segment_id):
            kinds = kinds_of(attributes, views)
            if learnt.kin_weight.any():
                kin = KinRanker(learnt, attributes, kinds)
            if learnt.taste.segment_id:
                taste = TasteRanker(learnt.taste, attributes, base_ppm, KIN_COUNT_MAX)
        return BoundModel(product_ids, base_ppm, self, kin, taste)

    def save(self, folder: Path) -> Path:
        """Write the model into a folder, and its metrics beside it; return the model's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}{SUFFIX}"
        arrays = {name: getattr(self.learnt, name) for name in self.learnt.__struct_fields__ if name != "taste"}
        taste = self.learnt.taste
        arrays["taste_log_lift"] = taste.log_lift
        for name, texts in (
            ("product_id", self.learnt.product_id),
            ("taste_segment_id", taste.segment_id),
            ("taste_category_id", taste.category_id),
        ):
            arrays[name] = np.frombuffer(msgspec.json.encode(texts), np.uint8)
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            np.savez(file, format=np.int64(FORMAT), **arrays)
        path.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(self.metrics)) + b"\n")
        draft.replace(path)
        return path


class BoundModel:
    """A model bound to the products of one snapshot, by their rows in it.

    Attributes:
        product_ids: of each row.
        base_quality_ppm: (P,) predicted clicks per million showings to a visitor nothing is known of, 1 to 1,000,000.
        name: the model's, as receipts have it.
    """

    def __init__(
        self,
        product_ids: Sequence[str],
        base_quality_ppm: Ppms,
        model: AffinityModel | None = None,
        kin: "KinRanker | None" = None,
        taste: TasteRanker | None = None,
    ) -> None:
        self.product_ids = list(product_ids)
        self.name = "neutral" if model is None else model.name
        self.base_quality_ppm: Ppms = frozen(base_quality_ppm)
        self._row = {product_id: row for row, product_id in enumerate(self.product_ids)}
        self._model = model
        self._kin, self._taste = kin, taste
        if model is not None:
            rows = [self._row.get(product_id, -1) for product_id in model.product_ids]
            self._row_of_item = np.array(rows, np.int32)
            self._has_every_item = bool((self._row_of_item >= 0).all())
            self._ranker = Ranker(model)

    def rank_visitor(
        self, events: Sequence[Happening], now_ms: int, segments: Callable[[], Iterable[str]] = tuple
    ) -> Ranked:
        """Return the qualities of the products this history makes more likely than the base.

        Of a visitor without history, those that the segments make more or less likely.

        Args:
            events: the history.
            now_ms: the moment.
            segments: returns the visitor's; asked only where they count.
        """
        if not events:
            return NOTHING_RANKED if self._taste is None else self._rank_by_segments(self._taste, segments())
        if self._model is None:
            return NOTHING_RANKED
        item, share, rate = self._ranker.rank(events, now_ms)
        row = self._row_of_item[item]
        strongest = float(share.max()) if len(share) else 0.0
        affinity = share / strongest if strongest > 0 else share
        if self._kin is not None:
            kin_row, kin_rate = self._kin.rank(events, now_ms, self._row, row, float(rate.sum()))
            if len(kin_row):
                row, rate = np.concatenate((row, kin_row)), np.concatenate((rate, kin_rate))
                likeliest = rate.max()
                lean = (
                    (kin_rate / likeliest).astype(np.float32) if likeliest > 0 else np.zeros_like(kin_rate, np.float32)
                )
                affinity = np.concatenate((affinity, lean))
        if not len(row) or rate.max() <= 0:
            return NOTHING_RANKED
        order = np.argsort(row)
        if not self._has_every_item:
            order = order[np.searchsorted(row, 0, sorter=order) :]
        if not len(order):
            return NOTHING_RANKED
        row, rate, affinity = row[order], rate[order], affinity[order]
        base = self.base_quality_ppm[row] / PPM
        quality = np.minimum(base + (1.0 - base) * DIVERTED_SHARE * rate, np.maximum(base, QUALITY_MAX))
        return Ranked(frozen(row), frozen(np.maximum(np.rint(quality * PPM).astype(np.int64), 1)), frozen(affinity))

    def _rank_by_segments(self, taste: TasteRanker, segments: Iterable[str]) -> Ranked:
        row, factor = taste.rank(segments)
        if not len(row):
            return NOTHING_RANKED
        quality_ppm = np.clip(np.rint(self.base_quality_ppm[row] * factor), 1, QUALITY_MAX * PPM).astype(np.int64)
        return Ranked(frozen(row), frozen(quality_ppm), frozen((factor / factor.max()).astype(np.float32)))

    def rows_of(self, product_ids: Iterable[str]) -> Rows:
        """Return the rows of those products that are there, ascending."""
        rows = sorted(row for one in product_ids if (row := self._row.get(one)) is not None)
        return np.array(rows, np.int32) if rows else NO_ROWS

    def rows_in_order(self, product_ids: Iterable[str]) -> Rows:
        """Return the rows of those products that are there, in the order they are named."""
        rows = [row for one in product_ids if (row := self._row.get(one)) is not None]
        return frozen(np.array(rows, np.int32)) if rows else NO_ROWS


class Ranker:
    """Room to rank in, kept between calls; one call at a time.

    Args:
        model: what is ranked by.
    """

    def __init__(self, model: AffinityModel) -> None:
        learnt = model.learnt
        self._item_of = model.item_of
        self._learnt = learnt
        self._index = [learnt.index(parameter) for parameter in learnt.parameter]
        self._lock = threading.Lock()
        self._room = make_room(self._index[0])
        self._feature = np.zeros((CANDIDATE_COUNT, FEATURE_COUNT), np.float32)
        self._top_item = np.zeros(CANDIDATE_COUNT, np.int32)
        self._top_share = np.zeros(CANDIDATE_COUNT, np.float32)

    def rank(self, events: Sequence[Happening], now_ms: int) -> tuple[Int32s, Float32s, Float64s]:
        """Return the most likely next items of a visitor, the best first.

        With each, its probability among those, and P(it comes next), calibrated.
        """
        situation = BETWEEN_SESSIONS if is_between_sessions(events, now_ms) else IN_SESSION
        trail = read_trail(events, self._item_of)
        learnt = self._learnt
        with self._lock:
            count = rank_visitor_nb(
                trail,
                self._index[situation],
                learnt.parameter[situation],
                learnt.combiner[situation],
                self._room,
                self._feature,
                self._top_item,
                self._top_share,
            )
            item, share = self._top_item[:count].copy(), self._top_share[:count].copy()
        knot_share, knot_rate = learnt.knot[situation]
        return item, share, apply_monotone((knot_share, knot_rate), share)


class KinRanker:
    """Finds what is likely for a visitor by category and brand alone, among products with no probability of their own.

    Args:
        learnt: what is learnt of it.
        attributes: of the snapshot's products.
        kinds: those and how often each was looked at, as compiled code reads them.
    """

    def __init__(self, learnt: Learnt, attributes: ProductAttributes, kinds: Kinds) -> None:
        self._learnt = learnt
        self._is_used = [bool(weight.any()) for weight in learnt.kin_weight]
        self._category_row = attributes.category_row
        self._kinds = kinds
        self._category, self._brand = attributes.category.tolist(), attributes.brand.tolist()
        self._lock = threading.Lock()
        self._mark = np.zeros(len(self._category), np.int32)
        self._product = np.zeros(KIN_COUNT_MAX, np.int32)
        self._share = np.zeros(KIN_COUNT_MAX, np.float32)

    def rank(
        self,
        events: Sequence[Happening],
        now_ms: int,
        row_of: Mapping[str, int],
        candidate: Int32s,
        candidates_rate: float,
    ) -> tuple[Int32s, Float64s]:
        """Return the likeliest products besides the candidates, and P(it comes next) of each.

        Args:
            events: the visitor's.
            now_ms: the moment.
            row_of: row of each product.
            candidate: rows of the candidates, -1 for what is not in the snapshot.
            candidates_rate: sum of their probabilities.
        """
        situation = BETWEEN_SESSIONS if is_between_sessions(events, now_ms) else IN_SESSION
        if not self._is_used[situation]:
            return NO_ROWS, NO_RATES
        about = read_contexts(events, CONTEXT_EVENT_COUNT_MAX, row_of, self._category, self._brand, self._category_row)
        weight, (knot_rate, knot_mass) = self._learnt.kin_weight[situation], self._learnt.kin_mass[situation]
        mass = np.interp(-candidates_rate, knot_rate, knot_mass)
        with self._lock:
            count = share_among_kin_nb(about, self._kinds, candidate, weight, self._mark, self._product, self._share)
            return self._product[:count].copy(), self._share[:count] * mass


def neutral_model(product_ids: Sequence[str], attributes: ProductAttributes | None = None) -> BoundModel:
    """Return the model of a shop nothing is known of: every product alike, for every visitor."""
    return BoundModel(product_ids, np.full(len(product_ids), round(PRIOR_CLICK_RATE * PPM), np.int64))


def load_model(path: Path) -> AffinityModel:
    """Return a saved model.

    Raises:
        ModelRefused: the file is damaged, or of another version.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise ModelRefused(f"{path.name} must be of format {FORMAT}, was {int(file['format'])}: train anew")
            arrays: dict[str, Any] = {name: np.ascontiguousarray(file[name]) for name in file.files if name != "format"}
        for name in ("product_id", "taste_segment_id", "taste_category_id"):
            arrays[name] = msgspec.json.decode(arrays[name].tobytes(), type=list[str])
        taste = (arrays.pop(f"taste_{name}") for name in ("segment_id", "category_id", "log_lift"))
        arrays["taste"] = SegmentTaste(*taste)
        arrays["trained_at_ms"] = int(arrays["trained_at_ms"].item())
        learnt = Learnt(**arrays)
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as damage:
        raise ModelRefused(f"{path.name} cannot be read: {damage}") from damage
    if not _fits_together(learnt):
        raise ModelRefused(f"{path.name} does not fit together: train anew")
    return AffinityModel(learnt, read_metrics(path))


def _fits_together(learnt: Learnt) -> bool:
    """Say whether compiled code, which checks nothing, stays within the arrays."""
    item_count, event_count = len(learnt.product_id), len(learnt.event_item)
    session_count = len(learnt.session_first) - 1
    lengths = np.diff(learnt.session_first)
    return bool(
        learnt.parameter.shape == (SITUATION_COUNT, PARAMETER_COUNT)
        and learnt.combiner.shape == (SITUATION_COUNT, FEATURE_COUNT)
        and learnt.knot.ndim == 3
        and learnt.knot.shape[:2] == (SITUATION_COUNT, 2)
        and learnt.knot.shape[2] > 0
        and learnt.kin_weight.shape == (SITUATION_COUNT, KINSHIP_COUNT)
        and learnt.kin_mass.ndim == 3
        and learnt.kin_mass.shape[:2] == (SITUATION_COUNT, 2)
        and learnt.kin_mass.shape[2] > 0
        and learnt.item_fact.shape == (item_count, FACT_COUNT)
        and learnt.taste.log_lift.shape == (len(learnt.taste.segment_id), len(learnt.taste.category_id))
        and len(learnt.rarity) == len(learnt.clicks) == len(learnt.seen) == item_count
        and len(learnt.item_first) == item_count + 1
        and len(learnt.item_event) == len(learnt.item_session) == event_count
        and learnt.session_first[0] == learnt.item_first[0] == 0
        and learnt.session_first[-1] == learnt.item_first[-1] == event_count
        and (lengths >= 0).all()
        and (lengths <= SESSION_LENGTH_MAX).all()
        and (np.diff(learnt.item_first) >= 0).all()
        and _are_rows(learnt.event_item, item_count)
        and _are_rows(learnt.item_event, event_count)
        and _are_rows(learnt.item_session, session_count)
        and _are_rows(learnt.popular_item, item_count)
    )


def _are_rows(rows: Int32s, count: int) -> bool:
    return bool(((rows >= 0) & (rows < count)).all())


def active_model(folder: Path) -> Path | None:
    """Return the model of a folder that is in use: the one activated last, else the youngest; None where none is."""
    pointer = folder / ACTIVE
    if pointer.exists():
        path = folder / pointer.read_text("ascii").strip()
        if path.exists():
            return path
    return max(folder.glob(f"affinity-*{SUFFIX}"), default=None)


def activate_model(path: Path) -> None:
    """Put a model of a folder in use: running servers take it up, and `endcap affinity rank` ranks by it."""
    draft = path.with_name(f"{ACTIVE}.part")
    draft.write_text(path.name, "ascii")
    draft.replace(path.with_name(ACTIVE))


def read_metrics(path: Path) -> dict[str, float]:
    """Return the metrics beside a model; none where they are not there or cannot be read."""
    try:
        return msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=dict[str, float])
    except (OSError, msgspec.DecodeError):
        return {}


def is_worse(metrics: Mapping[str, float], active: Mapping[str, float]) -> bool:
    """Say whether a model did worse in validation than another: by more than two standard errors of the difference.

    What counts is Recall@20 plus MRR@20. A model that could not be validated is worse than one that could.
    """
    if not active.get("case_count"):
        return False
    if not metrics.get("case_count"):
        return True
    gap = _goodness(active) - _goodness(metrics)
    error = hypot(metrics.get("standard_error", 0.0), active.get("standard_error", 0.0))
    return gap > 2.0 * error


def _goodness(metrics: Mapping[str, float]) -> float:
    return metrics.get("recall_at_20", 0.0) + metrics.get("mrr_at_20", 0.0)

"""Which categories visitors of a segment like more than others do: what is known of a visitor who did nothing yet.

Learnt from what visitors with a profile or with computed classes did, each counted once however much they did. A
visitor may be in many segments; the most telling three of them count. A model keeps names of segments and categories,
no visitor.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.kinds import ProductAttributes
from affinity.navigation_log import LogLine
from affinity.sessions import HISTORY_WEIGHT

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

MEMBER_COUNT_MIN = 50  # visitors of a segment; as few as that are nowhere told apart
CATEGORY_COUNT_MAX = 1_000  # the categories touched most
SEGMENT_COUNT_MAX = 200
TELLING_COUNT = 3  # segments of a visitor that count, the most telling ones
STRENGTHS = (20.0, 100.0, 500.0)  # visitors that what all of them like weighs as much as, against a segment's own
FACTOR_MIN, FACTOR_MAX = 1 / 3, 3.0
KEPT_COUNT_MAX = 256  # sets of segments whose products are kept

_COUNTED = frozenset(action.value for action in HISTORY_WEIGHT)


class SegmentTaste(Struct, frozen=True, eq=False):
    """What is learnt of G segments and C categories.

    Attributes:
        segment_id: (G,) the most telling first.
        category_id: (C,).
        log_lift: (G, C) logarithm of how much more often visitors of the segment touch the category than others.
        gain: by how much likelier, as a logarithm, categories of visitors it was not fitted to became.
    """

    segment_id: list[str]
    category_id: list[str]
    log_lift: Float32s
    gain: float = 0.0


NO_TASTE = SegmentTaste([], [], np.zeros((0, 0), np.float32))


class TasteCounts:
    """Counts categories of visitors with segments, while lines of the log go by.

    Args:
        segments_of: segments of each visitor that has any, by pseudonym.
        category_of: category of each product.
    """

    def __init__(self, segments_of: Mapping[bytes, Collection[str]], category_of: Mapping[str, str]) -> None:
        self._segments_of = segments_of
        self._category_of = category_of
        self._touched: dict[bytes, Counter[str]] = defaultdict(Counter)

    def watch(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Yield the lines as they are."""
        for line in lines:
            if line.pseudonym in self._segments_of and line.product_id is not None and line.action in _COUNTED:
                category_id = self._category_of.get(line.product_id)
                if category_id is not None:
                    self._touched[line.pseudonym][category_id] += 1
            yield line

    def learn(self) -> SegmentTaste:
        """Return what segments tell, NO_TASTE where other visitors' categories do not bear it out.

        Fitted to every other visitor, checked on the rest: by more than two standard errors of the gain.
        """
        visitors = sorted(self._touched)
        touched = Counter[str]()
        for counts in self._touched.values():
            touched.update(counts)
        category_id = [name for name, _ in touched.most_common(CATEGORY_COUNT_MAX)]
        members = Counter(segment for one in visitors for segment in set(self._segments_of[one]))
        segment_id = [name for name, count in members.most_common(SEGMENT_COUNT_MAX) if count >= MEMBER_COUNT_MIN]
        if not segment_id or len(category_id) < 2:
            return NO_TASTE
        column = {one: at for at, one in enumerate(category_id)}
        row = {one: at for at, one in enumerate(segment_id)}
        share = np.zeros((len(visitors), len(category_id)), np.float32)
        is_member = np.zeros((len(visitors), len(segment_id)), np.bool_)
        for at, one in enumerate(visitors):
            for name, count in self._touched[one].items():
                if name in column:
                    share[at, column[name]] = count
            is_member[at, [row[name] for name in self._segments_of[one] if name in row]] = True
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1.0)
        best: tuple[float, float] = (0.0, 0.0)
        for strength in STRENGTHS:
            order, log_lift = _fit(share[::2], is_member[::2], strength)
            gain = _gain(share[1::2], is_member[1::2][:, order], log_lift, share[::2].mean(axis=0))
            if gain.mean() > max(best[0], 2.0 * float(gain.std()) / np.sqrt(len(gain))):
                best = float(gain.mean()), strength
        if not best[0]:
            return NO_TASTE
        order, log_lift = _fit(share, is_member, best[1])
        return SegmentTaste([segment_id[at] for at in order], category_id, log_lift, best[0])


def _fit(share: Float32s, is_member: NDArray[np.bool_], strength: float) -> tuple[Int64s, Float32s]:
    """Return the segments (G,), the most telling first, and their log_lift (G, C): means of a Dirichlet posterior."""
    usual = (share.sum(axis=0) + 1.0 / share.shape[1]) / (share.sum() + 1.0)
    of_segment = is_member.T.astype(np.float32) @ share
    rate = (of_segment + strength * usual) / (of_segment.sum(axis=1, keepdims=True) + strength)
    log_lift = np.log(rate / usual)
    order = np.argsort(-(rate * log_lift).sum(axis=1), kind="stable")
    return order, log_lift[order].astype(np.float32)


def _gain(share: Float32s, is_member: NDArray[np.bool_], log_lift: Float32s, usual: Float32s) -> Float64s:
    """Return (V,) by how much likelier each visitor's categories are by their segments, as a logarithm."""
    usual = (usual + 1e-6) / (usual + 1e-6).sum()
    is_telling = is_member & (np.cumsum(is_member, axis=1) <= TELLING_COUNT)
    log_factor = is_telling @ log_lift / np.maximum(is_telling.sum(axis=1, keepdims=True), 1)
    level = np.log(np.exp(log_factor) @ usual)
    return np.asarray((share * log_factor).sum(axis=1) - level * share.sum(axis=1), np.float64)


class TasteRanker:
    """The products of a snapshot that segments make more or less likely.

    Args:
        taste: what is learnt.
        attributes: the snapshot's products.
        base_quality_ppm: (P,) theirs.
        count_max: most products.
    """

    def __init__(
        self,
        taste: SegmentTaste,
        attributes: ProductAttributes,
        base_quality_ppm: Int64s,
        count_max: int,
    ) -> None:
        self._place = {segment_id: place for place, segment_id in enumerate(taste.segment_id)}
        self._log_lift = np.zeros(
            (len(taste.segment_id), len(attributes.category_row) + 1), np.float32
        )  # the last: no category
        for column, category_id in enumerate(taste.category_id):
            if category_id in attributes.category_row:
                self._log_lift[:, attributes.category_row[category_id]] = taste.log_lift[:, column]
        self._category, self._base_quality_ppm, self._count_max = attributes.category, base_quality_ppm, count_max
        self._kept: dict[tuple[int, ...], tuple[Int32s, Float64s]] = {}

    def rank(self, segments: Iterable[str]) -> tuple[Int32s, Float64s]:
        """Return the rows, ascending, of the products that change most, and the factor on the quality of each."""
        places = tuple(sorted(self._place[one] for one in segments if one in self._place)[:TELLING_COUNT])
        kept = self._kept.get(places)
        if kept is None:
            if len(self._kept) >= KEPT_COUNT_MAX:
                self._kept.clear()
            kept = self._kept[places] = self._find(places)
        return kept

    def _find(self, places: Sequence[int]) -> tuple[Int32s, Float64s]:
        if not places:
            return np.zeros(0, np.int32), np.zeros(0)
        factor = np.clip(np.exp(self._log_lift[list(places)].mean(axis=0)), FACTOR_MIN, FACTOR_MAX)
        of_product = factor[self._category]
        change = np.abs(of_product - 1.0) * self._base_quality_ppm
        count = min(self._count_max, len(change))
        row = np.argpartition(-change, count - 1)[:count]
        row = np.sort(row[change[row] > 0])
        return row.astype(np.int32), of_product[row].astype(np.float64)

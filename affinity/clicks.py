"""Showings and clicks per placement, product and slot, counted as they are reported.

They correct what the model predicts (`correction.py`), tell how much each slot is looked at (`attention.py`), and watch
whether predictions hold. Counted is per slot and uncorrected: attention is laid on when the counters are read, so that
another attention counts for the past too. Old counts fade; rows are bounded, and what has none is counted together.
No visitor is in here.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.computed import DAY_MS
from affinity.settings import Settings

Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]

PPM = 1_000_000
SHOWN, PREDICTED, CLICKED = range(3)
OTHERS = 0  # row of the products that have none of their own
NO_NUMBER = -1
SLOT_COUNT_MAX = 50
FADING_STEP = 0.001  # of a half-life: more often it would make no difference
KEPT_SHARE = 0.75  # of a placement's rows, when there are too many
NUMBERS_PER_ROW = 2  # products may be numbered, of which some have no row any more
BIN_COUNT = 21  # predicted clicks per million showings, by the number of binary digits
WATCHED_CLICKS = 4_000.0  # when so many were watched, all that was watched counts half


class PlacementClicks(Struct, frozen=True, eq=False):
    """What was counted of one placement; N rows, T slots.

    Attributes:
        number: (N,) the products, as `Clicks.product_ids` has them; NO_NUMBER: all that have no row.
        shown: (N, T) times shown in each slot.
        predicted: (N, T) sum of the clicks the model predicted if all of them were looked at.
        clicked: (N, T) clicks.
    """

    placement_id: str
    number: Int32s
    shown: Float64s
    predicted: Float64s
    clicked: Float64s


class Clicks(Struct, frozen=True, eq=False):
    """What was counted, as it stood at one moment.

    Attributes:
        product_ids: by number; grows behind `product_count`.
        base_ppm: (product_count,) the model's quality that `predicted` was counted with, 0 where not known.
    """

    product_ids: list[str]
    product_count: int
    base_ppm: Float64s
    placements: list[PlacementClicks]

    def rebased(self, ratio: Float64s) -> "Clicks":
        """Return what would have been counted if every prediction had been so many times as high.

        Args:
            ratio: (product_count + 1,) of each product, and of all that have no row.
        """
        if (ratio == 1.0).all():
            return self
        placements = [
            PlacementClicks(
                one.placement_id, one.number, one.shown, one.predicted * ratio[one.number][:, None], one.clicked
            )
            for one in self.placements
        ]
        return Clicks(self.product_ids, self.product_count, self.base_ppm, placements)


class Watched(Struct, frozen=True, eq=False):
    """Predictions of one placement beside what came of them, by `BIN_COUNT` bins of predicted clicks.

    Attributes:
        shown, expected, clicked: (BIN_COUNT,) showings, sum of predicted clicks, clicks.
    """

    placement_id: str
    shown: Float64s
    expected: Float64s
    clicked: Float64s


class PlacementMemory(Struct, frozen=True, array_like=True):
    """One placement as it is kept between two starts; arrays as bytes of little-endian f8, numbers of i4."""

    placement_id: str
    slot_count: int
    number: bytes
    counts: bytes
    watched: bytes


class ClickMemory(Struct, frozen=True, array_like=True):
    """The counters as they are kept between two starts."""

    faded_at_ms: int
    product_ids: list[str]
    base_ppm: bytes
    placements: list[PlacementMemory]


class _Placement:
    """The counters of one placement. Row 0 is OTHERS."""

    def __init__(self, slot_count: int) -> None:
        self.row_of: dict[str, int] = {}
        self.number: list[int] = [NO_NUMBER]
        self.counts = np.zeros((3, 64, slot_count))
        self.watched = np.zeros((3, BIN_COUNT))

    def make_room(self, slot_position: int) -> None:
        """Have a place for the slot, and for one more row."""
        _, row_count, slot_count = self.counts.shape
        if slot_position > slot_count or len(self.number) >= row_count:
            rows = 2 * row_count if len(self.number) >= row_count else row_count
            grown = np.zeros((3, rows, max(slot_position, slot_count)))
            grown[:, :row_count, :slot_count] = self.counts
            self.counts = grown


class ClickCounters:
    """The counters of one process. One thread at a time.

    Args:
        settings: this package's; how many rows, and how fast counts fade.

    Attributes:
        noted_count: events counted since the start.
    """

    def __init__(self, settings: Settings) -> None:
        self._row_count_max = settings.click_row_count_max
        self._half_life_ms = settings.click_half_life_days * DAY_MS
        self._placements: dict[str, _Placement] = {}
        self._product_ids: list[str] = []
        self._number_of: dict[str, int] = {}
        self._base_ppm = np.zeros(0)
        self._row_count = 0
        self._faded_at_ms = 0
        self.noted_count = 0

    @property
    def row_count(self) -> int:
        """Count the placements' products that have a row."""
        return self._row_count

    # --- counting ----------------------------------------------------------------------------------------------------

    def note_shown(
        self,
        placement_id: str,
        product_id: str,
        slot_position: int,
        predicted_ppm: float,
        expected_ppm: float,
        weight: float = 1.0,
    ) -> None:
        """Count a product that was shown.

        Args:
            placement_id: where.
            product_id: what.
            slot_position: from 1.
            predicted_ppm: clicks per million looks, by the model alone.
            expected_ppm: clicks per million showings, as the auction had it: corrected, times the slot's attention.
            weight: how many showings this one stands for.
        """
        placement, row = self._row(placement_id, product_id, slot_position)
        counts = placement.counts
        counts[SHOWN, row, slot_position - 1] += weight
        counts[PREDICTED, row, slot_position - 1] += weight * predicted_ppm / PPM
        at = _bin_of(expected_ppm)
        placement.watched[SHOWN, at] += weight
        placement.watched[PREDICTED, at] += weight * expected_ppm / PPM
        self.noted_count += 1

    def note_click(self, placement_id: str, product_id: str, slot_position: int, expected_ppm: float) -> None:
        """Count a click on what was shown with so many expected clicks."""
        placement, row = self._row(placement_id, product_id, slot_position)
        placement.counts[CLICKED, row, slot_position - 1] += 1.0
        watched = placement.watched
        watched[CLICKED, _bin_of(expected_ppm)] += 1.0
        if watched[CLICKED].sum() > WATCHED_CLICKS:
            watched *= 0.5
        self.noted_count += 1

    def _row(self, placement_id: str, product_id: str, slot_position: int) -> tuple[_Placement, int]:
        placement = self._placements.get(placement_id)
        if placement is None:
            placement = self._placements[placement_id] = _Placement(max(slot_position, 8))
        row = placement.row_of.get(product_id)
        if row is not None and slot_position <= placement.counts.shape[2]:
            return placement, row
        placement.make_room(slot_position)
        if row is None:
            if self._row_count >= self._row_count_max:
                return placement, OTHERS
            row = placement.row_of[product_id] = len(placement.number)
            placement.number.append(self._number(product_id))
            self._row_count += 1
        return placement, row

    def _number(self, product_id: str) -> int:
        number = self._number_of.get(product_id)
        if number is None:
            number = self._number_of[product_id] = len(self._product_ids)
            self._product_ids.append(product_id)
            if number >= len(self._base_ppm):
                self._base_ppm = np.append(self._base_ppm, np.zeros(max(64, number)))
        return number

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, now_ms: int) -> Clicks:
        """Return a copy of what was counted, faded to now; makes room for further products where there is none."""
        self._fade(now_ms)
        if self._row_count >= self._row_count_max:
            self._trim()
        product_count = len(self._product_ids)
        return Clicks(
            self._product_ids,
            product_count,
            self._base_ppm[:product_count].copy(),
            [
                PlacementClicks(
                    name,
                    np.array(placement.number, np.int32),
                    *placement.counts[:, : len(placement.number)].copy(),
                )
                for name, placement in self._placements.items()
            ],
        )

    def watched(self) -> list[Watched]:
        """Return how predictions held of late: over the last 2,000 to 4,000 clicks of each placement."""
        return [Watched(name, *placement.watched.copy()) for name, placement in self._placements.items()]

    def rebase(self, clicks: Clicks, base_ppm: Float64s) -> None:
        """Count as if another model had predicted.

        Args:
            clicks: what was read last, nothing having been made room for since.
            base_ppm: (product_count,) that model's quality of each product, 0 where it is not known.
        """
        before, count = clicks.base_ppm, clicks.product_count
        ratio = ratio_of(before, base_ppm)
        if (ratio != 1.0).any():
            for placement in self._placements.values():
                number = np.array(placement.number)
                rows = np.flatnonzero((number >= 0) & (number < count))
                placement.counts[PREDICTED, rows] *= ratio[number[rows], None]
        self._base_ppm[:count] = np.where(base_ppm > 0, base_ppm, before)

    def _fade(self, now_ms: int) -> None:
        """Let what was counted before weigh less, so that taste may change."""
        if self._faded_at_ms == 0:
            self._faded_at_ms = now_ms
        passed_ms = now_ms - self._faded_at_ms
        if passed_ms > FADING_STEP * self._half_life_ms:
            for placement in self._placements.values():
                placement.counts *= 0.5 ** (passed_ms / self._half_life_ms)
            self._faded_at_ms = now_ms

    def _trim(self) -> None:
        """Make room in the placement with the most rows: those of what is shown least join OTHERS.

        One placement at a time, since all of them would hold up the thread that fills pages.
        """
        placement = max(self._placements.values(), key=lambda one: len(one.number))
        row_count = len(placement.number)
        counts = placement.counts[:, :row_count]
        is_kept = np.zeros(row_count, bool)
        by_shown = 1 + np.argsort(-counts[SHOWN, 1:].sum(1), kind="stable")
        is_kept[by_shown[: int(KEPT_SHARE * row_count)]] = is_kept[OTHERS] = True
        kept = counts[:, is_kept]
        kept[:, OTHERS] += counts[:, ~is_kept].sum(1)
        placement.counts = kept
        placement.number = np.array(placement.number)[is_kept].tolist()
        placement.row_of = {self._product_ids[number]: row for row, number in enumerate(placement.number) if row}
        self._row_count -= row_count - len(placement.number)
        if len(self._product_ids) > NUMBERS_PER_ROW * self._row_count_max:
            self._renumber()

    def _renumber(self) -> None:
        """Forget the numbers of products that have no row any more."""
        used = np.unique(np.concatenate([np.array(one.number, np.int64) for one in self._placements.values()]))[1:]
        new = np.full(len(self._product_ids) + 1, NO_NUMBER)  # the last one stands for NO_NUMBER itself
        new[used] = np.arange(len(used))
        for placement in self._placements.values():
            placement.number = new[placement.number].tolist()
        self._product_ids = [self._product_ids[number] for number in used]
        self._number_of = {product_id: number for number, product_id in enumerate(self._product_ids)}
        self._base_ppm = self._base_ppm[used]

    # --- between two starts ------------------------------------------------------------------------------------------

    def memory(self) -> ClickMemory:
        """Return what is to be kept."""
        return ClickMemory(
            self._faded_at_ms,
            list(self._product_ids),
            self._base_ppm[: len(self._product_ids)].astype("<f8", copy=False).tobytes(),
            [
                PlacementMemory(
                    name,
                    placement.counts.shape[2],
                    np.array(placement.number, "<i4").tobytes(),
                    placement.counts[:, : len(placement.number)].astype("<f8", copy=False).tobytes(),
                    placement.watched.astype("<f8", copy=False).tobytes(),
                )
                for name, placement in self._placements.items()
            ],
        )

    def recall(self, memory: ClickMemory) -> None:
        """Go on from what was kept.

        Raises:
            ValueError: it does not fit together; nothing is taken over.
        """
        placements: dict[str, _Placement] = {}
        for kept in memory.placements:
            number = np.frombuffer(kept.number, "<i4").tolist()
            if number[:1] != [NO_NUMBER] or any(not 0 <= one < len(memory.product_ids) for one in number[1:]):
                raise ValueError("products and their numbers do not fit together")
            placement = _Placement(kept.slot_count)
            placement.number = number
            placement.row_of = {memory.product_ids[one]: row for row, one in enumerate(number[1:], 1)}
            placement.counts = np.frombuffer(kept.counts, "<f8").reshape(3, len(number), kept.slot_count).copy()
            placement.watched = np.frombuffer(kept.watched, "<f8").reshape(3, BIN_COUNT).copy()
            placements[kept.placement_id] = placement
        base_ppm = np.frombuffer(memory.base_ppm, "<f8").copy()
        if len(base_ppm) != len(memory.product_ids):
            raise ValueError("products and their qualities do not fit together")
        self._placements, self._base_ppm, self._faded_at_ms = placements, base_ppm, memory.faded_at_ms
        self._product_ids = list(memory.product_ids)
        self._number_of = {product_id: number for number, product_id in enumerate(self._product_ids)}
        self._row_count = sum(len(placement.row_of) for placement in placements.values())
        self.noted_count += 1  # there is something to learn from


def write_memory(memory: ClickMemory, path: Path) -> None:
    """Write counters to a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.msgpack.encode(memory))
    draft.replace(path)


def read_memory(path: Path) -> ClickMemory | None:
    """Return the counters of a file, None where there is none.

    Raises:
        OSError: it cannot be read.
        msgspec.MsgspecError: it is damaged.
    """
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=ClickMemory)
    except FileNotFoundError:
        return None


def ratio_of(before: Float64s, after: Float64s) -> Float64s:
    """Return by how much qualities changed; 1 where one of the two is not known."""
    is_known = (before > 0) & (after > 0)
    return np.where(is_known, after / np.where(is_known, before, 1.0), 1.0)


def _bin_of(expected_ppm: float) -> int:
    return min(int(expected_ppm).bit_length(), BIN_COUNT - 1)


def attention_of(clicks: PlacementClicks, attention_permille: Sequence[int]) -> Float64s:
    """Return (T,) attention, 0 to 1, of as many slots as were counted; 0 for slots the placement no longer has."""
    attention = np.zeros(clicks.shown.shape[1])
    known = np.asarray(attention_permille[: len(attention)], np.float64) / 1_000
    attention[: len(known)] = known
    return attention

"""Counters of clicks: kept apart per slot, bounded, fading, and the same after a restart."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from affinity.clicks import (
    WATCHED_CLICKS,
    ClickCounters,
    PlacementClicks,
    attention_of,
    read_memory,
    write_memory,
)
from affinity.computed import DAY_MS
from affinity.settings import Settings

NOW_MS = 1_790_000_000_000


def counters(row_count_max: int = 100) -> ClickCounters:
    return ClickCounters(Settings(click_row_count_max=row_count_max))


def only(counted: ClickCounters, now_ms: int = NOW_MS) -> PlacementClicks:
    (placement,) = counted.read(now_ms).placements
    return placement


def read_ids(counted: ClickCounters) -> list[str]:
    return counted.read(NOW_MS).product_ids


def test_what_was_shown_and_clicked_is_kept_apart_by_product_and_slot() -> None:
    counted = counters()
    counted.note_shown("top", "p1", 1, 10_000, 9_000)
    counted.note_shown("top", "p1", 3, 20_000, 8_000, weight=16)
    counted.note_shown("top", "p2", 1, 30_000, 30_000)
    counted.note_click("top", "p1", 3, 8_000)
    found = only(counted)
    assert found.number.tolist() == [-1, 0, 1]
    assert found.shown[1:, :3].tolist() == [[1, 0, 16], [1, 0, 0]]
    assert found.clicked[1:, :3].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert found.predicted[1:, :3].tolist() == pytest.approx(np.array([[0.01, 0, 0.32], [0.03, 0, 0]]))


def test_slots_and_products_beyond_the_first_room_find_theirs() -> None:
    counted = counters(10_000)
    for number in range(300):
        counted.note_shown("top", f"p{number}", number % 50 + 1, 10_000, 10_000)
    found = only(counted)
    assert found.shown.shape == (301, 50)
    assert [int(np.argmax(row)) for row in found.shown[1:]] == [number % 50 for number in range(300)]


def test_rows_are_bounded_and_nothing_counted_is_lost() -> None:
    counted = counters(row_count_max=100)
    for number in range(150):
        for _ in range(number % 7 + 1):
            counted.note_shown("top", f"p{number}", 1, 10_000, 10_000)
        counted.note_click("top", f"p{number}", 1, 10_000)
    assert counted.row_count == 100
    before = only(counted)  # reading makes room
    assert counted.row_count <= 75
    for number in range(150, 170):
        counted.note_shown("top", f"p{number}", 1, 10_000, 10_000)
    found = only(counted)
    assert found.clicked.sum() == before.clicked.sum() == 150
    assert found.shown.sum() == before.shown.sum() + 20
    ids = read_ids(counted)
    assert "p169" in ids, "there is room for new products again"
    kept = [int(ids[number].removeprefix("p")) % 7 for number in before.number[1:]]
    assert min(kept) >= 1, "what was shown least went first"


def test_products_that_come_and_go_do_not_add_up() -> None:
    counted = counters(row_count_max=100)
    for number in range(3_000):
        for placement_id in ("top", "side"):
            counted.note_shown(placement_id, f"p{number}", 1, 10_000, 10_000)
        counted.note_shown("top", "always", 1, 10_000, 10_000)
        if number % 10 == 0:
            found = counted.read(NOW_MS)
            counted.rebase(found, np.array([float(name == "always") + 1 for name in found.product_ids]))
            assert len(found.product_ids) <= 300
    found = counted.read(NOW_MS)
    assert sum(one.shown.sum() for one in found.placements) == pytest.approx(9_000)
    top = next(one for one in found.placements if one.placement_id == "top")
    row = [found.product_ids[number] for number in top.number[1:]].index("always") + 1
    assert top.shown[row].sum() == 3_000
    assert found.base_ppm[found.product_ids.index("always")] == 2


def test_old_counts_fade() -> None:
    counted = counters()
    counted.note_shown("top", "p1", 1, 10_000, 10_000, weight=100)
    counted.read(NOW_MS)
    assert only(counted, NOW_MS + 30 * DAY_MS).shown.sum() == pytest.approx(50)
    assert only(counted, NOW_MS + 30 * DAY_MS).shown.sum() == pytest.approx(50), "each time passes once"


def test_another_models_predictions_take_the_place_of_the_ones_counted() -> None:
    counted = counters()
    counted.note_shown("top", "p1", 1, 10_000, 10_000)
    counted.note_shown("top", "p2", 1, 10_000, 10_000)
    counted.rebase(counted.read(NOW_MS), np.array([10_000.0, 10_000.0]))
    assert only(counted).predicted.sum() == pytest.approx(0.02), "the first model is no change"
    counted.note_shown("top", "p3", 1, 10_000, 10_000)
    counted.rebase(counted.read(NOW_MS), np.array([20_000.0, 0.0, 5_000.0]))
    assert only(counted).predicted[:, 0].tolist() == pytest.approx([0, 0.02, 0.01, 0.01])
    counted.rebase(counted.read(NOW_MS), np.array([20_000.0, 5_000.0, 10_000.0]))
    assert only(counted).predicted[:, 0].tolist() == pytest.approx([0, 0.02, 0.005, 0.02])


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    counted = counters()
    for number in range(20):
        counted.note_shown("top", f"p{number}", number % 4 + 1, 10_000, 9_000, weight=16)
        counted.note_shown("side", f"p{number}", 2, 20_000, 9_000)
    counted.note_click("top", "p3", 4, 9_000)
    counted.rebase(counted.read(NOW_MS), np.full(20, 10_000.0))
    write_memory(counted.memory(), tmp_path / "clicks")
    kept = read_memory(tmp_path / "clicks")
    assert kept is not None
    again = counters()
    again.recall(kept)
    assert again.noted_count > 0, "there is something to learn from at once"
    for one in (counted, again):
        one.note_click("top", "p3", 4, 9_000)
        one.note_shown("side", "new", 9, 10_000, 9_000)
    before, after = counted.read(NOW_MS), again.read(NOW_MS)
    assert (before.product_ids, before.base_ppm.tolist()) == (after.product_ids, after.base_ppm.tolist())
    for one, other in zip(before.placements, after.placements, strict=True):
        for name in ("number", "shown", "predicted", "clicked"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert msgspec.msgpack.encode(counted.memory()) == msgspec.msgpack.encode(again.memory())


def test_no_file_is_no_harm_and_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    assert read_memory(tmp_path / "clicks") is None
    counted = counters()
    counted.note_shown("top", "p1", 1, 10_000, 10_000)
    memory = counted.memory()
    (placement,) = memory.placements
    broken = [
        msgspec.structs.replace(memory, product_ids=[]),
        msgspec.structs.replace(memory, base_ppm=b""),
        msgspec.structs.replace(memory, placements=[msgspec.structs.replace(placement, slot_count=3)]),
        msgspec.structs.replace(memory, placements=[msgspec.structs.replace(placement, watched=b"12345678")]),
    ]
    for one in broken:
        other = counters()
        with pytest.raises(ValueError):
            other.recall(one)
        assert other.row_count == 0


def test_the_watch_looks_at_the_last_clicks_only() -> None:
    counted = counters()
    for expected_ppm, count in ((100_000, 6_000), (500_000, 20_000)):
        for number in range(count):
            counted.note_shown("top", "p1", 1, 10_000, expected_ppm)
            if number % 2:
                counted.note_click("top", "p1", 1, expected_ppm)
    (watched,) = counted.watched()
    assert WATCHED_CLICKS / 2 <= watched.clicked.sum() <= WATCHED_CLICKS
    assert watched.clicked.sum() / watched.expected.sum() == pytest.approx(1.0, abs=0.05)


def test_a_slot_the_placement_no_longer_has_is_not_looked_at() -> None:
    counted = counters()
    counted.note_shown("top", "p1", 3, 10_000, 10_000)
    assert attention_of(only(counted), [1000, 500]).tolist() == [1, 0.5, 0, 0, 0, 0, 0, 0]

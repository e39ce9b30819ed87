"""The model's quality is corrected by clicks: as far as they tell, no further, and so that predictions come true."""

import numpy as np
import pytest

from affinity.clicks import ClickCounters, Clicks, PlacementClicks
from affinity.correction import (
    PLACEMENT_STRENGTH,
    SHOP_STRENGTH,
    STRENGTH,
    STRENGTH_MAX,
    STRENGTH_MIN,
    Correction,
    Corrections,
    correct,
    estimate_strength,
)
from affinity.settings import Settings
from affinity.watch import calibration_of
from tests.affinity.shown import Shelf, permille

NOW_MS = 1_790_000_000_000


def counted(placements: dict[str, list[tuple[int, float]]]) -> Clicks:
    """Clicks of products p0, p1, … by (clicks, predicted clicks), all in slot 1."""
    count = max(len(rows) for rows in placements.values())
    return Clicks(
        [f"p{number}" for number in range(count)],
        count,
        np.zeros(count),
        [
            PlacementClicks(
                name,
                np.array([-1, *range(len(rows))], np.int32),
                *(np.array([[0.0], *[[value] for value in column]]) for column in ([100.0] * len(rows), *_turn(rows))),
            )
            for name, rows in placements.items()
        ],
    )


def _turn(rows: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [predicted for _, predicted in rows], [float(clicks) for clicks, _ in rows]


def factors(corrections: Corrections, name: str, count: int) -> list[float]:
    row_of = np.arange(corrections.product_count, dtype=np.int32)
    return [one / 1e6 for one in corrections.of[name].factors_ppm(count, row_of).tolist()]


def test_without_clicks_the_model_is_taken_as_it_is() -> None:
    found = correct(Clicks([], 0, np.zeros(0), []), {"top": [1000]})
    assert factors(found, "top", 3) == [1.0, 1.0, 1.0]


def test_a_product_is_corrected_by_its_own_clicks_and_the_others_by_the_placements() -> None:
    rows = [(500, 1_000.0), (2_000, 1_000.0), *[(1_000, 1_000.0)] * 8]
    first, second, third, *_, unseen = factors(correct(counted({"top": rows}), {"top": [1000]}), "top", 11)
    assert first == pytest.approx(0.5, abs=0.02)
    assert second == pytest.approx(2.0, abs=0.03)
    assert third == pytest.approx(1.0, abs=0.02)
    shop = (SHOP_STRENGTH + 10_500) / (SHOP_STRENGTH + 10_000)
    placement = shop * (PLACEMENT_STRENGTH + 10_500) / (PLACEMENT_STRENGTH + shop * 10_000)
    assert unseen == pytest.approx(placement, abs=1e-6)


def test_a_new_placement_begins_at_the_level_of_the_shop() -> None:
    found = correct(counted({"old": [(400, 1_000.0)] * 3}), {"new": [1000], "old": [1000]})
    assert found.of["new"].usual == pytest.approx(0.4, abs=0.01)


def test_few_clicks_change_little() -> None:
    (lucky, _) = factors(correct(counted({"top": [(2, 0.1), (0, 0.1)]}), {"top": [1000]}), "top", 2)
    assert 1.0 < lucky < 4.0, "two clicks where a tenth was predicted are no proof of twenty times the rate"


def test_a_prediction_in_a_slot_nobody_looks_at_counts_by_its_attention() -> None:
    clicks = counted({"top": [(1_000, 2_000.0)] * 5})
    assert factors(correct(clicks, {"top": [500]}), "top", 5)[0] == pytest.approx(1.0, abs=0.01)
    assert factors(correct(clicks, {"top": [1000]}), "top", 5)[0] == pytest.approx(0.5, abs=0.01)


def test_what_a_product_got_elsewhere_counts_half() -> None:
    elsewhere = [(40, 10.0), (10, 10.0), (10, 10.0), (10, 10.0)]
    here = [(0, 0.0), (10, 10.0), (10, 10.0), (10, 10.0)]
    attention = {"here": [1000], "there": [1000]}
    alone = factors(correct(counted({"here": here, "there": [(0, 0.0)] * 4}), attention), "here", 4)
    found = correct(counted({"here": here, "there": elsewhere}), attention)
    both = factors(found, "here", 4)
    assert alone[0] == pytest.approx(1.0, abs=0.01)
    there = found.of["there"]
    k, level = there.strength, there.usual
    over = (k + 0.5 * 40) / (k + 0.5 * 10 * level)
    assert over > 1.3
    assert both[0] == pytest.approx(found.of["here"].usual * over, rel=1e-4)


def test_a_placement_that_is_gone_is_left_out() -> None:
    assert set(correct(counted({"gone": [(1, 1.0)], "top": [(1, 1.0)]}), {"top": [1000]}).of) == {"top"}


def test_the_strength_is_that_of_the_scatter() -> None:
    chance = np.random.default_rng(1)
    for true_strength in (2.0, 8.0, 40.0):
        expected = chance.uniform(1, 60, 4_000)
        clicked = chance.poisson(expected * chance.gamma(true_strength, 1 / true_strength, 4_000)).astype(float)
        assert estimate_strength(clicked, expected) == pytest.approx(true_strength, rel=0.15)
    no_scatter = chance.poisson(np.full(20_000, 50.0)).astype(float)
    assert estimate_strength(no_scatter, np.full(20_000, 50.0)) > 300, "where the model is right it is left alone"
    assert estimate_strength(np.full(9, 10_000.0), np.full(9, 1.0)) == STRENGTH_MIN
    assert estimate_strength(np.full(9, 50.0), np.full(9, 50.0), fitted_count=5) == STRENGTH, "no telling"
    assert estimate_strength(np.full(9_999, 50.0), np.full(9_999, 50.0)) == STRENGTH_MAX


@pytest.mark.parametrize("seed", range(3))
def test_on_simulated_clicks_predictions_come_true(seed: int) -> None:
    """A model off by a half in general and by its own noise per product; pages show what is thought best."""
    chance = np.random.default_rng(seed)
    rate = np.clip(chance.lognormal(np.log(0.03), 0.6, 300), 0.001, 0.5)
    predicted = np.clip(rate * 0.6 * chance.lognormal(0, 0.5, 300), 0.0005, 0.5)
    shelf = Shelf(rate, predicted, np.array([1.0, 0.7, 0.5, 0.35]), chance)
    quality = predicted
    gaps = []
    for _ in range(60):
        shelf.show(500, quality, scatter=0.3)
        found = correct(shelf.counters.read(NOW_MS), {"top": permille(shelf.attention)})
        row_of = np.array([int(one[1:]) for one in found.product_ids], np.int32)
        quality = np.clip(predicted * found.of["top"].factors_ppm(300, row_of) / 1e6, 1e-6, 1)
        shown = np.zeros(300)
        shown[row_of] = shelf.counters.read(NOW_MS).placements[0].shown[1:].sum(1)
        gaps.append(float(np.average(np.abs(np.log(quality / rate)), weights=shown)))
    seen = calibration_of(shelf.counters.watched()[0])
    assert seen.clicks > 1_000
    assert seen.is_sound, seen
    assert gaps[-1] < 0.5 * gaps[0], "and of what is shown, the rates themselves are found"


def test_the_watch_sees_a_model_that_is_off() -> None:
    chance = np.random.default_rng(5)
    rate = np.full(50, 0.1)
    shelf = Shelf(rate, rate * 1.2, np.array([1.0, 0.5]), chance)
    shelf.show(12_000, rate * 1.2, scatter=1.0)
    seen = calibration_of(shelf.counters.watched()[0])
    assert seen.is_sound is False
    assert seen.ratio_high is not None
    assert seen.ratio_high < 0.95
    nothing = ClickCounters(Settings())
    nothing.note_shown("top", "p1", 1, 10_000, 10_000)
    assert calibration_of(nothing.watched()[0]).is_sound is None, "too few clicks to say"


class TestDraws:
    correction = Correction(1.5, 4.0, np.array([0], np.int32), np.array([400.0]), np.array([200.0]))
    row_of = np.array([2], np.int32)

    def test_a_seed_draws_the_same_again_and_another_another(self) -> None:
        draws = [self.correction.drawn_ppm(500, self.row_of, seed).tolist() for seed in (7, 7, 8)]
        assert draws[0] == draws[1] != draws[2]

    def test_draws_scatter_as_far_as_it_is_unknown_and_no_further_than_half_and_twice(self) -> None:
        drawn = np.array([self.correction.drawn_ppm(5, self.row_of, seed) for seed in range(4_000)]) / 1e6
        known, unknown = drawn[:, 2], drawn[:, 0]
        assert known.mean() == pytest.approx(2.0, rel=0.01)
        assert known.std() == pytest.approx(2.0 / 20, rel=0.1)
        assert unknown.std() > 3 * known.std() / 2 * 1.5
        assert 0.75 <= unknown.min() <= unknown.max() <= 3.0

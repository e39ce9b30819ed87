"""Attention learnt from clicks: the truth where it is known, apart from how good products are, within intervals."""

import numpy as np
import pytest

from affinity.attention import estimate_attention, fit_log_attention
from affinity.clicks import ClickCounters, PlacementClicks
from affinity.settings import Settings
from tests.affinity.shown import Shelf, permille

NOW_MS = 1_790_000_000_000
TRUTH = np.array([1.0, 0.6, 0.45, 0.3, 0.2])
BELIEVED = [1000, 850, 722, 614, 522]


def drawn(seed: int, page_count: int, scatter: float = 0.8) -> PlacementClicks:
    """Clicks on pages with the best products on top; the model takes them all to be alike."""
    chance = np.random.default_rng(seed)
    rate = np.clip(chance.lognormal(np.log(0.05), 0.6, 80), 0.002, 0.6)
    shelf = Shelf(rate, np.full(80, 0.05), TRUTH, chance)
    shelf.show(page_count, rate, scatter)
    (clicks,) = shelf.counters.read(NOW_MS).placements
    return clicks


def test_the_true_attention_is_found_though_good_products_stand_on_top() -> None:
    clicks = drawn(1, 30_000)
    slots = estimate_attention(clicks, BELIEVED)
    found = [slot.estimate_permille for slot in slots]
    assert found == pytest.approx(permille(TRUTH), rel=0.12)
    in_slot = clicks.clicked[:, :5].sum(0) / clicks.shown[:, :5].sum(0)
    naive = 1000 * in_slot / in_slot[0]
    gap = np.abs(np.log(np.array(found, float) / 1000 / TRUTH)).max()
    assert np.abs(np.log(naive / 1000 / TRUTH)).max() > 2 * gap, "clicks per showing mistake products for slots"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = of = 0
    for seed in range(40):
        for slot, true in list(zip(estimate_attention(drawn(100 + seed, 2_000), BELIEVED), TRUTH, strict=True))[1:]:
            assert slot.low_permille is not None
            assert slot.high_permille is not None
            inside += slot.low_permille <= 1000 * true <= slot.high_permille
            of += 1
    assert 0.89 <= inside / of <= 0.995, inside / of


def test_where_products_keep_their_places_it_says_that_it_cannot_tell() -> None:
    """Only the model's prediction tells product from slot there, and it is off by what is expected of it at first."""
    inside, widths = [], []
    for seed in range(20):
        first, second, *_ = estimate_attention(drawn(200 + seed, 2_000, scatter=0.0), BELIEVED)
        for slot in (first, second):
            assert slot.low_permille is not None
            assert slot.high_permille is not None
        assert second.low_permille
        assert first.estimate_permille
        low, high = (end / first.estimate_permille for end in (second.low_permille, second.high_permille))
        inside.append(low <= TRUTH[1] <= high)
        widths.append(np.log(high / low))
    assert np.mean(widths) > 1.0, "a factor of e between the ends"
    assert np.mean(inside) >= 0.7


def test_the_proposal_never_rises_and_keeps_the_best_slots_level() -> None:
    chance = np.random.default_rng(4)
    shelf = Shelf(np.full(40, 0.1), np.full(40, 0.1), np.array([0.5, 0.25, 0.4]), chance)
    shelf.show(8_000, np.full(40, 0.1), scatter=1.0)
    (clicks,) = shelf.counters.read(NOW_MS).placements
    slots = estimate_attention(clicks, [800, 700, 600, 500])
    proposed = [slot.proposed_permille for slot in slots]
    assert proposed[0] == 800
    assert proposed[1] == proposed[2] == pytest.approx(800 * 0.65, rel=0.1)
    assert slots[2].estimate_permille == pytest.approx(640, rel=0.1)
    assert proposed == sorted(proposed, reverse=True)
    assert (slots[3].estimate_permille, slots[3].proposed_permille) == (None, 500), "nothing was shown there"


def test_without_clicks_nothing_is_proposed_but_what_is_set() -> None:
    counted = ClickCounters(Settings())
    counted.note_shown("top", "p1", 1, 10_000, 10_000)
    (clicks,) = counted.read(NOW_MS).placements
    slots = estimate_attention(clicks, [1000, 700])
    assert [(slot.estimate_permille, slot.proposed_permille) for slot in slots] == [(None, 1000), (None, 700)]


def test_the_information_is_the_curvature_of_the_likelihood() -> None:
    """Against differences of the marginal log-likelihood, the product's liking integrated out."""
    clicks = drawn(6, 3_000)
    predicted, clicked = clicks.predicted[1:, :5], clicks.clicked[1:, :5]
    log_attention, information = fit_log_attention(predicted, clicked, np.array(BELIEVED) / 1000)
    from affinity.correction import estimate_strength

    total = clicked.sum(1)
    level = total.sum() / (predicted @ np.exp(log_attention)).sum()
    strength = estimate_strength(total, predicted @ np.exp(log_attention) * level, 5)

    def likelihood(at: np.ndarray) -> float:
        expected = predicted @ np.exp(at) * level
        return float((clicked.sum(0) * at).sum() - ((total + strength) * np.log(strength + expected)).sum())

    step = 1e-3
    shift = np.eye(5) * step
    slopes = [(likelihood(log_attention + one) - likelihood(log_attention - one)) / (2 * step) for one in shift]
    per_click = np.array(slopes) / clicked.sum(0)
    assert np.ptp(per_click) < 1e-4, "of the slots beside one another it is at the top"
    for one in range(5):
        for other in range(5):
            bend = (
                likelihood(log_attention + shift[one] + shift[other])
                - likelihood(log_attention + shift[one] - shift[other])
                - likelihood(log_attention - shift[one] + shift[other])
                + likelihood(log_attention - shift[one] - shift[other])
            ) / (4 * step * step)
            assert -bend == pytest.approx(information[one, other], rel=0.02, abs=0.5)

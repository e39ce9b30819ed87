"""Models: what goes with what is found, probabilities are monotone, files are versioned."""

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from affinity.calibration import apply_monotone, back_off, expected_calibration_error, fit_monotone
from affinity.cases import gather_cases
from affinity.catalog import Product
from affinity.errors import ModelRefused, TrainingRefused
from affinity.kernel import FEATURE_COUNT
from affinity.matching import Happening
from affinity.model import AffinityModel, Ranker, active_model, is_worse, load_model, neutral_model
from affinity.navigation import Action
from affinity.navigation_log import LogLine, NavigationLog
from affinity.rank import CatalogueRanker, Trained, evaluate, train
from affinity.sessions import SESSION_GAP_MS, is_between_sessions, read_sessions, read_trail
from affinity.train import START, Fitted, make_index, parameters, plain, train_model
from tests.affinity.naive import rank_visitor

NOW_MS = 1_700_000_000_000


def looks(visitor: int, *products: str, at_ms: int = NOW_MS, action: str = "view_item") -> list[LogLine]:
    return [
        LogLine(visitor.to_bytes(16), at_ms + place * 1000, action, 0, product)
        for place, product in enumerate(products)
    ]


def happenings(*products: str, at_ms: int = NOW_MS, action: Action = Action.VIEW_ITEM) -> list[Happening]:
    return [Happening(at_ms + place * 1000, action, product) for place, product in enumerate(products)]


def shop(session_count: int = 400) -> list[LogLine]:
    """Visitors who look at a tent look at a lamp next; who looks at a pan, at a pot."""
    rng = random.Random(3)
    lines = []
    for visitor in range(session_count):
        noise = f"n{rng.randrange(40)}"
        pair = ("tent", "lamp") if visitor % 2 else ("pan", "pot")
        lines += looks(visitor, noise, *pair, at_ms=NOW_MS + visitor * 10_000)
    return lines


@pytest.fixture(scope="module")
def model() -> AffinityModel:
    return train_model(read_sessions(shop(), 1_000), NOW_MS)


def test_what_goes_together_is_ranked_first(model: AffinityModel) -> None:
    ranker = CatalogueRanker(model, [], NOW_MS)
    for seen, wanted in (("tent", "lamp"), ("pan", "pot")):
        ranking = ranker.rank({"navigation": [{"action": "view_item", "product_id": seen}], "limit": 3})
        assert ranking.product_ids[0] == wanted
        assert ranking.scores == sorted(ranking.scores, reverse=True)
        assert len(ranking.product_ids) == 3


def test_a_ranking_is_of_the_catalogue_and_always_as_long_as_asked(model: AffinityModel) -> None:
    catalogue = [Product(product_id=one) for one in ("lamp", "pot", "never-seen", "n1")]
    ranking = CatalogueRanker(model, catalogue, NOW_MS).rank({"navigation": [{"product_id": "tent"}], "limit": 20})
    assert ranking.product_ids[0] == "lamp"
    assert sorted(ranking.product_ids) == sorted(product.product_id for product in catalogue)
    nothing_known = CatalogueRanker(model, [], NOW_MS).rank({"limit": 5})
    assert len(nothing_known.product_ids) == 5
    with pytest.raises(msgspec.ValidationError):
        CatalogueRanker(model, [], NOW_MS).rank({"navigation": [{"product_id": 3}]})


def test_who_looked_at_a_product_never_seen_before_is_shown_its_brand_then_its_category(model: AffinityModel) -> None:
    catalogue = [
        Product(product_id="new-pan", product_type="Kitchen", brand="Iron"),
        Product(product_id="new-pot", product_type="Kitchen", brand="Iron"),
        Product(product_id="pot", product_type="Kitchen", brand="Clay"),
        Product(product_id="tent", product_type="Camping", brand="Iron"),
    ]
    ranker = CatalogueRanker(model, catalogue, NOW_MS)
    cold = ranker.rank({"navigation": [{"product_id": "new-pan"}]})
    assert cold.product_ids == ["new-pan", "new-pot", "pot", "tent"]
    listed = ranker.rank({"navigation": [{"action": "view_item_list", "category_id": "Camping"}], "limit": 1})
    assert listed.product_ids == ["tent"]


def test_validation_figures_lie_beside_the_model(model: AffinityModel) -> None:
    assert model.metrics["recall_at_20"] > 0.5
    assert model.metrics["session_count"] == 400
    assert 0.5 < model.metrics["calibration_ratio"] < 2


def test_a_visitors_qualities_are_above_the_base_and_only_theirs(model: AffinityModel) -> None:
    bound = model.bind(["new", "pot", "lamp", "tent"])
    assert ((bound.base_quality_ppm >= 1) & (bound.base_quality_ppm <= 1_000_000)).all()
    ranked = bound.rank_visitor(happenings("tent"), NOW_MS)
    rows = ranked.product_row.tolist()
    assert rows == sorted(rows)
    assert 2 in rows
    assert 0 not in rows
    own = dict(zip(rows, ranked.quality_ppm.tolist(), strict=True))
    assert own[2] > 2 * bound.base_quality_ppm[2]
    assert all(quality >= bound.base_quality_ppm[row] for row, quality in own.items())
    assert ranked.affinity.max() == 1
    assert not len(bound.rank_visitor([], NOW_MS).product_row)
    assert bound.rows_of(["tent", "nothing", "pot"]).tolist() == [1, 3]


def test_what_was_bought_before_is_bought_again() -> None:
    rng = random.Random(7)
    lines = []
    for visitor in range(150):
        staples = [f"s{number}" for number in rng.sample(range(60), 3)]
        for week in range(6):
            basket = [*staples, f"x{rng.randrange(60)}"]
            rng.shuffle(basket)
            lines += looks(visitor, *basket, at_ms=NOW_MS + week * 604_800_000 + visitor, action="purchase")
    model = train_model(read_sessions(lines, 10_000), NOW_MS)
    bound = model.bind(model.product_ids)
    week_ms = 604_800_000
    bought = happenings("s1", "s2", "x9", action=Action.PURCHASE)
    bought += happenings("s2", "x8", "s1", at_ms=NOW_MS + week_ms, action=Action.PURCHASE)
    ranked = bound.rank_visitor(bought, NOW_MS + 2 * week_ms)
    best = {model.product_ids[ranked.product_row[place]] for place in np.argsort(-ranked.affinity)[:3]}
    assert {"s1", "s2"} <= best


def test_the_kernel_agrees_with_the_plain_ranking() -> None:
    rng = random.Random(11)
    names = ["a", "b", "c", "d", "e", "f"]
    for round_number in range(30):
        lines = []
        for visitor in range(25):
            for session in range(rng.randrange(1, 4)):
                chosen = rng.choices(names, k=rng.randrange(1, 6))
                action = rng.choice(["view_item", "purchase"])
                lines += looks(visitor, *chosen, at_ms=NOW_MS + visitor * 10_000 + session * 10**9, action=action)
        sessions = read_sessions(lines, 1_000)
        random_weights = np.random.default_rng(round_number).normal(size=FEATURE_COUNT) / 4
        fitted = [Fitted(parameters(START), random_weights, plain(START).knot)] * 2
        small = AffinityModel(make_index(sessions, NOW_MS, fitted), {})
        events = [
            one
            for begin in range(rng.randrange(3))
            for one in happenings(*rng.choices([*names, "unknown"], k=4), at_ms=NOW_MS + begin * 10**9)
        ]
        expected = rank_visitor(small.learnt, events, NOW_MS)
        item, share, _ = Ranker(small).rank(events, NOW_MS)
        got = dict(zip(item.tolist(), share.tolist(), strict=True))
        assert got.keys() == expected.keys()
        for one, value in got.items():
            assert value == pytest.approx(expected[one], rel=1e-3, abs=1e-6)
        assert share.tolist() == sorted(share.tolist(), reverse=True)


def test_a_saved_model_ranks_as_before(model: AffinityModel, tmp_path: Path) -> None:
    path = model.save(tmp_path)
    assert active_model(tmp_path) == path
    again = load_model(path)
    assert again.metrics == model.metrics
    assert again.bind(["tent"]).name == path.stem
    assert neutral_model(["tent"]).name == "neutral"
    line = {"navigation": [{"product_id": "tent"}], "limit": 10}
    assert CatalogueRanker(again, [], NOW_MS).rank(line) == CatalogueRanker(model, [], NOW_MS).rank(line)
    assert b"\x00" * 15 + b"\x01" not in path.read_bytes().replace(b"\x00", b"")  # no visitor in it


def test_a_damaged_model_is_refused(model: AffinityModel, tmp_path: Path) -> None:
    path = model.save(tmp_path)
    raw = path.read_bytes()
    for damage in (b"", raw[: len(raw) // 2], b"not a model"):
        path.write_bytes(damage)
        with pytest.raises(ModelRefused):
            load_model(path)
    with pytest.raises(ModelRefused):
        load_model(tmp_path / "gone.npz")


def test_nothing_to_learn_from_is_refused_and_one_session_is_enough() -> None:
    with pytest.raises(TrainingRefused):
        train_model(read_sessions([], 10), NOW_MS)
    one = train_model(read_sessions(looks(1, "a", "b"), 10), NOW_MS)
    assert CatalogueRanker(one, [], NOW_MS).rank({"navigation": [{"product_id": "a"}]}).product_ids[0] == "b"
    assert one.learnt.parameter[0][0] == START[0]


def test_training_and_evaluating_read_the_log(tmp_path: Path) -> None:
    log = NavigationLog(tmp_path / "navigation", 10_000)
    log.append(shop(), NOW_MS)
    trained = train(log, tmp_path / "models", NOW_MS, lambda done, total: None)
    assert trained.path.exists()
    assert trained.path.with_suffix(".json").exists()
    assert trained.metrics["product_count"] > 4
    evaluation = evaluate(log, NOW_MS, lambda done, total: None, 3)
    assert evaluation.held_out_session_count == 40
    ours, best_sellers = evaluation.figures["this model"], evaluation.figures["best-sellers"]
    assert ours["recall_at_3"] > 0.5
    assert ours["mrr_at_3"] > best_sellers["mrr_at_3"]


def test_a_worse_model_is_not_put_in_use_unless_forced(tmp_path: Path) -> None:
    good, noise = NavigationLog(tmp_path / "good", 10_000_000), NavigationLog(tmp_path / "noise", 10_000_000)
    good.append(shop(), NOW_MS)
    rng = random.Random(5)
    for visitor in range(400):
        noise.append(looks(visitor, *(f"n{rng.randrange(90)}" for _ in range(3)), at_ms=NOW_MS + visitor), NOW_MS)
    folder = tmp_path / "models"

    def run(log: NavigationLog, now_ms: int, *, is_forced: bool = False) -> Trained:
        return train(log, folder, now_ms, lambda done, total: None, START, is_forced=is_forced)

    first = run(good, NOW_MS)
    again = run(good, NOW_MS + 1)
    assert again.is_active  # no worse
    assert active_model(folder) == again.path != first.path
    worse = run(noise, NOW_MS + 2)
    assert not worse.is_active
    assert worse.path.exists()
    assert active_model(folder) == again.path
    forced = run(noise, NOW_MS + 3, is_forced=True)
    assert forced.is_active
    assert active_model(folder) == forced.path
    assert run(good, NOW_MS + 4).is_active


def test_a_model_that_could_not_be_checked_is_worse_than_one_that_could() -> None:
    checked = {"case_count": 100.0, "recall_at_20": 0.3, "mrr_at_20": 0.1, "standard_error": 0.05}
    assert is_worse({}, checked)
    assert not is_worse(checked, {})
    assert not is_worse({**checked, "recall_at_20": 0.2}, checked)  # may be chance
    assert is_worse({**checked, "recall_at_20": 0.1}, checked)


def test_things_bought_together_are_foreseen_as_one_basket_by_what_was_bought_before() -> None:
    week_ms = 604_800_000
    lines = looks(1, "milk", "bread", action="purchase")
    lines += looks(1, "tea", at_ms=NOW_MS + week_ms)
    lines += looks(1, "milk", "tea", "jam", at_ms=NOW_MS + week_ms + 60_000, action="purchase")
    sessions = read_sessions(lines, 10)
    names = sessions.product_ids
    within, between = gather_cases(sessions, 1, 10)
    assert len(within) == 1  # milk follows the look at tea; what is bought with it does too
    assert sorted(names[item] for item in within.target) == ["jam", "milk", "tea"]
    assert len(between) == 1  # tea, the first thing looked at
    assert [names[item] for item in between.target] == ["tea"]
    assert [names[item] for item in between.trail.item] == ["milk", "bread"]
    assert between.trail.back.tolist() == [0, 0]
    assert [names[item] for item in within.trail.item] == ["milk", "bread", "tea"]
    assert within.trail.back.tolist() == [1, 1, 0]
    assert within.trail.age.tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-3)


def test_who_has_bought_or_was_away_begins_anew() -> None:
    looked = happenings("a")
    assert not is_between_sessions(looked, NOW_MS + SESSION_GAP_MS)
    assert is_between_sessions(looked, NOW_MS + SESSION_GAP_MS + 1)
    assert is_between_sessions([*looked, *happenings("a", at_ms=NOW_MS + 1, action=Action.PURCHASE)], NOW_MS + 2)
    assert is_between_sessions([], NOW_MS)


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_pause_of_half_an_hour_begins_another_session() -> None:
    lines = (
        looks(1, "a")
        + looks(1, "b", at_ms=NOW_MS + SESSION_GAP_MS)
        + looks(1, "c", at_ms=NOW_MS + 2 * SESSION_GAP_MS + 1)
    )
    sessions = read_sessions(reversed(lines), 10)
    assert [sessions.product_ids[item] for item in sessions.item] == ["a", "b", "c"]
    assert sessions.first.tolist() == [0, 2, 3]


def test_what_is_seen_then_bought_is_one_event_but_looking_again_is_two() -> None:
    lines = (
        looks(1, "a", "a")
        + looks(1, "a", at_ms=NOW_MS + 5_000, action="purchase")
        + looks(2, "b", at_ms=NOW_MS + 9_000)
    )
    sessions = read_sessions(lines, 10)
    assert sessions.first.tolist() == [0, 2, 3]
    assert sessions.weight[:2].tolist() == pytest.approx([0.1, 1.0])
    events = happenings("a", "a") + happenings("a", at_ms=NOW_MS + 5_000, action=Action.PURCHASE)
    events += happenings("a", at_ms=NOW_MS + 6_000, action=Action.ADD_TO_CART)
    trail = read_trail(events, {"a": 0})
    assert trail.item.tolist() == [0, 0]
    assert trail.weight.tolist() == pytest.approx([0.1, 1.0])


def test_only_the_youngest_sessions_are_kept() -> None:
    lines = [line for visitor in range(9) for line in looks(visitor, f"p{visitor}", at_ms=NOW_MS + visitor)]
    sessions = read_sessions(lines, 4)
    assert [sessions.product_ids[item] for item in sessions.item] == ["p5", "p6", "p7", "p8"]


# --- calibration -------------------------------------------------------------------------------------------------


def test_calibration_never_lowers_a_probability_for_a_higher_score() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(20_000)
    outcome = (rng.random(20_000) < score**2 / 2).astype(float)
    knots = fit_monotone(score, outcome)
    grid = apply_monotone(knots, np.linspace(-1, 2, 300))
    assert (np.diff(grid) >= 0).all()
    assert len(knots[0]) <= 64
    assert expected_calibration_error(apply_monotone(knots, score), outcome) < 0.01
    assert outcome.sum() / apply_monotone(knots, score).sum() == pytest.approx(1, abs=0.02)


def test_a_product_seen_little_has_its_groups_rate() -> None:
    clicks, seen = np.array([300.0, 0.0, 5_000.0, 0.0]), np.array([10_000.0, 10.0, 100_000.0, 0.0])
    group = np.array([0, 0, 1, 2])
    rate = back_off(clicks, seen, group, 0.01)
    assert rate[0] == pytest.approx(0.03, rel=0.05)
    assert 0.02 < rate[1] < 0.04
    assert rate[2] == pytest.approx(0.05, rel=0.05)
    assert rate[3] == pytest.approx(clicks.sum() / seen.sum(), rel=0.05)


def test_without_any_model_every_product_is_alike() -> None:
    bound = neutral_model(["a", "b"])
    assert bound.base_quality_ppm.tolist() == [10_000, 10_000]
    assert not len(bound.rank_visitor(happenings("a"), NOW_MS).product_row)


def test_parameters_found_before_are_used_as_they_are() -> None:
    again = train_model(read_sessions(shop(), 1_000), NOW_MS, tuned=START)
    assert again.learnt.parameter.tolist() == [[START[place] for place in range(len(START))]] * 2
    assert again.metrics["recall_at_20"] > 0.5

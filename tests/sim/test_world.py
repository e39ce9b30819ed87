"""A world is what its seed says, and its visitors have tastes one can see."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sim.errors import ScenarioRefused
from sim.scenario import Scenario, convert_scenario
from sim.world import build_world, local_midnights_ms, session_starts, shipped_catalogue
from tests.sim.test_scenario import smallest

SMALL = {"product_count": 300, "category_count": 6, "brand_count": 12, "visitor_count": 50}


def scenario(**changes: object) -> Scenario:
    return convert_scenario(smallest(**changes), "here")


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first, again = build_world(scenario(world=SMALL), 5), build_world(scenario(world=SMALL), 5)
    assert first.products == again.products
    assert first.price_micros.tolist() == again.price_micros.tolist()
    assert first.liked_category.tolist() == again.liked_category.tolist()
    assert build_world(scenario(world=SMALL), 6).price_micros.tolist() != first.price_micros.tolist()


def test_visitors_click_what_they_like_and_the_sensitive_click_what_is_cheap() -> None:
    world = build_world(scenario(world=SMALL), 5)
    rows = np.arange(300, dtype=np.int64)
    visitor = int(world.sensitivity_ppm.argmax())
    clicks = world.true_click_ppm(visitor, rows)
    per_appeal = clicks * 1_000_000 // world.appeal_ppm
    liked = world.product_category == world.liked_category[visitor, 0]
    assert per_appeal[liked].mean() > 1.5 * per_appeal[~liked].mean()
    cheap, dear = int(world.price_rank_ppm.argmin()), int(world.price_rank_ppm.argmax())
    assert world.true_order_ppm(visitor, cheap) > world.true_order_ppm(visitor, dear)
    assert clicks.min() >= 1
    assert clicks.max() <= 600_000


def test_predictions_without_noise_are_the_truth() -> None:
    world = build_world(scenario(world={**SMALL, "quality_noise_ppm": 0}), 5)
    rows = world.assortment[2]
    true_ppm = world.true_click_ppm(3, rows)
    assert world.predicted_click_ppm(true_ppm, rows).tolist() == true_ppm.tolist()


def test_the_average_product_is_clicked_as_often_as_the_scenario_says() -> None:
    world = build_world(scenario(world={**SMALL, "product_count": 20_000}), 5)
    assert abs(int(world.appeal_ppm.mean()) - 1_000_000) < 20_000


def test_sessions_come_in_order_and_at_the_hours_people_shop() -> None:
    busy = scenario(traffic={"sessions_per_day": 4000, "hour_weights": [0] * 20 + [3, 1, 0, 0], "time_zone": "UTC"})
    starts = session_starts(busy.traffic, 50, 1)
    assert starts == sorted(starts, key=lambda start: (start.at_ms, start.visitor_row))
    hours = np.bincount([datetime.fromtimestamp(start.at_ms / 1000, UTC).hour for start in starts], minlength=24)
    assert hours[20] + hours[21] == 4000
    assert abs(hours[20] - 3000) < 4 * 27


def test_a_day_with_a_clock_change_has_its_own_length() -> None:
    spring = scenario(traffic={"starts_on": "2026-03-29", "days": 2})
    first, second, third = local_midnights_ms(spring.traffic)
    assert second - first == 23 * 3_600_000
    assert third - second == 24 * 3_600_000
    assert all(first <= start.at_ms < third for start in session_starts(spring.traffic, 5, 1))


def test_a_feed_of_ones_own_is_a_catalogue_and_a_bad_one_is_refused_by_line(tmp_path: Path) -> None:
    feed = tmp_path / "feed.tsv"
    head = "id\ttitle\tprice\tbrand\tproduct_type\n"
    feed.write_text(head + "a\tMilk\t1.20 EUR\tDale\tDairy > Milk\nb\tOat\t2.00 EUR\tMoor\tDairy > Milk > Oat\n")
    raw = smallest(world={"catalogue": "feed.tsv", "visitor_count": 5})
    world = build_world(convert_scenario(raw, "here", tmp_path), 1)
    assert [product.product_id for product in world.products] == ["a", "b"]
    assert world.category_id == ["Dairy > Milk"]
    feed.write_text(head + "a\tMilk\tfree\tDale\tDairy > Milk\n")
    with pytest.raises(ScenarioRefused, match=r"feed\.tsv: line 2: "):
        build_world(convert_scenario(raw, "here", tmp_path), 1)


@pytest.mark.skipif(shipped_catalogue() is None, reason="the demo's catalogue is not installed")
def test_the_shipped_catalogue_is_a_world_with_popular_products() -> None:
    world = build_world(scenario(world={"catalogue": "shipped", "visitor_count": 5}), 1)
    assert len(world.products) > 1000
    sold = [int(product.attributes["lines_sold"]) for product in world.products]
    assert world.appeal_ppm[int(np.argmax(sold))] == world.appeal_ppm.max()

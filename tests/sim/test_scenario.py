"""A scenario that cannot be is refused by a sentence that says what and where."""

from pathlib import Path
from typing import Any

import pytest

from sim.errors import ScenarioRefused
from sim.scenario import convert_scenario, read_scenario, scenario_hash, shipped_names


def smallest(**changes: Any) -> dict[str, Any]:
    return {
        "name": "smallest",
        "seed": 1,
        "sentence": "The smallest scenario there is.",
        "placements": [{"placement_id": "top", "page_types": ["category"], "slot_count": 1}],
        "bidders": [{"policy": "truthful"}],
        **changes,
    }


def test_every_shipped_scenario_is_accepted() -> None:
    assert len(shipped_names()) >= 3
    for name in shipped_names():
        assert read_scenario(name).name == name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sed": 2}, "the top level: unknown key `sed`; did you mean `seed`?"),
        ({"world": {"product_cuont": 5}}, "world: unknown key `product_cuont`; did you mean `product_count`?"),
        ({"world": {"product_count": -5}}, "world.product_count: expected `int` >= 2"),
        (
            {"world": {"product_count": 10, "category_count": 11, "brand_count": 2}},
            "world.category_count: must be at most",
        ),
        ({"world": {"catalogue": "gone.tsv"}}, "world.catalogue: must be synthetic, shipped or a feed file"),
        ({"traffic": {"starts_on": "2026-02-30"}}, "traffic.starts_on: must be a date of the calendar"),
        ({"traffic": {"time_zone": "Mars/North"}}, "traffic.time_zone: must be a zone"),
        ({"traffic": {"hour_weights": [1, 2]}}, "traffic.hour_weights: must be 24 weights"),
        ({"traffic": {"days": 2, "day_weights": [1]}}, "traffic.day_weights: must be 2 weights"),
        ({"traffic": {"days": 300, "sessions_per_day": 100_000}}, "traffic: days times sessions_per_day"),
        ({"clicks": {"click_ppm": 600_000}}, "clicks.click_ppm: expected `int` <= 500000"),
        ({"clicks": {"click_ppm": float("nan")}}, "clicks.click_ppm: expected `int`, got `float`"),
        ({"bidders": [{"policy": "shaded"}]}, "bidders[0]: a shaded bidder needs share_ppm"),
        ({"bidders": [{"policy": "paced"}]}, "bidders[0]: a paced bidder needs daily_budget_micros"),
        ({"bidders": [{"policy": "target-roas"}]}, "bidders[0]: a target-roas bidder needs target_roas_ppm"),
        (
            {"bidders": [{"policy": "click-fraud", "share_ppm": 5}]},
            "bidders[0]: a click-fraud bidder needs rival_click_ppm",
        ),
        ({"bidders": [{"policy": "truthful", "target_roas_ppm": 5}]}, "bidders[0].target_roas_ppm: expected `int` >="),
        ({"placements": []}, "placements: expected `array` of length >= 1"),
        (
            {"placements": [{"placement_id": "a", "page_types": ["cart"], "slot_count": 1}]},
            "placements[0].page_types: simulated visitors open home, category, search, product, not cart",
        ),
        (
            {"placements": [{"placement_id": "a", "page_types": ["home"], "slot_count": 1}] * 2},
            "placements[1].placement_id: must be unique",
        ),
        (
            {
                "placements": [
                    {"placement_id": "a", "page_types": ["home"], "slot_count": 1, "pricing": "vcg"},
                    {"placement_id": "b", "page_types": ["home"], "slot_count": 1, "allocation": "exact"},
                ]
            },
            "placements: all of a page must have the same allocation, the home page would have both",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ScenarioRefused) as refused:
        convert_scenario(smallest(**changes), "mine.toml")
    assert str(refused.value).startswith(f"mine.toml: {sentence}")
    assert refused.value.exit_code == 2


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("name = [")
    with pytest.raises(ScenarioRefused, match=r"broken\.toml: is not TOML"):
        read_scenario(broken)
    with pytest.raises(ScenarioRefused, match="no shipped scenario of that name: grocer"):
        read_scenario("gracer")


def test_the_hash_is_of_the_market_and_not_of_its_name() -> None:
    plain = scenario_hash(convert_scenario(smallest(), "a"))
    assert plain == scenario_hash(convert_scenario(smallest(name="other", seed=9), "b"))
    assert plain != scenario_hash(convert_scenario(smallest(clicks={"click_ppm": 41_000}), "c"))

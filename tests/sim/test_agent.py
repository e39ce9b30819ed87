"""Agents bid what their policy says of what a click is worth to them, on products they may bid on."""

from collections import Counter

from sim.agent import make_agents
from sim.world import build_world
from tests.sim.test_world import SMALL, scenario

GROUPS = [
    {"policy": "truthful", "count": 3, "products_each": 5, "margin_spread_ppm": 0},
    {"policy": "shaded", "share_ppm": 500_000, "count": 2, "products_each": 5, "charge_on": "impression"},
]


def test_a_bid_is_margin_times_price_times_the_chance_of_an_order() -> None:
    market = scenario(world=SMALL, bidders=GROUPS)
    world = build_world(market, 5)
    agent = make_agents(market, world, 5)[0]
    agent.decide(0, 0)
    for bid, row in zip(agent.bids(world, 2), agent.product_rows, strict=True):
        assert bid.product_ids == [world.products[row].product_id]
        assert bid.bid_micros == int(world.price_micros[row]) * 300_000 // 1_000_000 * 80_000 // 1_000_000


def test_a_bid_per_thousand_impressions_divides_into_whole_micros() -> None:
    market = scenario(world=SMALL, bidders=GROUPS)
    world = build_world(market, 5)
    agent = make_agents(market, world, 5)[3]
    agent.decide(0, 0)
    bids = agent.bids(world, 2)
    assert bids
    assert all(bid.bid_micros % 1000 == 0 and bid.bid_micros > 0 for bid in bids)


def test_brands_are_dealt_out_and_nobody_bids_on_the_house_brand() -> None:
    market = scenario(world=SMALL, bidders=[{"policy": "truthful", "count": 30}])
    world = build_world(market, 5)
    agents = make_agents(market, world, 5)
    dealt = Counter(agent.brand for agent in agents)
    assert "House brand" not in dealt
    assert max(dealt.values()) - min(dealt.values()) <= 1
    for agent in agents:
        assert {world.products[row].brand for row in agent.product_rows} == {agent.brand}


def test_a_share_of_nothing_takes_no_part() -> None:
    market = scenario(world=SMALL, bidders=GROUPS)
    world = build_world(market, 5)
    agent = make_agents(market, world, 5)[0]
    assert agent.bids(world, 1) == []

"""Multipliers: at most 1 whatever happens, and bids paced under the floor sold in part of the auctions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from auction.loss import LossReason
from auction.pacing import Pacing
from auction.placement import Floors
from tests.auction.worlds import World, bid, placement, request, source

amounts = st.floats(-1e12, 1e12, allow_nan=False)


@given(
    st.lists(st.tuples(amounts, amounts, amounts, st.floats(0, 1), st.floats(0, 1)), max_size=30), st.integers(1, 10**6)
)
def test_no_history_raises_a_bid_above_its_cap(
    steps: list[tuple[float, float, float, float, float]], bid_micros: int
) -> None:
    pacing = Pacing(1, 10_000)
    yes = np.array([True])
    for used, plan, value, passed, left in steps:
        pacing.add_value(0, value, abs(used))
        pacing.step(yes, np.array([used]), np.array([plan]), np.array([passed]), np.array([left]))
        pacing.step_roas(yes, np.array([1.0]), passed)
        factor = int(pacing.factor_ppm()[0])
        assert 10_000 <= factor <= 1_000_000
        assert bid_micros * factor // 1_000_000 <= bid_micros


class TestUnderTheFloor:
    def world(self, pacing_ppm: int) -> World:
        world = World(
            source(
                placements=[placement(slot_count=1, floor_micros=Floors(click=400_000))], bids=[bid("bid_1", ["p1"])]
            )
        )
        world.spend.pacing_ppm[:] = pacing_ppm
        return world

    def test_a_lowered_bid_above_the_floor_takes_part_always(self) -> None:
        world = self.world(400_000)
        won = [world.winners(world.hold(request(), tie_seed=seed)) for seed in range(100)]
        assert won == [[("p1", 400_000)]] * 100

    def test_under_it_the_floor_is_bid_in_that_part_of_the_auctions(self) -> None:
        world = self.world(100_000)  # a quarter of the floor
        won = [world.winners(world.hold(request(), tie_seed=seed * 2**54)) for seed in range(1_000)]
        assert [("p1", 400_000)] in won
        assert 190 <= sum(bool(one) for one in won) <= 310

    def test_who_is_lowered_further_takes_part_in_no_other_auctions(self) -> None:
        more, less = self.world(200_000), self.world(50_000)
        for seed in range(200):
            if less.winners(less.hold(request(), tie_seed=seed)):
                assert more.winners(more.hold(request(), tie_seed=seed))

    def test_the_reason_is_the_pacing_and_not_the_floor(self) -> None:
        world = self.world(10_000)
        outcome = world.hold(request(), tie_seed=1)
        reasons = world.market.scratch.found.lost["reason"][: outcome.lost_count]
        assert set(reasons.tolist()) == {int(LossReason.PACED_OUT)}
        assert outcome.places[0].no_fill_reason == "paced_out"

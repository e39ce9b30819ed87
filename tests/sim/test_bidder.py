"""Policies do what their names say, and nothing that is not a bid gets past them."""

from pathlib import Path

import pytest

from sim.bidder import Bandit, Paced, Results, Shaded, Standing, Truthful, ask, find_policy
from sim.chance import Stream
from sim.errors import PolicyRefused, ScenarioRefused
from sim.scenario import Bidders

PACED = Bidders(policy="paced", daily_budget_micros=1_000_000)


def standing(spent_micros: int = 0, gone_ppm: int = 0, earned_micros: int = 0) -> Standing:
    return Standing(1_000_000, spent_micros, gone_ppm, Results(100, 5, 0, earned_micros))


def test_truthful_bids_all_and_shaded_its_share() -> None:
    assert Truthful(Bidders(policy="truthful"), Stream(1)).share_ppm(standing()) == 1_000_000
    assert Shaded(Bidders(policy="shaded", share_ppm=400_000), Stream(1)).share_ppm(standing()) == 400_000


def test_paced_bids_less_when_ahead_of_the_day_and_more_when_behind() -> None:
    ahead, behind = Paced(PACED, Stream(1)), Paced(PACED, Stream(1))
    start = ahead.share_ppm(standing())
    assert ahead.share_ppm(standing(spent_micros=600_000, gone_ppm=300_000)) < start
    assert behind.share_ppm(standing(spent_micros=100_000, gone_ppm=300_000)) > start
    for _ in range(50):
        low = ahead.share_ppm(standing(spent_micros=1_000_000, gone_ppm=10_000))
        high = behind.share_ppm(standing(spent_micros=0, gone_ppm=900_000))
    assert low == Paced.SHARE_PPM_MIN
    assert high == 1_000_000


def test_the_bandit_tries_everything_and_settles_on_what_earns_most() -> None:
    bandit = Bandit(Bidders(policy="bandit"), Stream(3))
    chosen = [bandit.share_ppm(standing())]
    for _ in range(400):
        earned = {400_000: 900, 550_000: 1_000}.get(chosen[-1], 100)
        chosen.append(bandit.share_ppm(standing(earned_micros=earned)))
    assert set(chosen[:6]) == set(Bandit.SHARES_PPM)
    assert chosen[-100:].count(550_000) > 90


@pytest.mark.parametrize("answer", [float("nan"), 0.5, 1_000_001, -1, True, None, "all"])
def test_what_is_not_a_bid_is_refused_by_name(answer: object) -> None:
    class Wild:
        def share_ppm(self, _: Standing) -> int:
            return answer  # type: ignore[return-value]

    with pytest.raises(PolicyRefused, match=r"brand-3: Wild\.share_ppm must answer a whole number"):
        ask(Wild(), standing(), "brand-3")


def test_anyone_can_bring_a_policy_in_a_file_of_theirs(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "class Half:\n    def __init__(self, group, stream):\n        pass\n"
        "    def share_ppm(self, standing):\n        return 500_000\n"
    )
    assert find_policy(f"{mine}:Half")(Bidders(policy="x"), Stream(1)).share_ppm(standing()) == 500_000
    with pytest.raises(ScenarioRefused, match="has no class Third"):
        find_policy(f"{mine}:Third")
    with pytest.raises(ScenarioRefused, match="there is no file"):
        find_policy(f"{tmp_path}/other.py:Half")
    with pytest.raises(ScenarioRefused, match="policy must be one of bandit, paced, shaded, truthful"):
        find_policy("greedy")
    mine.write_text("1 / 0")
    with pytest.raises(ScenarioRefused, match="ZeroDivisionError"):
        find_policy(f"{mine}:Half")

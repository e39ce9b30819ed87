"""Policies do what their names say, and nothing that is not a bid gets past them."""

from pathlib import Path

import pytest

from sim.bidder import (
    Bandit,
    ClickFraud,
    Drainer,
    Paced,
    Prober,
    Results,
    Shaded,
    Standing,
    TargetRoas,
    Truthful,
    ask,
    find_policy,
    make,
)
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


def test_target_roas_bids_less_while_sales_are_behind_and_more_while_they_are_ahead() -> None:
    group = Bidders(policy="target-roas", target_roas_ppm=4_000_000)
    behind, ahead = TargetRoas(group, Stream(1)), TargetRoas(group, Stream(1))
    start = behind.share_ppm(standing())
    low = [behind.share_ppm(Standing(None, 0, 0, Results(100, 5, 1_000, 0, 3_000))) for _ in range(60)]
    high = [ahead.share_ppm(Standing(None, 0, 0, Results(100, 5, 1_000, 0, 6_000))) for _ in range(60)]
    assert low[0] < start < high[0]
    assert low[-1] == TargetRoas.SHARE_PPM_MIN
    assert high[-1] == 1_000_000


def test_target_roas_settles_where_sales_are_the_target_times_spend() -> None:
    policy = TargetRoas(Bidders(policy="target-roas", target_roas_ppm=5_000_000), Stream(1))
    share = policy.share_ppm(standing())
    for _ in range(200):  # the higher the bid, the dearer the same sales: five times back at a share of 0.4
        share = policy.share_ppm(Standing(None, 0, 0, Results(100, 5, share, 0, 2_000_000)))
    assert abs(share - 400_000) < 8_000


def shown_from(least_ppm: int, policy: Drainer | Prober, times: int) -> list[int]:
    """Ask so often a policy whose products are shown from so high a share on."""
    shares, impressions = [], 0
    for _ in range(times):
        shares.append(policy.share_ppm(Standing(None, 0, 0, Results(impressions))))
        impressions = 10 if shares[-1] >= least_ppm else 0
    return shares


def test_the_drainer_stays_just_under_who_wins() -> None:
    shares = shown_from(600_000, Drainer(Bidders(policy="drainer"), Stream(1)), 100)[20:]
    assert sum(share >= 600_000 for share in shares) <= len(shares) // 3
    assert min(shares) >= 400_000


def test_the_prober_finds_the_least_share_that_is_shown() -> None:
    shares = shown_from(437_000, Prober(Bidders(policy="prober"), Stream(1)), 8)
    assert shares[0] == 1_000_000
    assert 437_000 <= min(share for share in shares if share >= 437_000) < 447_000
    again = shown_from(437_000, Prober(Bidders(policy="prober"), Stream(1)), 9)
    assert again[8] == 1_000_000


def test_click_fraud_needs_to_know_how_often() -> None:
    group = Bidders(policy="click-fraud", share_ppm=1, rival_click_ppm=30_000)
    assert ClickFraud(group, Stream(1)).rival_click_ppm == 30_000
    with pytest.raises(ScenarioRefused, match="needs rival_click_ppm"):
        ClickFraud(Bidders(policy="click-fraud", share_ppm=1), Stream(1))


@pytest.mark.parametrize("clicks", [1_000_001, -1, 0.5, float("nan"), True])
def test_who_would_click_what_is_no_share_is_refused(clicks: object) -> None:
    class Wild(Truthful):
        rival_click_ppm = clicks

    with pytest.raises(PolicyRefused, match="rival_click_ppm must be a whole number from 0 to 1000000"):
        make(Wild, Bidders(policy="wild.py:Wild"), Stream(1))


def test_a_policy_that_fails_is_refused_by_name() -> None:
    class Broken(Truthful):
        def share_ppm(self, standing: Standing) -> int:
            return 1 // 0

    class Unmade(Truthful):
        def __init__(self, group: Bidders, stream: Stream) -> None:
            raise KeyError("budget")

    with pytest.raises(PolicyRefused, match=r"adv-1: Broken\.share_ppm failed: ZeroDivisionError"):
        ask(Broken(Bidders(policy="x"), Stream(1)), standing(), "adv-1")
    with pytest.raises(PolicyRefused, match=r"policy 'a\.py:Unmade' cannot be made: KeyError"):
        make(Unmade, Bidders(policy="a.py:Unmade"), Stream(1))


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
    with pytest.raises(
        ScenarioRefused,
        match="policy must be one of bandit, click-fraud, drainer, paced, prober, shaded, target-roas, truthful",
    ):
        find_policy("greedy")
    mine.write_text("1 / 0")
    with pytest.raises(ScenarioRefused, match="ZeroDivisionError"):
        find_policy(f"{mine}:Half")

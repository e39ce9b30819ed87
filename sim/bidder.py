"""How simulated advertisers bid: policies, each one small idea about what share of a click's worth to offer.

A policy answers with a share in parts per million; the market turns it into one bid per product. Policies see what an
advertiser would: their own results and budget, the hour; never another's bid, never the world's truth.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from sim.chance import PPM, Stream
from sim.errors import PolicyRefused, ScenarioRefused, SimRefused
from sim.scenario import Bidders


class Results(Struct, frozen=True):
    """What one bidder got for its bids between two changes of them.

    Attributes:
        value_micros: what the clicks were worth to it, before what it paid.
        sales_micros: what was bought after them.
    """

    impressions: int = 0
    clicks: int = 0
    spend_micros: int = 0
    value_micros: int = 0
    sales_micros: int = 0


class Standing(Struct, frozen=True):
    """What a policy knows when it is asked.

    Attributes:
        day_gone_ppm: how much of a usual day's traffic is over.
        last: results since it was last asked; zeros the first time.
    """

    daily_budget_micros: int | None
    spent_today_micros: int
    day_gone_ppm: int
    last: Results


class Policy(Protocol):
    """A way to bid. One instance per bidder, asked at the start of every bidding period.

    One that also has `rival_click_ppm`, a whole number, clicks so many in a million of the paid products of others it
    finds on a page, without wanting anything.
    """

    def share_ppm(self, standing: Standing) -> int:
        """Return the share of a click's worth to bid from now on, 0 (not taking part) to 1,000,000 (all of it)."""
        ...


class Truthful:
    """Bids what a click is worth: the best one can do under vcg, and a yardstick elsewhere."""

    def __init__(self, group: Bidders, stream: Stream) -> None:
        pass

    def share_ppm(self, standing: Standing) -> int:
        """Return all of it."""
        return PPM


class Shaded:
    """Bids a fixed share of what a click is worth."""

    def __init__(self, group: Bidders, stream: Stream) -> None:
        if group.share_ppm is None:
            raise ScenarioRefused("a shaded bidder needs share_ppm")
        self._share_ppm = group.share_ppm

    def share_ppm(self, standing: Standing) -> int:
        """Return that share."""
        return self._share_ppm


class Paced:
    """Bids less when money goes faster than the day, and more when it goes slower.

    A dual step on the budget, multiplicative so that the share stays positive. Source: Balseiro, Gur, "Learning in
    repeated auctions with budgets", Management Science 2019 (adaptive pacing).
    """

    STEP_PPM = 400_000
    SHARE_PPM_MIN = 20_000

    def __init__(self, group: Bidders, stream: Stream) -> None:
        self._share = PPM * 6 // 10

    def share_ppm(self, standing: Standing) -> int:
        """Return a share a step nearer to the one that spends the budget exactly at midnight."""
        if standing.daily_budget_micros is not None and standing.day_gone_ppm > 0:
            spent_ppm = standing.spent_today_micros * PPM // standing.daily_budget_micros
            ahead_ppm = (spent_ppm - standing.day_gone_ppm) * PPM // standing.day_gone_ppm
            factor_ppm = PPM - self.STEP_PPM * max(-PPM, min(PPM, ahead_ppm)) // PPM
            self._share = max(self.SHARE_PPM_MIN, min(PPM, self._share * factor_ppm // PPM))
        return self._share


class Bandit:
    """Tries a few shares and keeps to the one that earned most per thousand impressions shown, mostly.

    Epsilon-greedy with the exploration falling as 1/n. Source: Auer, Cesa-Bianchi, Fischer, "Finite-time analysis of
    the multiarmed bandit problem", Machine Learning 47, 2002, figure 3.
    """

    SHARES_PPM = (250_000, 400_000, 550_000, 700_000, 850_000, 1_000_000)

    def __init__(self, group: Bidders, stream: Stream) -> None:
        self._stream = stream
        self._tried = [0] * len(self.SHARES_PPM)
        self._earned_micros = [0] * len(self.SHARES_PPM)
        self._arm: int | None = None

    def share_ppm(self, standing: Standing) -> int:
        """Note what the last share earned and return the next one to try."""
        if self._arm is not None:
            self._tried[self._arm] += 1
            self._earned_micros[self._arm] += standing.last.value_micros - standing.last.spend_micros
        untried = [arm for arm, times in enumerate(self._tried) if times == 0]
        turns = sum(self._tried)
        if untried:
            self._arm = untried[self._stream.below(len(untried))]
        elif self._stream.below(turns) < len(self.SHARES_PPM) // 2:
            self._arm = self._stream.below(len(self.SHARES_PPM))
        else:
            means = [earned * 1000 // times for earned, times in zip(self._earned_micros, self._tried, strict=True)]
            self._arm = means.index(max(means))
        return self.SHARES_PPM[self._arm]


class TargetRoas:
    """Bids less while its sales are behind so many times its spend, and more while they are ahead.

    On what it remembers, of which a tenth fades every time. Source: the second dual of Feng, Padmanabhan, Wang, "Online
    bidding algorithms for return-on-spend constrained advertisers", 2023, as a multiplicative step.
    """

    STEP_PPM = 250_000
    KEPT_PPM = 900_000
    SHARE_PPM_MIN = 20_000

    def __init__(self, group: Bidders, stream: Stream) -> None:
        if group.target_roas_ppm is None:
            raise ScenarioRefused("a target-roas bidder needs target_roas_ppm")
        self._target_ppm = group.target_roas_ppm
        self._share = PPM * 6 // 10
        self._sales_micros = self._spend_micros = 0

    def share_ppm(self, standing: Standing) -> int:
        """Return a share a step nearer to the one that reaches the target."""
        self._sales_micros = self._sales_micros * self.KEPT_PPM // PPM + standing.last.sales_micros
        self._spend_micros = self._spend_micros * self.KEPT_PPM // PPM + standing.last.spend_micros
        if self._spend_micros > 0:
            reached_ppm = self._sales_micros * PPM // self._spend_micros
            ahead_ppm = (reached_ppm - self._target_ppm) * PPM // self._target_ppm
            factor_ppm = PPM + self.STEP_PPM * max(-PPM, min(PPM, ahead_ppm)) // PPM
            self._share = max(self.SHARE_PPM_MIN, min(PPM, self._share * factor_ppm // PPM))
        return self._share


class Drainer:
    """Bids as much as it can without winning, so that who wins pays more and is sooner out of budget.

    Under critical pricing the one below sets the price. It goes up while it wins nothing, and down at once if it does.
    """

    UP_PPM = 50_000
    DOWN_PPM = 150_000

    def __init__(self, group: Bidders, stream: Stream) -> None:
        self._share = 0

    def share_ppm(self, standing: Standing) -> int:
        """Return a share just under the one that wins."""
        step = -self.DOWN_PPM if standing.last.impressions else self.UP_PPM
        self._share = max(0, min(PPM, self._share + step))
        return self._share


class Prober:
    """Finds the least share that is still shown, by halving, and begins again from time to time, since prices move."""

    HALVINGS = 7

    def __init__(self, group: Bidders, stream: Stream) -> None:
        self._low, self._high, self._tried, self._asked = 0, PPM, PPM, 0

    def share_ppm(self, standing: Standing) -> int:
        """Return the share to try next."""
        if self._asked > self.HALVINGS:
            self._low, self._high, self._asked = 0, PPM, 0
        elif self._asked and standing.last.impressions:
            self._high = self._tried
        elif self._asked:
            self._low = self._tried
        self._asked += 1
        self._tried = self._high if self._asked == 1 else (self._low + self._high) // 2
        return self._tried


class ClickFraud(Shaded):
    """Bids a fixed share, and has the paid products of others clicked by nobody who would buy, to use up budgets."""

    def __init__(self, group: Bidders, stream: Stream) -> None:
        super().__init__(group, stream)
        if group.rival_click_ppm is None:
            raise ScenarioRefused("a click-fraud bidder needs rival_click_ppm")
        self.rival_click_ppm = group.rival_click_ppm


MakePolicy = Callable[[Bidders, Stream], Policy]
POLICIES: dict[str, MakePolicy] = {
    "truthful": Truthful,
    "shaded": Shaded,
    "paced": Paced,
    "target-roas": TargetRoas,
    "bandit": Bandit,
    "drainer": Drainer,
    "prober": Prober,
    "click-fraud": ClickFraud,
}


def find_policy(name: str) -> MakePolicy:
    """Return the maker of a policy: one of ours by name, or somebody's own as `file.py:ClassName`.

    Raises:
        ScenarioRefused: there is no such policy.
    """
    if name in POLICIES:
        return POLICIES[name]
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ScenarioRefused(f"policy must be one of {', '.join(sorted(POLICIES))} or file.py:ClassName, was {name!r}")
    if not Path(path).is_file():
        raise ScenarioRefused(f"policy {name!r}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"endcap_policy_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as broken:  # whatever an analyst's own file may raise
        raise ScenarioRefused(f"policy {name!r}: {path} cannot be run: {type(broken).__name__}: {broken}") from broken
    maker = getattr(module, class_name, None)
    if maker is None or not hasattr(maker, "share_ppm"):
        raise ScenarioRefused(f"policy {name!r}: {path} has no class {class_name} with a method share_ppm")
    found: MakePolicy = maker
    return found


def make(make_policy: MakePolicy, group: Bidders, stream: Stream) -> Policy:
    """Return a policy for one bidder.

    Raises:
        SimRefused: it cannot be made for such a bidder, or would click what is no share of a million.
    """
    try:
        policy = make_policy(group, stream)
        clicks: object = rival_click_ppm(policy)
    except SimRefused:
        raise
    except Exception as broken:  # whatever an analyst's own file may raise
        raise PolicyRefused(f"policy {group.policy!r} cannot be made: {type(broken).__name__}: {broken}") from broken
    if isinstance(clicks, bool) or not isinstance(clicks, int) or not 0 <= clicks <= PPM:
        raise PolicyRefused(
            f"policy {group.policy!r}: rival_click_ppm must be a whole number from 0 to {PPM}, was {clicks!r}"
        )
    return policy


def rival_click_ppm(policy: Policy) -> int:
    """Return how many in a million of others' paid products the policy has clicked."""
    clicks: int = getattr(policy, "rival_click_ppm", 0)
    return clicks


def ask(policy: Policy, standing: Standing, who: str) -> int:
    """Return the policy's share, checked.

    Raises:
        PolicyRefused: it is not a whole number from 0 to 1,000,000, so a NaN, a float or more than a click is worth; or
            the policy failed.
    """
    try:
        share: object = policy.share_ppm(standing)
    except Exception as broken:  # whatever an analyst's own file may raise
        raise PolicyRefused(
            f"{who}: {type(policy).__name__}.share_ppm failed: {type(broken).__name__}: {broken}"
        ) from broken
    if isinstance(share, bool) or not isinstance(share, int) or not 0 <= share <= PPM:
        raise PolicyRefused(
            f"{who}: {type(policy).__name__}.share_ppm must answer a whole number from 0 to {PPM}, answered {share!r}"
        )
    return share

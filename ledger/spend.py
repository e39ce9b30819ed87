"""What the writer tells those who serve fills: what was spent, and what is left to spend."""

from collections.abc import Callable

from msgspec import Struct

from ledger.command import AdvertiserFunds


class CampaignSpend(Struct, frozen=True):
    """What a campaign was charged on one day of the retailer's, and in all."""

    campaign_id: str
    day: str
    spent_day_micros: int
    spent_total_micros: int


class SpendUpdate(Struct, frozen=True):
    """What changed with one commit; on connecting, everything there is.

    Attributes:
        is_full: True when whoever is not named has no spend, and no funds.
        campaigns: of each campaign that changed, the days that changed.
        funds: of each advertiser that changed.
        event_count, commit_seconds, billed_micros, given_back_micros: of the commit, for metrics; 0 when `is_full`.
    """

    is_full: bool
    campaigns: list[CampaignSpend]
    funds: list[AdvertiserFunds]
    event_count: int = 0
    commit_seconds: float = 0.0
    billed_micros: int = 0
    given_back_micros: int = 0


OnSpend = Callable[[SpendUpdate], None]

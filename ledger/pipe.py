"""The one queue into the ledger, whatever process its writer runs in.

`LocalIntake` commits in this process (tests, simulation); `WriterClient` asks a writer behind a Unix socket.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from ledger.command import AdvertiserFunds, Command, CommandAnswer
from ledger.event import EventResult, ReportedEvent


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


class Intake(Protocol):
    """What an endpoint needs of the ledger's writer."""

    async def record(self, events: list[ReportedEvent], *, with_amounts: bool) -> list[EventResult]:
        """Return what became of each event, once all of it is durable.

        Raises:
            LedgerUnavailable: nothing was acknowledged; sending the same ids again is safe.
        """
        ...

    async def command(self, command: Command) -> CommandAnswer:
        """Carry out a command and return what is booked, once it is durable.

        Raises:
            LedgerRefused: the command breaks a rule; nothing of it was written.
            LedgerUnavailable: as above.
        """
        ...

    def unwritable_s(self) -> float:
        """Return for how many seconds nothing could be written; 0.0 while all is well."""
        ...

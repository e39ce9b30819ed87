"""The one queue into the ledger, whatever process its writer runs in.

`LocalIntake` commits in this process (tests, simulation); `WriterClient` asks a writer behind a Unix socket.
"""

from typing import Protocol

from ledger.command import Command, CommandAnswer
from ledger.event import EventResult, ReportedEvent


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

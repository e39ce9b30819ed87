"""The server's own parts in one process, on a simulated clock: what fills pages, keeps visitors and bills.

Nothing here decides: it composes the packages as the server does, and hands them the world's time, chance and
predictions.
"""

from msgspec import Struct

from auction.request import Fill


class Billed(Struct, frozen=True):
    """What the ledger made of one event of a paid fill that was due to be charged.

    Attributes:
        price_micros: what the beacon promised.
        amount_micros: what was billed of it.
    """

    session_row: int
    placement_id: str
    fill: Fill
    price_micros: int
    amount_micros: int

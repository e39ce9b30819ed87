"""What was agreed beforehand, such as a booked slot: owed whole and at once, whatever limits an advertiser has.

Called by whoever keeps the agreement, in the transaction that changes it, so that the two are one.
"""

from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.calendar import Calendar
from ledger.chart import REVENUE, unbilled
from ledger.command import Reverse
from ledger.funding import reverse
from ledger.journal import Posting, Side, Transaction, post
from ledger.money import Micros

REASON = "booking:"  # and the agreement's id


def charge_agreed(
    connection: Connection,
    retailer_id: str,
    agreement_id: str,
    advertiser_id: str,
    amount_micros: int,
    starts_ms: int,
    currency: str,
    time_zone: str,
    now_ms: int,
) -> str | None:
    """Charge an agreement in the month it starts in, or in the open one where that is sealed; return the transaction.

    None where nothing is to be paid for it.
    """
    if not amount_micros:
        return None
    calendar = Calendar(time_zone)
    head = chain.lock_head(connection, retailer_id)
    period = calendar.period(starts_ms)
    if period <= store.last_sealed(connection, retailer_id):
        period = calendar.period(now_ms)
    amount = Micros(amount_micros)
    postings = (
        Posting(unbilled(advertiser_id, period), Side.DEBIT, amount),
        Posting(REVENUE, Side.CREDIT, amount),
    )
    transaction = Transaction(postings, REASON + agreement_id, period, now_ms)
    (transaction_id,) = post(connection, retailer_id, head, [transaction], currency, now_ms)
    chain.save_head(connection, retailer_id, head)
    store.ensure_funds(connection, retailer_id, advertiser_id)
    store.move_owed(connection, retailer_id, advertiser_id, amount_micros)
    return transaction_id


def withdraw_agreed(
    connection: Connection,
    retailer_id: str,
    transaction_id: str,
    reason: str,
    currency: str,
    time_zone: str,
    now_ms: int,
) -> None:
    """Undo the charge of an agreement.

    Raises:
        ConflictRefused: `invoiced`: give it back by a credit note; `already_reversed`.
    """
    reverse(connection, retailer_id, Reverse(transaction_id, reason), currency, Calendar(time_zone), now_ms)

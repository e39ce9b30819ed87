"""Money in, credit, and corrections: what finance asks for, as transactions."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.calendar import Calendar
from ledger.chart import (
    BAD_DEBT,
    CASH,
    COMMISSION,
    PROMOTION,
    REVENUE,
    AccountName,
    account_advertiser,
    promo,
    receivable,
    wallet,
)
from ledger.command import AddFunds, AdvertiserFunds, FundsAdded, Reversal, Reverse, SetCreditLine
from ledger.errors import ConflictRefused, NotFound
from ledger.journal import Posting, Side, Transaction, mirror, post, read_transaction
from ledger.money import Micros

PROMO, WALLET, OWED = range(3)  # the parts of funds
_ACCOUNTS: dict[str, tuple[Callable[[str], AccountName], AccountName, int]] = {  # credited, debited, the part it moves
    "top-up": (wallet, CASH, WALLET),
    "promotional-credit": (promo, PROMOTION, PROMO),
    "payment": (receivable, CASH, OWED),
    "write-off": (receivable, BAD_DEBT, OWED),
}
DOCUMENT_REASONS = frozenset(["invoice", "credit-note"])


def add_funds(
    connection: Connection, retailer_id: str, command: AddFunds, currency: str, calendar: Calendar, now_ms: int
) -> FundsAdded:
    """Book money that comes in or is given up, once per reference.

    Raises:
        ConflictRefused: `reference_in_use`, the reference is booked for another advertiser or amount; `not_owed`, a
            payment or write-off of more than invoices ask for.
    """
    head = chain.lock_head(connection, retailer_id)
    booked = store.read_funding(connection, retailer_id, command.kind, command.reference)
    if booked is not None:
        if (booked.advertiser_id, booked.amount_micros) != (command.advertiser_id, command.amount_micros):
            raise ConflictRefused(
                "reference_in_use",
                f"reference {command.reference!r} is booked for {booked.advertiser_id} and {booked.amount_micros} "
                f"micros, was sent for {command.advertiser_id} and {command.amount_micros}",
                "/reference",
            )
        return FundsAdded(
            booked.advertiser_id,
            booked.amount_micros,
            booked.reference,
            booked.transaction_id,
            to_moment(booked.recorded_at_ms),
            False,
        )
    amount_micros = Micros(command.amount_micros)
    name_account, source, part = _ACCOUNTS[command.kind]
    account = name_account(command.advertiser_id)
    if name_account is receivable:
        open_micros = store.read_posted(connection, retailer_id, account)
        if amount_micros > open_micros:
            raise ConflictRefused(
                "not_owed", f"invoices ask for {open_micros} micros more, was {amount_micros}", "/amount_micros"
            )
    postings = (Posting(source, Side.DEBIT, amount_micros), Posting(account, Side.CREDIT, amount_micros))
    transaction = Transaction(postings, command.kind, calendar.period(now_ms), now_ms)
    (transaction_id,) = post(connection, retailer_id, head, [transaction], currency, now_ms)
    chain.save_head(connection, retailer_id, head)
    store.ensure_funds(connection, retailer_id, command.advertiser_id)
    given = [0, 0, 0]
    given[part] = -amount_micros
    store.take_funds(connection, retailer_id, [(command.advertiser_id, given[0], given[1], given[2])])
    store.insert_funding(
        connection,
        {
            "retailer_id": retailer_id,
            "kind": command.kind,
            "reference": command.reference,
            "advertiser_id": command.advertiser_id,
            "amount_micros": amount_micros,
            "transaction_id": transaction_id,
            "recorded_at_ms": now_ms,
        },
    )
    return FundsAdded(command.advertiser_id, amount_micros, command.reference, transaction_id, to_moment(now_ms), True)


def set_credit_line(connection: Connection, retailer_id: str, command: SetCreditLine) -> AdvertiserFunds:
    """Set the most an advertiser may owe. Where it owes more already, nothing more goes on credit."""
    chain.lock_head(connection, retailer_id)
    store.ensure_funds(connection, retailer_id, command.advertiser_id)
    store.set_credit_line(connection, retailer_id, command.advertiser_id, command.amount_micros)
    (row,) = store.read_funds(connection, retailer_id, [command.advertiser_id])
    return to_funds(row)


def reverse(
    connection: Connection, retailer_id: str, command: Reverse, currency: str, calendar: Calendar, now_ms: int
) -> tuple[Reversal, list[str]]:
    """Undo the whole of a transaction, at most once; return the reversal and whose funds it moved.

    Money goes back where it came from; a campaign's budget stays spent.

    Raises:
        NotFound: `unknown_transaction`.
        ConflictRefused: `is_a_reversal`, `already_reversed`, `funds_spent` (a top-up that was spent since), or
            `invoiced` (a document, or a charge an invoice asks for: give it back by a credit note), or
            `partly_returned` (commission of which a part went back with goods).
    """
    head = chain.lock_head(connection, retailer_id)
    original = read_transaction(connection, retailer_id, command.transaction_id)
    if original is None:
        raise NotFound("unknown_transaction", f"there is no transaction {command.transaction_id!r}", "/transaction_id")
    if original.reverses is not None:
        raise ConflictRefused("is_a_reversal", f"{command.transaction_id} is a reversal itself", "/transaction_id")
    by = store.read_reversal(connection, retailer_id, command.transaction_id)
    if by is not None:
        raise ConflictRefused("already_reversed", f"{command.transaction_id} was reversed by {by}", "/transaction_id")
    _check_documents(connection, retailer_id, original, command.transaction_id)
    transaction = mirror(original, command.transaction_id, command.reason, calendar.period(now_ms), now_ms)
    taken = taken_by(transaction)
    asked = _asked_again(transaction)
    try:
        store.take_funds(connection, retailer_id, [(who, parts[0], parts[1], parts[2]) for who, parts in taken.items()])
        for who, micros in asked.items():
            store.move_owed(connection, retailer_id, who, micros)
    except store.BudgetMoved:
        raise ConflictRefused(
            "funds_spent", f"what {command.transaction_id} brought was spent since", "/transaction_id"
        ) from None
    (transaction_id,) = post(connection, retailer_id, head, [transaction], currency, now_ms)
    chain.save_head(connection, retailer_id, head)
    store.insert_reversal(connection, retailer_id, command.transaction_id, transaction_id, command.reason, now_ms)
    return Reversal(transaction_id, command.transaction_id, command.reason, to_moment(now_ms)), [*taken, *asked]


def taken_by(transaction: Transaction) -> dict[str, list[int]]:
    """Return what a transaction takes out of each advertiser's promo, wallet and credit; negative gives back."""
    taken: dict[str, list[int]] = {}
    for leg in transaction.postings:
        advertiser_id, family = account_advertiser(leg.account), leg.account.partition(":")[0]
        if advertiser_id is not None and family in _PARTS:
            parts = taken.setdefault(advertiser_id, [0, 0, 0])
            parts[_PARTS[family]] += leg.side * leg.amount_micros
    return taken


def to_funds(row: tuple[str, int, int, int, int]) -> AdvertiserFunds:
    """Return funds as they travel, with what is left in all."""
    advertiser_id, promo_micros, wallet_micros, credit_line_micros, owed_micros = row
    left_micros = promo_micros + wallet_micros + max(credit_line_micros - owed_micros, 0)
    return AdvertiserFunds(advertiser_id, left_micros, promo_micros, wallet_micros, credit_line_micros, owed_micros)


def to_moment(at_ms: int) -> datetime:
    """Return milliseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def _check_documents(connection: Connection, retailer_id: str, original: Transaction, transaction_id: str) -> None:
    """Refuse what stands on an invoice.

    Raises:
        ConflictRefused: `invoiced`, `partly_returned`.
    """
    if any(leg.account == COMMISSION for leg in original.postings) and store.has_returned(
        connection, retailer_id, transaction_id
    ):
        raise ConflictRefused("partly_returned", f"part of {transaction_id} went back with goods", "/transaction_id")
    by = transaction_id if original.reason in DOCUMENT_REASONS else None
    if by is None and any(leg.account in (REVENUE, COMMISSION) for leg in original.postings):
        (advertiser_id,) = {who for leg in original.postings if (who := account_advertiser(leg.account)) is not None}
        find = store.find_return_note if _is_return(original) else store.find_invoice
        by = find(connection, retailer_id, advertiser_id, original.period)
    if by is not None:
        raise ConflictRefused(
            "invoiced", f"{transaction_id} stands on {by}: give it back by a credit note", "/transaction_id"
        )


def _is_return(transaction: Transaction) -> bool:
    """Say whether it is commission that went back with goods."""
    return any(leg.account == COMMISSION and leg.side is Side.DEBIT for leg in transaction.postings)


def _asked_again(transaction: Transaction) -> dict[str, int]:
    """Return what invoices ask each advertiser for again: no credit line has a say in that."""
    asked: dict[str, int] = {}
    for leg in transaction.postings:
        advertiser_id, family = account_advertiser(leg.account), leg.account.partition(":")[0]
        if advertiser_id is not None and family == "receivable":
            asked[advertiser_id] = asked.get(advertiser_id, 0) + leg.side * leg.amount_micros
    return asked


_PARTS = {"promo": PROMO, "wallet": WALLET, "unbilled": OWED}

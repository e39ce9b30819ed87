"""Money in, credit, and corrections: what finance asks for, as transactions."""

from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.calendar import Calendar
from ledger.chart import CASH, PROMOTION, AccountName, account_advertiser, promo, wallet
from ledger.command import AddFunds, AdvertiserFunds, FundsAdded, Reversal, Reverse, SetCreditLine
from ledger.errors import ConflictRefused, NotFound
from ledger.journal import Posting, Side, Transaction, mirror, post, read_transaction
from ledger.money import Micros


def add_funds(
    connection: Connection, retailer_id: str, command: AddFunds, currency: str, calendar: Calendar, now_ms: int
) -> FundsAdded:
    """Book a top-up or a promotional credit, once per reference.

    Raises:
        ConflictRefused: `reference_in_use`, the reference is booked for another advertiser or amount.
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
    is_money = command.kind == "top-up"
    amount_micros = Micros(command.amount_micros)
    account = wallet(command.advertiser_id) if is_money else promo(command.advertiser_id)
    source = CASH if is_money else PROMOTION
    postings = (Posting(source, Side.DEBIT, amount_micros), Posting(account, Side.CREDIT, amount_micros))
    transaction = Transaction(postings, command.kind, calendar.period(now_ms), now_ms)
    (transaction_id,) = post(connection, retailer_id, head, [transaction], currency, now_ms)
    chain.save_head(connection, retailer_id, head)
    store.ensure_funds(connection, retailer_id, command.advertiser_id)
    given = (0, -amount_micros, 0) if is_money else (-amount_micros, 0, 0)
    store.take_funds(connection, retailer_id, [(command.advertiser_id, *given)])
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
        ConflictRefused: `is_a_reversal`, `already_reversed`, or `funds_spent` (a top-up that was spent since).
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
    transaction = mirror(original, command.transaction_id, command.reason, calendar.period(now_ms), now_ms)
    taken = _taken(transaction)
    try:
        store.take_funds(connection, retailer_id, [(who, parts[0], parts[1], parts[2]) for who, parts in taken.items()])
    except store.BudgetMoved:
        raise ConflictRefused(
            "funds_spent", f"what {command.transaction_id} brought was spent since", "/transaction_id"
        ) from None
    (transaction_id,) = post(connection, retailer_id, head, [transaction], currency, now_ms)
    chain.save_head(connection, retailer_id, head)
    store.insert_reversal(connection, retailer_id, command.transaction_id, transaction_id, command.reason, now_ms)
    return Reversal(transaction_id, command.transaction_id, command.reason, to_moment(now_ms)), list(taken)


def to_funds(row: tuple[str, int, int, int, int]) -> AdvertiserFunds:
    """Return funds as they travel, with what is left in all."""
    advertiser_id, promo_micros, wallet_micros, credit_line_micros, owed_micros = row
    left_micros = promo_micros + wallet_micros + max(credit_line_micros - owed_micros, 0)
    return AdvertiserFunds(advertiser_id, left_micros, promo_micros, wallet_micros, credit_line_micros, owed_micros)


def to_moment(at_ms: int) -> datetime:
    """Return milliseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def _taken(transaction: Transaction) -> dict[str, list[int]]:
    """Return what a transaction takes out of each advertiser's promo, wallet and credit; negative gives back."""
    taken: dict[str, list[int]] = {}
    for leg in transaction.postings:
        advertiser_id = account_advertiser(leg.account)
        if advertiser_id is not None:
            parts = taken.setdefault(advertiser_id, [0, 0, 0])
            parts[_part(leg.account)] += leg.side * leg.amount_micros
    return taken


def _part(account: AccountName) -> int:
    return ("promo", "wallet", "unbilled").index(account.partition(":")[0])

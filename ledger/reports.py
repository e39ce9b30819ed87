"""The books as finance reads them: accounts, transactions, balances, statements, reconciliation.

Everything here is read; figures come from the running balances and the rows themselves, and `verify.py` holds the two
against each other.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated

from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from ledger import store
from ledger.chart import account_advertiser, account_kind
from ledger.command import AdvertiserFunds
from ledger.errors import RequestRefused
from ledger.event import Moment
from ledger.funding import to_funds, to_moment
from ledger.terms import Identifier
from ledger.traffic import INVALID_CODES

Period = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(?![\s\S])")]
AccountText = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
PageToken = Annotated[str, Meta(min_length=1, max_length=1024)]
PageSize = Annotated[int, Meta(ge=1, le=200)]

HOUR_MS = 3_600_000
DIGEST_MODULUS = 1 << 128
RECONCILIATION_MS_MAX = 32 * 24 * HOUR_MS


class LedgerQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the lists of accounts and balances."""

    advertiser_id: Identifier | None = None


class FundsQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the lists of top-ups, promotional credits and credit lines."""

    advertiser_id: Identifier | None = None
    page_size: PageSize = 50
    page_token: PageToken | None = None


class TransactionsQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the journal."""

    account: AccountText | None = None
    period: Period | None = None
    page_size: PageSize = 50
    page_token: PageToken | None = None


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose statement, and for which month."""

    advertiser_id: Identifier
    period: Period


class ReconciliationQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"from_": "from"}):
    """From when, until before when events happened; at most 32 days."""

    from_: Moment
    to: Moment


class Account(Struct, frozen=True):
    """An account that was posted to."""

    account: str
    kind: str
    advertiser_id: str | None


class Balance(Struct, frozen=True):
    """What was posted to an account: debit +, credit -."""

    account: str
    currency: str
    posted_micros: int


class Leg(Struct, frozen=True):
    """One posting of a transaction."""

    account: str
    side: str
    amount_micros: int


class JournalTransaction(Struct, frozen=True):
    """A transaction as it was posted."""

    transaction_id: str
    reason: str
    period: str
    currency: str
    postings: list[Leg]
    reverses: str | None
    occurred_at: datetime
    recorded_at: datetime


class TrialLine(Struct, frozen=True):
    """One account in the trial balance: its balance on the side it falls on."""

    account: str
    currency: str
    debit_micros: int
    credit_micros: int


class TrialBalance(Struct, frozen=True):
    """All balances; `difference_micros` is 0 as long as the books are right."""

    accounts: list[TrialLine]
    debit_micros: int
    credit_micros: int
    difference_micros: int


class StatementLine(Struct, frozen=True):
    """One account of the advertiser's over the month: what it stood at, what moved, what it stands at (debit +)."""

    account: str
    currency: str
    opening_micros: int
    debit_micros: int
    credit_micros: int
    closing_micros: int


class CampaignDay(Struct, frozen=True):
    """What a campaign was charged for one day, before any reversal, and what of that was reversed as invalid."""

    campaign_id: str
    day: str
    charged_micros: int
    invalid_micros: int


class CommissionSum(Struct, frozen=True):
    """What commission an agreement came to in a month, and what went back of it and of months before with goods."""

    commission_agreement_id: str
    charged_lines: int
    charged_micros: int
    returned_lines: int
    returned_micros: int


class Statement(Struct, frozen=True):
    """An advertiser's month."""

    advertiser_id: str
    period: str
    accounts: list[StatementLine]
    campaigns: list[CampaignDay]
    commissions: list[CommissionSum]
    funds: AdvertiserFunds | None


class ReconciliationLine(Struct, frozen=True):
    """Events of one campaign, hour (UTC), type and status.

    Attributes:
        count, amount_micros: gross, as they were recorded.
        invalid_count: of these, invalid, as it was told on arrival or found afterwards; the others are valid.
        invalid_micros: of the amount, reversed since they were found invalid.
        digest: 32 hexadecimal digits, the sum modulo 2^128 of the SHA-256 of the event ids.
    """

    campaign_id: str | None
    hour: datetime
    type: str
    status: str
    count: int
    amount_micros: int
    digest: str
    invalid_count: int
    invalid_micros: int


class AccountList(Struct, frozen=True):
    """Every account that was posted to."""

    items: list[Account]


class BalanceList(Struct, frozen=True):
    """Every balance."""

    items: list[Balance]


class TransactionPage(Struct, frozen=True):
    """A page of the journal, in its order."""

    items: list[JournalTransaction]
    next_page_token: str | None = None


class FundsPage(Struct, frozen=True):
    """A page of advertisers' funds."""

    items: list[AdvertiserFunds]
    next_page_token: str | None = None


class Reconciliation(Struct, frozen=True):
    """What was recorded, to be held against a log of one's own."""

    items: list[ReconciliationLine]


def list_accounts(connection: Connection, retailer_id: str, advertiser_id: str | None) -> AccountList:
    """Return the accounts in use, all or an advertiser's."""
    names = sorted({row.account for row in store.list_balances(connection, retailer_id)})
    made = [Account(name, account_kind(name).value, account_advertiser(name)) for name in names]
    return AccountList([one for one in made if advertiser_id is None or one.advertiser_id == advertiser_id])


def list_balances(connection: Connection, retailer_id: str, advertiser_id: str | None) -> BalanceList:
    """Return the balance of every account, or of an advertiser's."""
    items = []
    rows = store.list_balances(connection, retailer_id)
    for (account, currency), some in groupby(rows, key=lambda row: (row.account, row.currency)):
        if advertiser_id is None or account_advertiser(account) == advertiser_id:
            items.append(Balance(account, currency, sum(row.debit_micros - row.credit_micros for row in some)))
    return BalanceList(items)


def trial_balance(connection: Connection, retailer_id: str) -> TrialBalance:
    """Return all balances, each on the side it falls on."""
    lines = [
        TrialLine(one.account, one.currency, max(one.posted_micros, 0), max(-one.posted_micros, 0))
        for one in list_balances(connection, retailer_id, None).items
    ]
    debit, credit = sum(line.debit_micros for line in lines), sum(line.credit_micros for line in lines)
    return TrialBalance(lines, debit, credit, debit - credit)


def list_transactions(
    connection: Connection,
    retailer_id: str,
    account: str | None,
    period: str | None,
    after_seq: int,
    limit: int,
) -> list[tuple[int, JournalTransaction]]:
    """Return transactions after an entry, each with the number of its first entry."""
    found = []
    firsts = store.list_transaction_ids(connection, retailer_id, after_seq, limit, account, period)
    for seq, transaction_id in firsts:
        found.append((seq, read_journal_transaction(connection, retailer_id, transaction_id)))
    return [(seq, one) for seq, one in found if one is not None]


def read_journal_transaction(
    connection: Connection, retailer_id: str, transaction_id: str
) -> JournalTransaction | None:
    """Return one transaction with its postings, None when there is none of that id."""
    rows = store.read_transaction_entries(connection, retailer_id, transaction_id)
    if not rows:
        return None
    first = rows[0]
    return JournalTransaction(
        transaction_id,
        first.reason,
        first.period,
        first.currency,
        [Leg(row.account, "debit" if row.amount_micros > 0 else "credit", abs(row.amount_micros)) for row in rows],
        first.reverses,
        to_moment(first.occurred_at_ms),
        to_moment(first.recorded_at_ms),
    )


def read_statement(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> Statement:
    """Return an advertiser's month: what its accounts stood at, what moved them, what its campaigns cost by day."""
    lines = []
    rows = [
        row
        for row in store.list_balances(connection, retailer_id)
        if account_advertiser(row.account) == advertiser_id and row.period <= period
    ]
    for (account, currency), some in groupby(rows, key=lambda row: (row.account, row.currency)):
        opening = debit = credit = 0
        for row in some:
            if row.period < period:
                opening += row.debit_micros - row.credit_micros
            else:
                debit, credit = row.debit_micros, row.credit_micros
        lines.append(StatementLine(account, currency, opening, debit, credit, opening + debit - credit))
    days = store.list_campaign_days(connection, retailer_id, advertiser_id, period + "-01", period + "-31")
    undone = store.sum_invalid_days(connection, retailer_id, advertiser_id, period + "-01", period + "-31")
    funds = store.list_funds(connection, retailer_id, advertiser_id, None, 1)
    return Statement(
        advertiser_id,
        period,
        lines,
        [CampaignDay(campaign_id, day, micros, undone.get((campaign_id, day), 0)) for campaign_id, day, micros in days],
        _commissions(connection, retailer_id, advertiser_id, period),
        to_funds(funds[0]) if funds else None,
    )


def _commissions(connection: Connection, retailer_id: str, advertiser_id: str, period: str) -> list[CommissionSum]:
    found = store.sum_month_commissions(connection, retailer_id, advertiser_id, period)
    sums = {(agreement_id, is_return): (lines, micros) for agreement_id, is_return, lines, micros in found}
    return [
        CommissionSum(one, *charged, returned[0], -returned[1])
        for one in sorted({agreement_id for agreement_id, _ in sums})
        for charged, returned in [(sums.get((one, False), (0, 0)), sums.get((one, True), (0, 0)))]
    ]


def reconcile(connection: Connection, retailer_id: str, from_ms: int, to_ms: int) -> Reconciliation:
    """Return counts, sums and digests of what happened in [from, to), per campaign, hour, type and status.

    Raises:
        RequestRefused: `range_invalid`, the range is empty or longer than 32 days.
    """
    if not 0 < to_ms - from_ms <= RECONCILIATION_MS_MAX:
        raise RequestRefused("range_invalid", "to must be after from, by at most 32 days")
    sums: dict[tuple[str | None, int, str, str], list[int]] = {}
    for row in store.read_events_between(connection, retailer_id, from_ms, to_ms):
        campaign_id, kind, status, code, amount_micros, occurred_at_ms, event_id, rule, undone_micros = row
        one = sums.setdefault((campaign_id, occurred_at_ms // HOUR_MS, kind, status), [0, 0, 0, 0, 0])
        one[0] += 1
        one[1] += amount_micros
        one[2] += event_digest(event_id)
        one[3] += rule is not None or code in INVALID_CODES
        one[4] += undone_micros
    return Reconciliation(
        [
            ReconciliationLine(
                campaign_id,
                to_moment(hour * HOUR_MS),
                kind,
                status,
                count,
                amount_micros,
                f"{digest % DIGEST_MODULUS:032x}",
                invalid_count,
                invalid_micros,
            )
            for (campaign_id, hour, kind, status), (
                count,
                amount_micros,
                digest,
                invalid_count,
                invalid_micros,
            ) in sorted(sums.items(), key=lambda item: (item[0][0] or "", *item[0][1:]))
        ]
    )


def event_digest(event_id: str) -> int:
    """Return what an event adds to its line's digest."""
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest(), "big") % DIGEST_MODULUS


def digest_of(event_ids: Sequence[str]) -> str:
    """Return the digest of a log's own event ids, to hold against a line."""
    return f"{sum(map(event_digest, event_ids)) % DIGEST_MODULUS:032x}"

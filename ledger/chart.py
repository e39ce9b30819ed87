"""The chart of accounts: which accounts there may be, of which kind, and what is posted to them.

Posting patterns, debit on the left:

| what happens | debit | credit |
|---|---|---|
| top-up received | `cash` | `wallet:<advertiser>` |
| promotional credit given | `expense:promotion` | `promo:<advertiser>` |
| a charge: promotional credit first, then prepaid money, then the credit line | `promo:<advertiser>`, \
`wallet:<advertiser>`, `unbilled:<advertiser>:<period>` | `revenue:media` |
| a booking, whole, in the month it starts in | `unbilled:<advertiser>:<period>` | `revenue:media` |
| commission on a line of an attributed order, in the month the buyer's time to withdraw ends in | \
`unbilled:<advertiser>:<period>` | `revenue:commission` |
| goods came back after that: their part of it, in the open month | `revenue:commission` | \
`returns:<advertiser>:<period>` |
| the credit note on a month's `returns`, with VAT and what rounding adds: what is still owed is forgiven, the rest \
goes to the wallet | `returns:<advertiser>:<period>`, `vat`, `expense:rounding` | `receivable:<advertiser>`, \
`wallet:<advertiser>`, `expense:rounding` |
| reversal of any of them, and of a payment | the credits of the original | its debits |
| an invoice for a month: what is due, VAT on all of it, what rounding to payable amounts adds | \
`receivable:<advertiser>`, `expense:rounding` | `unbilled:<advertiser>:<period>`, `vat`, `expense:rounding` |
| a payment | `cash` | `receivable:<advertiser>` |
| a credit note on an invoice: what is still owed is forgiven, what was paid goes to the wallet | \
`revenue:credit-notes`, `vat` | `receivable:<advertiser>`, `wallet:<advertiser>` |
| a write-off of what will not be paid | `expense:bad-debt` | `receivable:<advertiser>` |
| invalid traffic found before the month is sealed is reversed; after it, a credit note is issued | | |

A charge that comes to nothing (no budget left, robots, price 0) is an event without a transaction. Budgets of campaigns
are limits, not money, and have no account: see `campaign_spend` in `store`.
"""

from enum import StrEnum
from typing import NewType

AccountName = NewType("AccountName", str)

CASH = AccountName("cash")
REVENUE = AccountName("revenue:media")
COMMISSION = AccountName("revenue:commission")
PROMOTION = AccountName("expense:promotion")
CREDIT_NOTES = AccountName("revenue:credit-notes")  # contra: grows by debit
VAT = AccountName("vat")
ROUNDING = AccountName("expense:rounding")
BAD_DEBT = AccountName("expense:bad-debt")


class AccountKind(StrEnum):
    """What an account is; assets and expenses grow by debit, the others by credit."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    EXPENSE = "expense"


_KIND_BY_FAMILY = {
    "cash": AccountKind.ASSET,
    "unbilled": AccountKind.ASSET,
    "receivable": AccountKind.ASSET,
    "vat": AccountKind.LIABILITY,
    "wallet": AccountKind.LIABILITY,
    "promo": AccountKind.LIABILITY,
    "returns": AccountKind.LIABILITY,
    "revenue": AccountKind.INCOME,
    "expense": AccountKind.EXPENSE,
}


def wallet(advertiser_id: str) -> AccountName:
    """Name the account of what an advertiser paid beforehand."""
    return AccountName("wallet:" + advertiser_id)


def promo(advertiser_id: str) -> AccountName:
    """Name the account of what an advertiser was given to try with."""
    return AccountName("promo:" + advertiser_id)


def unbilled(advertiser_id: str, period: str) -> AccountName:
    """Name the account of what an advertiser owes for a month and no invoice asks for yet."""
    return AccountName(f"unbilled:{advertiser_id}:{period}")


def returns(advertiser_id: str, period: str) -> AccountName:
    """Name the account of commission that went back with goods in a month and that no credit note gives back yet."""
    return AccountName(f"returns:{advertiser_id}:{period}")


def receivable(advertiser_id: str) -> AccountName:
    """Name the account of what invoices ask an advertiser for and it has not paid."""
    return AccountName("receivable:" + advertiser_id)


def account_kind(account: str) -> AccountKind:
    """Return the kind of an account that is in the chart.

    Raises:
        KeyError: it is not in the chart.
    """
    return _KIND_BY_FAMILY[account.partition(":")[0]]


def account_advertiser(account: str) -> str | None:
    """Return whose account it is, None where it is the retailer's own."""
    family, _, rest = account.partition(":")
    if family in ("wallet", "promo", "receivable"):
        return rest
    if family in ("unbilled", "returns"):
        return rest.rpartition(":")[0]
    return None

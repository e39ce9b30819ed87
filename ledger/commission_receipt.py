"""Receipts of commission: what was posted for one line of an order, by which terms, for anyone to check and recompute.

Holds, as `charge_receipt.py` does for a charge, the rows themselves and the way from each to a signed checkpoint: the
agreement, and every step of the line with its entries. Whoever checks it works the amounts out anew from the terms.
"""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from ledger import store
from ledger.charge_receipt import ENTRY_KIND, ProvenRow, Prover, check_posted, check_row
from ledger.chart import COMMISSION
from ledger.checkpoint import Checkpoint
from ledger.commission import Agreement, commission_kept, commission_of
from ledger.commissioning import AGREEMENT_KIND, CHAIN_KIND
from ledger.errors import NotFound, RequestRefused
from ledger.store import CommissionRow


class ProvenStep(Struct, frozen=True, forbid_unknown_fields=True):
    """The commission on a line, or what went back of it, and its entries."""

    row: ProvenRow
    entries: list[ProvenRow]


class CommissionReceipt(Struct, frozen=True, forbid_unknown_fields=True):
    """A line's commission: the agreement as it was last written, and what was posted, in its order."""

    agreement: ProvenRow
    steps: list[ProvenStep]


class ProvenCommission(Struct, frozen=True):
    """What a receipt proves: terms, and steps of which the first is the commission and the others went back."""

    agreement: Agreement
    steps: list[CommissionRow]


def make_commission_receipt(
    connection: Connection, retailer_id: str, order_id: str, line: int, checkpoint: Checkpoint
) -> CommissionReceipt:
    """Return the receipt of what was posted for a line of an order until a checkpoint.

    Raises:
        NotFound: `unknown_commission`.
        ConflictRefused: `checkpoint_too_old`, `checkpoint_differs`.
    """
    store.hold_view(connection)
    steps = [row for row in store.read_commissions_of(connection, retailer_id, order_id) if row.line == line]
    if not steps:
        raise NotFound("unknown_commission", f"no commission was posted for line {line} of order {order_id!r}")
    prove = Prover(connection, retailer_id, checkpoint)
    agreements = [row[0] for row in store.read_agreements(connection, retailer_id) if row[1] == steps[0].agreement_id]
    return CommissionReceipt(
        prove.row(AGREEMENT_KIND, agreements[-1]),
        [
            ProvenStep(
                prove.row(CHAIN_KIND, step.seq),
                [
                    prove.row(ENTRY_KIND, entry.seq)
                    for entry in store.read_transaction_entries(connection, retailer_id, step.transaction_id)
                ],
            )
            for step in steps
        ],
    )


def check_commission_receipt(text: bytes, checkpoint: Checkpoint) -> ProvenCommission:
    """Return what a receipt proves, given a checkpoint whose signature was checked.

    Raises:
        RequestRefused: `receipt_invalid`, with what does not hold.
    """
    try:
        receipt = msgspec.json.decode(text, type=CommissionReceipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as refusal:
        raise RequestRefused("receipt_invalid", f"the receipt cannot be read: {refusal}") from None
    terms = check_row(receipt.agreement, AGREEMENT_KIND, store.AGREEMENT_COLUMNS, checkpoint)
    steps = []
    for step in receipt.steps:
        row = check_row(step.row, CHAIN_KIND, CommissionRow.__struct_fields__, checkpoint)
        entries = [check_row(one, ENTRY_KIND, store.ENTRY_COLUMNS, checkpoint) for one in step.entries]
        check_posted(row["transaction_id"], abs(row["amount_micros"]), entries)
        if -sum(entry["amount_micros"] for entry in entries if entry["account"] == COMMISSION) != row["amount_micros"]:
            raise RequestRefused("receipt_invalid", "what is posted as commission must be the amount of the row")
        steps.append(row)
    proven = _read(terms, steps)
    _check_amounts(proven)
    return proven


def _read(terms: dict[str, Any], steps: list[dict[str, Any]]) -> ProvenCommission:
    try:
        return ProvenCommission(
            msgspec.convert(terms, Agreement), [msgspec.convert(step, CommissionRow) for step in steps]
        )
    except msgspec.ValidationError as refusal:
        raise RequestRefused("receipt_invalid", f"the receipt cannot be read: {refusal}") from None


def _check_amounts(proven: ProvenCommission) -> None:
    """Check that the steps are of one line, under these terms, and come to what the terms say."""
    agreement, steps = proven.agreement, proven.steps
    first = steps[0] if steps else None
    if first is None or [step.step for step in steps] != list(range(len(steps))):
        raise RequestRefused("receipt_invalid", "the steps must be those of the line from the first on")
    if any((step.order_id, step.line) != (first.order_id, first.line) for step in steps):
        raise RequestRefused("receipt_invalid", "every step must be of the same line")
    if first.agreement_id != agreement.agreement_id or not agreement.covers(first.occurred_at_ms):
        raise RequestRefused("receipt_invalid", "the line must fall under the agreement")
    posted = 0
    for step in steps:
        due = commission_of(first.sales_micros, agreement)
        stays = due if step.step == 0 else commission_kept(due, step.quantity, first.quantity)
        posted += step.amount_micros
        if posted != stays:
            raise RequestRefused(
                "receipt_invalid", f"by the terms {stays} micros must be left after step {step.step}, are {posted}"
            )

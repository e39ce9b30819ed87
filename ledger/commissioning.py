"""Commission in the books: agreements, what is due, and its postings, each bound to the chain.

What is due is found outside the writer (`find_due`: attribution reads weeks of touches) and posted inside it
(`post_due`): there, under the chain's lock, everything money depends on is read again. Only which click a line is
credited to is taken from outside. What is posted is posted once per line and stays, whatever attribution says later.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
from sqlalchemy.engine import Connection

from ledger import chain, store
from ledger.attribution import DAY_MS, WITHDRAWAL_MS, AttributionModel, is_provisional
from ledger.calendar import Calendar
from ledger.chart import COMMISSION, returns, unbilled
from ledger.command import (
    AgreeCommission,
    Commission,
    CommissionAgreed,
    CommissionAgreement,
    CommissionsPosted,
    EndCommission,
)
from ledger.commission import (
    Agreement,
    DueOrder,
    LineCredit,
    OrderedLine,
    agreement_at,
    check_terms,
    commission_kept,
    commission_of,
    units_kept,
)
from ledger.errors import ConflictRefused, NotFound
from ledger.funding import to_moment
from ledger.journal import Posting, Side, Transaction, post
from ledger.money import Micros
from ledger.sales import FactsOf, find_credits
from ledger.store import CommissionRow

AGREEMENT_KIND, CHAIN_KIND = "commission-agreement", "commission"
REASON, RETURN_REASON = "commission:", "commission-return:"  # and the agreement's id
LOOK_BACK_MS = 120 * DAY_MS  # orders before that are looked at when asked for
SLICE_MS = 31 * DAY_MS  # of orders that are attributed at once
ORDERS_PER_POST_MAX = 100  # in one commit: events wait for it


def agree(connection: Connection, retailer_id: str, command: AgreeCommission, now_ms: int) -> CommissionAgreed:
    """Keep an agreement; the same terms again are the same agreement.

    Raises:
        RequestRefused: `moment_out_of_range`, `ends_before_start`, `min_above_max`.
        ConflictRefused: `agreement_overlaps` another of the advertiser's: a line falls under one.
    """
    head = chain.lock_head(connection, retailer_id)
    seq = head.next_seq(AGREEMENT_KIND)
    agreement = Agreement(
        seq, f"cag_{seq}", command.advertiser_id, command.rate_bps, command.min_micros, command.max_micros,
        _ms(command.starts_at), None if command.ends_at is None else _ms(command.ends_at), now_ms,
    )  # fmt: skip
    check_terms(agreement)
    for other in _agreements(connection, retailer_id).get(command.advertiser_id, ()):
        if _terms(other) == _terms(agreement):
            return CommissionAgreed(to_agreement(other), False)
        if agreement.overlaps(other):
            until = "further notice" if other.ends_at_ms is None else to_moment(other.ends_at_ms).isoformat()
            message = f"{other.agreement_id} holds from {to_moment(other.starts_at_ms).isoformat()} until {until}"
            raise ConflictRefused("agreement_overlaps", message, "/starts_at")
    _keep(connection, retailer_id, head, agreement)
    return CommissionAgreed(to_agreement(agreement), True)


def end(connection: Connection, retailer_id: str, command: EndCommission, now_ms: int) -> CommissionAgreed:
    """Say when an agreement ends, or ends otherwise than it was said.

    Raises:
        NotFound: `unknown_agreement`.
        RequestRefused: `moment_out_of_range`, `ends_before_start`.
        ConflictRefused: `already_charged`, an order made after the end was; `agreement_overlaps` the one after it.
    """
    head = chain.lock_head(connection, retailer_id)
    by_id = {one.agreement_id: one for some in _agreements(connection, retailer_id).values() for one in some}
    if command.agreement_id not in by_id:
        raise NotFound("unknown_agreement", f"there is no agreement {command.agreement_id!r}")
    ended = msgspec.structs.replace(
        by_id[command.agreement_id],
        seq=head.next_seq(AGREEMENT_KIND),
        ends_at_ms=_ms(command.ends_at),
        recorded_at_ms=now_ms,
    )
    check_terms(ended)
    last_ms = store.last_commissioned_ms(connection, retailer_id, ended.agreement_id)
    assert ended.ends_at_ms is not None
    if last_ms is not None and last_ms >= ended.ends_at_ms:
        message = f"an order of {to_moment(last_ms).isoformat()} was charged under it"
        raise ConflictRefused("already_charged", message, "/ends_at")
    for other in by_id.values():
        is_another = other.advertiser_id == ended.advertiser_id and other.agreement_id != ended.agreement_id
        if is_another and ended.overlaps(other):
            raise ConflictRefused("agreement_overlaps", f"{other.agreement_id} holds then", "/ends_at")
    _keep(connection, retailer_id, head, ended)
    return CommissionAgreed(to_agreement(ended), True)


def list_agreements(connection: Connection, retailer_id: str, advertiser_id: str | None) -> list[CommissionAgreement]:
    """Return agreements as they stand, all or an advertiser's, in the order they were made."""
    found = [one for some in _agreements(connection, retailer_id).values() for one in some]
    made = sorted(found, key=lambda one: int(one.agreement_id.removeprefix("cag_")))
    return [to_agreement(one) for one in made if advertiser_id in (None, one.advertiser_id)]


def find_due(
    connection: Connection, retailer_id: str, model: AttributionModel, facts_of: FactsOf, now_ms: int, since_ms: int
) -> list[DueOrder]:
    """Return the orders something is to be posted for: made since then and now final, or with goods that came back.

    Args:
        model: how credit is given.
        facts_of: what the ledger does not know of products and visitors.
        now_ms, since_ms: UTC, milliseconds since 1970.
    """
    decide = _Decision(connection, retailer_id, model.name, now_ms)
    due: dict[str, list[LineCredit]] = {
        order_id: [] for order_id in store.list_returned_orders(connection, retailer_id)
    }
    for from_ms, to_ms in _slices(max(since_ms, decide.first_start_ms), now_ms - WITHDRAWAL_MS + 1):
        done = store.list_commissioned(connection, retailer_id, from_ms, to_ms)
        for credit in find_credits(connection, retailer_id, from_ms, to_ms, model, facts_of, now_ms, history_ms=0):
            line, touch = credit.line, credit.touch
            if line.part or (line.order_id, line.line) in done:
                continue
            if agreement_at(decide.agreements, touch.advertiser_id, line.occurred_at_ms) is not None:
                kind = "click" if touch.is_click else "view"
                due.setdefault(line.order_id, []).append(LineCredit(line.line, touch.token_id, kind, credit.basis))
    orders = [DueOrder(order_id, credits) for order_id, credits in sorted(due.items())]
    return [order for order in orders if decide.rows_of(order)]


def post_due(
    connection: Connection,
    retailer_id: str,
    orders: Sequence[DueOrder],
    model_name: str,
    currency: str,
    calendar: Calendar,
    now_ms: int,
) -> tuple[CommissionsPosted, list[str]]:
    """Post what of these orders is due and not posted yet; return it in figures, and whose funds moved.

    Again, it posts nothing. A line is owed in the month its time to withdraw ends in, or in the open one where that is
    sealed; what goes back is booked in the open month.
    """
    head = chain.lock_head(connection, retailer_id)
    decide = _Decision(connection, retailer_id, model_name, now_ms)
    sealed_until, open_period = store.last_sealed(connection, retailer_id), calendar.period(now_ms)
    rows: list[CommissionRow] = []
    for order in orders:
        for row in decide.rows_of(order):
            period = open_period if row.step else calendar.period(row.occurred_at_ms + WITHDRAWAL_MS)
            rows.append(msgspec.structs.replace(row, period=period if period > sealed_until else open_period))
    _post(connection, retailer_id, head, rows, currency, now_ms)
    charged = [row.amount_micros for row in rows if row.step == 0]
    given_back = [-row.amount_micros for row in rows if row.step]
    posted = CommissionsPosted(len(charged), sum(charged), len(given_back), sum(given_back))
    return posted, sorted({row.advertiser_id for row in rows})


def to_commission(row: CommissionRow) -> Commission:
    """Return what was posted for a line as it travels."""
    return Commission(
        order_id=row.order_id, line=row.line, step=row.step, commission_agreement_id=row.agreement_id,
        advertiser_id=row.advertiser_id, campaign_id=row.campaign_id, basis=row.basis, model=row.model,
        quantity=row.quantity, sales_micros=row.sales_micros, amount_micros=row.amount_micros, period=row.period,
        ordered_or_returned_at=to_moment(row.occurred_at_ms), recorded_at=to_moment(row.recorded_at_ms),
        transaction_id=row.transaction_id,
    )  # fmt: skip


def to_agreement(row: Agreement) -> CommissionAgreement:
    """Return an agreement as it travels."""
    return CommissionAgreement(
        commission_agreement_id=row.agreement_id, advertiser_id=row.advertiser_id, rate_bps=row.rate_bps,
        min_micros=row.min_micros, max_micros=row.max_micros, starts_at=to_moment(row.starts_at_ms),
        ends_at=None if row.ends_at_ms is None else to_moment(row.ends_at_ms),
        recorded_at=to_moment(row.recorded_at_ms),
    )  # fmt: skip


class _Decision:
    """What is to be posted for orders, from the tables as they are; asked again, of what was posted nothing is left."""

    def __init__(self, connection: Connection, retailer_id: str, model_name: str, now_ms: int) -> None:
        self._connection, self._retailer_id = connection, retailer_id
        self._model_name, self._now_ms = model_name, now_ms
        self.agreements = _agreements(connection, retailer_id)
        starts = [one.starts_at_ms for some in self.agreements.values() for one in some]
        self.first_start_ms = min(starts, default=now_ms)

    def rows_of(self, order: DueOrder) -> list[CommissionRow]:
        """Return what to post for an order; its rows have no number, month and transaction yet."""
        connection, retailer_id = self._connection, self._retailer_id
        lines = [OrderedLine(*row) for row in store.read_order(connection, retailer_id, order.order_id)]
        posted: dict[int, list[CommissionRow]] = {}
        for row in store.read_commissions_of(connection, retailer_id, order.order_id):
            posted.setdefault(row.line, []).append(row)
        kept, part = units_kept(lines), max((line.part for line in lines), default=0)
        bought = {line.line: line for line in lines if line.part == 0}
        charged = [
            self._charge(order.order_id, bought[one.line], one, kept, part)
            for one in order.credits
            if one.line in bought and one.line not in posted
        ]
        back_ms = max((line.occurred_at_ms for line in lines if line.part), default=0)
        given_back = [self._give_back(steps, kept, part, back_ms) for steps in posted.values()]
        return [row for row in (*charged, *given_back) if row is not None]

    def _charge(
        self, order_id: str, line: OrderedLine, credit: LineCredit, kept: dict[int, int], part: int
    ) -> CommissionRow | None:
        if is_provisional(line.occurred_at_ms, self._now_ms):
            return None
        touched = store.find_touched(self._connection, self._retailer_id, credit.token_id, credit.type)
        agreement = None if touched is None else agreement_at(self.agreements, touched[0], line.occurred_at_ms)
        sales_micros = kept.get(line.line, 0) * line.unit_price_micros
        amount_micros = 0 if agreement is None else commission_of(sales_micros, agreement)
        if touched is None or agreement is None or not amount_micros:
            return None
        return CommissionRow(
            0, order_id, line.line, 0, agreement.agreement_id, agreement.advertiser_id, touched[1], credit.token_id,
            credit.type, credit.basis, self._model_name, part, kept[line.line], sales_micros, amount_micros, "",
            line.occurred_at_ms, self._now_ms, "",
        )  # fmt: skip

    def _give_back(
        self, steps: Sequence[CommissionRow], kept: dict[int, int], part: int, back_ms: int
    ) -> CommissionRow | None:
        """Return what of a line's commission goes back with goods that did, None for nothing."""
        first, left = steps[0], min(kept.get(steps[0].line, 0), steps[0].quantity)
        back_micros = sum(step.amount_micros for step in steps) - commission_kept(
            first.amount_micros, left, first.quantity
        )
        if back_micros <= 0 or self._is_given_back(first, back_micros):
            return None
        return msgspec.structs.replace(
            first, step=len(steps), part=part, quantity=left, sales_micros=first.sales_micros // first.quantity * left,
            amount_micros=-back_micros, occurred_at_ms=back_ms, recorded_at_ms=self._now_ms,
        )  # fmt: skip

    def _is_given_back(self, first: CommissionRow, micros: int) -> bool:
        """Say whether finance gave it back before: it reversed the commission, or credited its invoice by hand."""
        connection, retailer_id = self._connection, self._retailer_id
        if store.read_reversal(connection, retailer_id, first.transaction_id) is not None:
            return True
        number = store.find_invoice(connection, retailer_id, first.advertiser_id, first.period)
        credited = 0 if number is None else store.sum_credited(connection, retailer_id, number)[0]
        if not credited or number is None:
            return False
        invoice = store.read_document(connection, retailer_id, number)
        assert invoice is not None
        returned = store.sum_returned_of(connection, retailer_id, first.advertiser_id, first.period)
        return credited + returned + micros > invoice.net_micros


def _post(
    connection: Connection,
    retailer_id: str,
    head: chain.Head,
    rows: list[CommissionRow],
    currency: str,
    now_ms: int,
) -> None:
    """Post each row's transaction, keep the rows, and bind them to the chain."""
    if not rows:
        return
    transactions = [_transaction(row) for row in rows]
    ids = post(connection, retailer_id, head, transactions, currency, now_ms)
    first_seq = head.next_seq(CHAIN_KIND)
    kept = [
        msgspec.structs.replace(row, seq=seq, transaction_id=transaction_id)
        for seq, (row, transaction_id) in enumerate(zip(rows, ids, strict=True), first_seq)
    ]
    store.insert_commissions(connection, retailer_id, kept)
    leaves = chain.hash_rows(CHAIN_KIND, [msgspec.structs.astuple(row) for row in kept])
    chain.extend(connection, retailer_id, head, CHAIN_KIND, leaves)
    chain.save_head(connection, retailer_id, head)
    owed: dict[str, int] = {}
    for row in kept:
        if row.step == 0:
            owed[row.advertiser_id] = owed.get(row.advertiser_id, 0) + row.amount_micros
    for advertiser_id, micros in owed.items():
        store.ensure_funds(connection, retailer_id, advertiser_id)
        store.move_owed(connection, retailer_id, advertiser_id, micros)


def _transaction(row: CommissionRow) -> Transaction:
    amount = Micros(abs(row.amount_micros))
    if row.step == 0:
        postings = (
            Posting(unbilled(row.advertiser_id, row.period), Side.DEBIT, amount),
            Posting(COMMISSION, Side.CREDIT, amount),
        )
        return Transaction(postings, REASON + row.agreement_id, row.period, row.occurred_at_ms + WITHDRAWAL_MS)
    postings = (
        Posting(COMMISSION, Side.DEBIT, amount),
        Posting(returns(row.advertiser_id, row.period), Side.CREDIT, amount),
    )
    return Transaction(postings, RETURN_REASON + row.agreement_id, row.period, row.occurred_at_ms)


def _agreements(connection: Connection, retailer_id: str) -> dict[str, list[Agreement]]:
    """Return agreements as they stand, by advertiser."""
    latest = {row[1]: Agreement(*row) for row in store.read_agreements(connection, retailer_id)}
    by_advertiser: dict[str, list[Agreement]] = {}
    for agreement in latest.values():
        by_advertiser.setdefault(agreement.advertiser_id, []).append(agreement)
    return by_advertiser


def _keep(connection: Connection, retailer_id: str, head: chain.Head, agreement: Agreement) -> None:
    columns = msgspec.structs.astuple(agreement)
    store.insert_agreement(connection, retailer_id, columns)
    chain.extend(connection, retailer_id, head, AGREEMENT_KIND, chain.hash_rows(AGREEMENT_KIND, [columns]))
    chain.save_head(connection, retailer_id, head)


def _terms(agreement: Agreement) -> tuple[object, ...]:
    return msgspec.structs.astuple(agreement)[2:-1]


def _slices(from_ms: int, to_ms: int) -> Iterator[tuple[int, int]]:
    while from_ms < to_ms:
        yield from_ms, min(from_ms + SLICE_MS, to_ms)
        from_ms += SLICE_MS


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

"""Commission on attributed sales: what an agreement asks for a line of an order, and what of it goes back with goods.

A commission is owed once the buyer may no longer withdraw: 14 days after the order. It is worked out **per line**, from
what was kept of it until then, and rounded once, to whole micros, a half to the even one. What comes back later takes
its part of it along, rounded the same way from what is kept in all, so that returns never come to more than the
original, and a line that came back whole to exactly nothing. Pure: figures in, figures out; `commissioning.py` posts.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from ledger.attribution import Basis
from ledger.errors import RequestRefused

BPS = 10_000  # basis points in one
RATE_BPS_MAX = BPS
MOMENT_MS_MAX = 253_370_764_800_000  # the first of the year 9999; the least is that of 1970


class Agreement(Struct, frozen=True):
    """A row of `commission_agreements`; the last one of an id counts. All in micros and milliseconds since 1970.

    Attributes:
        rate_bps: basis points of the sale.
        min_micros, max_micros: the least and the most for one line of an order that is worth anything; None: no bound.
        starts_at_ms, ends_at_ms: of orders made from then until before then; None: until further notice.
    """

    seq: int
    agreement_id: str
    advertiser_id: str
    rate_bps: int
    min_micros: int | None
    max_micros: int | None
    starts_at_ms: int
    ends_at_ms: int | None
    recorded_at_ms: int

    def covers(self, at_ms: int) -> bool:
        """Say whether an order made then falls under it."""
        return self.starts_at_ms <= at_ms and (self.ends_at_ms is None or at_ms < self.ends_at_ms)

    def overlaps(self, other: "Agreement") -> bool:
        """Say whether an order could fall under both."""
        return (other.ends_at_ms is None or self.starts_at_ms < other.ends_at_ms) and (
            self.ends_at_ms is None or other.starts_at_ms < self.ends_at_ms
        )


class OrderedLine(Struct, frozen=True):
    """A line of an order (part 0) or of a return to it (part over 0, quantity under 0)."""

    part: int
    line: int
    occurred_at_ms: int
    product_id: str
    quantity: int
    unit_price_micros: int


class LineCredit(Struct, frozen=True):
    """A line of an order and the touch it is credited to."""

    line: int
    token_id: str
    type: str
    basis: Basis


class DueOrder(Struct, frozen=True):
    """An order something may be posted for: its credited lines, none where only goods came back."""

    order_id: str
    credits: list[LineCredit] = []


def round_half_even(part: int, whole: int) -> int:
    """Return part / whole as a whole number, a half to the even one; `part` is not negative."""
    rounded, rest = divmod(part, whole)
    return rounded + (2 * rest > whole or (2 * rest == whole and rounded % 2))


def commission_of(sales_micros: int, agreement: Agreement) -> int:
    """Return the commission on one line, in micros, within the agreement's bounds; nothing on nothing."""
    if sales_micros <= 0:
        return 0
    micros = round_half_even(sales_micros * agreement.rate_bps, BPS)
    micros = max(micros, agreement.min_micros or 0)
    return micros if agreement.max_micros is None else min(micros, agreement.max_micros)


def commission_kept(charged_micros: int, kept: int, charged_for: int) -> int:
    """Return what stays of a line's commission when `kept` of the `charged_for` units it was on stay."""
    return round_half_even(charged_micros * min(max(kept, 0), charged_for), charged_for)


def units_kept(lines: Iterable[OrderedLine]) -> dict[int, int]:
    """Return how many units of each line of an order did not come back.

    A returned product is taken from the lines of that product: those of the returned price first, then in their order.
    What is more than was bought is nobody's.
    """
    ordered = sorted(lines, key=lambda line: (line.part, line.line))
    bought = [line for line in ordered if line.part == 0 and line.quantity > 0]
    kept = {line.line: line.quantity for line in bought}
    for back in ordered:
        if back.part == 0:
            continue
        left = -back.quantity
        of_it = [line for line in bought if line.product_id == back.product_id]
        for line in sorted(of_it, key=lambda line: line.unit_price_micros != back.unit_price_micros):
            taken = min(left, kept[line.line])
            kept[line.line] -= taken
            left -= taken
    return kept


def agreement_at(agreements: Mapping[str, Sequence[Agreement]], advertiser_id: str, at_ms: int) -> Agreement | None:
    """Return the agreement an advertiser's order of that moment falls under, None where there is none."""
    return next((one for one in agreements.get(advertiser_id, ()) if one.covers(at_ms)), None)


def check_terms(agreement: Agreement) -> None:
    """Check what no single field's type can say.

    Raises:
        RequestRefused: `moment_out_of_range`, `ends_before_start`, `min_above_max`.
    """
    for name, at_ms in (("starts_at", agreement.starts_at_ms), ("ends_at", agreement.ends_at_ms)):
        if at_ms is not None and not 0 <= at_ms <= MOMENT_MS_MAX:
            raise RequestRefused("moment_out_of_range", f"{name} must be between the years 1970 and 9999", f"/{name}")
    if agreement.ends_at_ms is not None and agreement.ends_at_ms <= agreement.starts_at_ms:
        raise RequestRefused("ends_before_start", "ends_at must be after starts_at", "/ends_at")
    if agreement.max_micros is not None and (agreement.min_micros or 0) > agreement.max_micros:
        message = f"min_micros must be at most max_micros, {agreement.max_micros}, was {agreement.min_micros}"
        raise RequestRefused("min_above_max", message, "/min_micros")

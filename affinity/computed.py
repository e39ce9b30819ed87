"""What we compute of a customer from purchases: RFM class, CLV tier, lifecycle, promophile score, price tier.

Pure functions over a summary of purchases and a scale that says how the shop's customers compare. The one definition
of each figure: the night's computation and the next auction both ask here.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from math import log
from typing import Literal

from msgspec import Struct

OrderStatus = Literal["kept", "partly_returned", "returned"]

DAY_MS = 86_400_000
EPOCH_MS = 1_577_836_800_000  # 2020: what is halved with age is kept in weights of that day, and never needs ageing
ORDER_GAP_MS = 60_000  # purchases reported further apart than this are different orders
NEW_DAYS = 30
ACTIVE_DAYS = 90
LAPSING_DAYS = 180
PRIOR_UNITS = 5.0  # units bought at the shop's own share of promotion, added to everybody's
CLV_HALF_LIFE_DAYS = 180.0  # age at which an order counts half in what a customer is expected to spend
CLV_PRIOR_ORDERS = 2.0  # orders of the shop's mean value, added to everybody's before their mean is taken
FIFTHS = (0.2, 0.4, 0.6, 0.8)
CLV_TIERS = ("low", "medium", "high", "top")
CLV_TIER_SHARES = (0.5, 0.8, 0.95)  # of the buyers, those up to here are low, medium, high


class Purchases(Struct):
    """What a visitor bought, summed up.

    Attributes:
        order_count: orders; purchases within a minute of one another are one.
        first_at_ms, last_at_ms: times of the first and the last purchase; 0 where there is none.
        amount_micros: price paid x quantity, over all purchases with a price.
        recent_orders: the orders in weights of EPOCH_MS, halved every CLV_HALF_LIFE_DAYS.
        last_order_status: whether the last order was returned since.
        units: units bought whose price is known beside the catalogue's.
        promotion_units: of those, units bought under the shelf price.
        price_rank_sum: sum over those units of the product's price rank in its category, 0 to 1.
        through_ms: moment up to which they were computed from everything there was; 0 where never.
    """

    order_count: int = 0
    first_at_ms: int = 0
    last_at_ms: int = 0
    amount_micros: int = 0
    recent_orders: float = 0.0
    last_order_status: OrderStatus = "kept"
    units: float = 0.0
    promotion_units: float = 0.0
    price_rank_sum: float = 0.0
    through_ms: int = 0

    def add(self, other: "Purchases") -> None:
        """Take another device's purchases in."""
        if other.order_count:
            self.first_at_ms = min(self.first_at_ms or other.first_at_ms, other.first_at_ms)
            if other.last_at_ms > self.last_at_ms:
                self.last_order_status = other.last_order_status
            self.last_at_ms = max(self.last_at_ms, other.last_at_ms)
        self.order_count += other.order_count
        self.amount_micros += other.amount_micros
        self.recent_orders += other.recent_orders
        self.units += other.units
        self.promotion_units += other.promotion_units
        self.price_rank_sum += other.price_rank_sum
        self.through_ms = max(self.through_ms, other.through_ms)

    def note(self, at_ms: int, amount_micros: int) -> None:
        """Count a purchase."""
        is_same_order = self.order_count > 0 and (
            abs(at_ms - self.last_at_ms) <= ORDER_GAP_MS or abs(at_ms - self.first_at_ms) <= ORDER_GAP_MS
        )
        if not is_same_order:
            self.order_count += 1
            self.recent_orders += 2.0 ** ((at_ms - EPOCH_MS) / (CLV_HALF_LIFE_DAYS * DAY_MS))
            if at_ms > self.last_at_ms:
                self.last_order_status = "kept"
        self.first_at_ms = min(self.first_at_ms or at_ms, at_ms)
        self.last_at_ms = max(self.last_at_ms, at_ms)
        self.amount_micros += amount_micros

    def note_units(self, quantity: int, price_micros: int | None, shelf_price_micros: int, price_rank: float) -> None:
        """Count units of a product: those paid less for than the shelf price were on promotion; negative: returned."""
        if price_micros is None or not shelf_price_micros:
            return
        self.units += quantity
        self.promotion_units += quantity * (price_micros < shelf_price_micros)
        self.price_rank_sum += quantity * price_rank


class CustomerScale(Struct, frozen=True):
    """How the shop's customers compare: the four bounds between quintiles, and the share bought on promotion.

    Attributes:
        last_at_ms: of the time of the last order: the least of the next fifth.
        order_count: of the number of orders: the greatest of the fifth before.
        amount_micros: of what was spent in all, likewise.
        promotion_share: share of units the shop's customers buy on promotion.
        order_value_micros: what an order of theirs comes to in the mean.
        clv: bounds between the tiers, of `_worth`.
    """

    last_at_ms: tuple[float, ...] = ()
    order_count: tuple[float, ...] = ()
    amount_micros: tuple[float, ...] = ()
    promotion_share: float = 0.0
    order_value_micros: float = 0.0
    clv: tuple[float, ...] = ()


def measure_customers(customers: Iterable[Purchases]) -> CustomerScale:
    """Return the scale of those who bought anything."""
    buyers = [one for one in customers if one.order_count]
    units = sum(one.units for one in buyers)
    order_count = sum(one.order_count for one in buyers)
    order_value = sum(one.amount_micros for one in buyers) / order_count if order_count else 0.0
    return CustomerScale(
        last_at_ms=_bounds([one.last_at_ms for one in buyers], FIFTHS),
        order_count=_ends([one.order_count for one in buyers], FIFTHS),
        amount_micros=_ends([one.amount_micros for one in buyers], FIFTHS),
        promotion_share=sum(one.promotion_units for one in buyers) / units if units else 0.0,
        order_value_micros=order_value,
        clv=_bounds([_worth(one, order_value) for one in buyers], CLV_TIER_SHARES),
    )


def rfm_class(purchases: Purchases, scale: CustomerScale) -> str | None:
    """Name the customer's class by quintiles of recency, and of frequency and amount together.

    None for who never bought. The eleven classes are those CRM teams use; each covers a rectangle of the two scores.
    """
    if not purchases.order_count:
        return None
    recency = 1 + bisect_right(scale.last_at_ms, purchases.last_at_ms)
    # Many customers share one number of orders, and one amount: that is the low end, not the high one.
    frequency = 1 + bisect_left(scale.order_count, purchases.order_count)
    amount = 1 + bisect_left(scale.amount_micros, purchases.amount_micros)
    worth = round((frequency + amount + 0.01) / 2)
    return _RFM_GRID[recency - 1][worth - 1]


#   worth:  1               2                     3                     4               5
_RFM_GRID = (
    ("lost", "hibernating", "at_risk", "at_risk", "cannot_lose"),  # recency 1: bought longest ago
    ("hibernating", "hibernating", "at_risk", "at_risk", "cannot_lose"),
    ("about_to_sleep", "about_to_sleep", "needs_attention", "loyal", "loyal"),
    ("promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"),
    ("new", "potential_loyalist", "potential_loyalist", "champion", "champion"),  # recency 5: bought last
)


def clv_tier(purchases: Purchases, scale: CustomerScale) -> str | None:
    """Name the tier of what the customer is expected to spend: low, medium, high, or top. None for who never bought."""
    if not purchases.order_count:
        return None
    return CLV_TIERS[bisect_right(scale.clv, _worth(purchases, scale.order_value_micros))]


def clv_micros(purchases: Purchases, scale: CustomerScale, now_ms: int) -> int:
    """Return what the customer is expected to spend in the coming year; a forecast, never an amount owed.

    Orders halved with age, over the mean age that leaves them, are a rate; a year of it at the customer's mean value of
    an order. It ranks customers as a fitted BG/NBD model with mean values does, or better (README).
    """
    rate_per_day = log(2.0) / CLV_HALF_LIFE_DAYS
    aged = float(2.0 ** (-(now_ms - EPOCH_MS) / (CLV_HALF_LIFE_DAYS * DAY_MS)))
    return round(365 * rate_per_day * aged * _worth(purchases, scale.order_value_micros))


def lifecycle(purchases: Purchases, now_ms: int) -> str:
    """Name where the customer stands: prospect, new, active, lapsing or lost."""
    if not purchases.order_count:
        return "prospect"
    days_since_last = (now_ms - purchases.last_at_ms) / DAY_MS
    if (now_ms - purchases.first_at_ms) / DAY_MS <= NEW_DAYS:
        return "new"
    if days_since_last <= ACTIVE_DAYS:
        return "active"
    return "lapsing" if days_since_last <= LAPSING_DAYS else "lost"


def promotion_share(purchases: Purchases) -> float | None:
    """Return which share of the units the customer bought under the shelf price; None where none has a known price."""
    return purchases.promotion_units / purchases.units if purchases.units > 0 else None


def promotion_lift(purchases: Purchases, scale: CustomerScale) -> float | None:
    """Return that share over the shop's own; None where either is not known."""
    share = promotion_share(purchases)
    return share / scale.promotion_share if share is not None and scale.promotion_share else None


def promophile_score(purchases: Purchases, scale: CustomerScale) -> float | None:
    """Return 0 to 100: how much of what the customer buys is on promotion, drawn towards the shop's share.

    The shop's own share scores 50; None for who bought nothing with a known price.
    """
    if purchases.units <= 0:
        return None
    usual = scale.promotion_share
    share = (purchases.promotion_units + PRIOR_UNITS * usual) / (purchases.units + PRIOR_UNITS)
    if share <= usual:
        return 50.0 * share / usual if usual else 50.0
    return 50.0 + 50.0 * (share - usual) / (1.0 - usual)


def price_tier(purchases: Purchases) -> float | None:
    """Return 0 to 100: the mean place of what was bought among its category's prices, 0 the cheapest."""
    return 100.0 * purchases.price_rank_sum / purchases.units if purchases.units > 0 else None


def _bounds(values: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """Return the least value above each of those shares of all; none where there is no value."""
    ordered = sorted(values)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share + 1e-9))] for share in shares if ordered)


def _ends(values: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """Return the greatest value within each of those shares of all; none where there is no value."""
    ordered = sorted(values)
    return tuple(ordered[max(0, int(len(ordered) * share + 1e-9) - 1)] for share in shares if ordered)


def _worth(purchases: Purchases, order_value_micros: float) -> float:
    """Return what buyers are ranked by: their orders, halved with age, times the mean value of one."""
    value = (purchases.amount_micros + CLV_PRIOR_ORDERS * order_value_micros) / (
        purchases.order_count + CLV_PRIOR_ORDERS
    )
    return purchases.recent_orders * value

"""How well what we expect of customers ranks them by what they go on to spend, beside a fitted BG/NBD model.

Run as `python -m tests.bench.bench_customers FILE…`: Parquet or CSV files of orders' lines with a column for the
customer, the order, the time and the amount (named on the command line where they are not `customer_id`, `order_id`,
`at`, `amount`). Reading Parquet needs pyarrow (`uv sync --group data`).

Each set is cut in time: what came before the cut is all the models know, what came after is what they are measured on,
over all customers who bought before it. The figures: Spearman's rank correlation with the amount spent afterwards and
with the number of orders, and the share of that amount spent by the tenth ranked highest.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln, hyp2f1
from scipy.stats import spearmanr

from affinity.computed import CLV_PRIOR_ORDERS, DAY_MS, Purchases, clv_micros, measure_customers, rfm_class

Floats = NDArray[np.float64]

RFM_ORDER = (
    "lost", "hibernating", "about_to_sleep", "new", "promising", "at_risk", "needs_attention", "cannot_lose",
    "potential_loyalist", "loyal", "champion",
)  # fmt: skip


class Order(NamedTuple):
    """One order of a set."""

    customer: str
    at_ms: int
    micros: int


class Customers(NamedTuple):
    """What was known of the customers at the cut, and what they did afterwards; (C,) each."""

    purchases: list[Purchases]
    order_count: Floats
    first_day: Floats
    last_day: Floats
    amount: Floats
    age_days: Floats
    spent_later: Floats
    orders_later: Floats


def read_orders(path: Path, columns: Sequence[str]) -> list[Order]:
    """Return the orders of a file, in the order of their times; lines with nothing or less to pay are left out."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows: Any = zip(*(parquet.read_table(path, columns=[name])[name].to_pylist() for name in columns), strict=True)
    else:
        with path.open(newline="") as file:
            rows = [[row[name] for name in columns] for row in csv.DictReader(file)]
    micros: dict[tuple[str, str], int] = defaultdict(int)
    at_ms: dict[tuple[str, str], int] = {}
    for customer, order, at, amount in rows:
        if customer is None or not float(amount) > 0:
            continue
        key = str(customer), str(order)
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        at_ms[key] = min(at_ms.get(key, 1 << 62), round(moment.timestamp() * 1000))
        micros[key] += round(float(amount) * 1_000_000)
    return sorted((Order(key[0], at_ms[key], micros[key]) for key in micros), key=lambda order: order.at_ms)


def cut(orders: list[Order], cut_ms: int) -> Customers:
    """Return the customers who bought before the cut."""
    known: dict[str, Purchases] = defaultdict(Purchases)
    spent: dict[str, float] = defaultdict(float)
    again: dict[str, int] = defaultdict(int)
    for order in orders:
        if order.at_ms < cut_ms:
            known[order.customer].note(order.at_ms, order.micros)
        else:
            spent[order.customer] += order.micros / 1e6
            again[order.customer] += 1
    purchases = list(known.values())

    def column(of: Callable[[Purchases], float]) -> Floats:
        return np.array([of(one) for one in purchases], float)

    return Customers(
        purchases,
        column(lambda one: one.order_count),
        column(lambda one: one.first_at_ms / DAY_MS),
        column(lambda one: one.last_at_ms / DAY_MS),
        column(lambda one: one.amount_micros / 1e6),
        column(lambda one: (cut_ms - one.first_at_ms) / DAY_MS),
        np.array([spent[name] for name in known]),
        np.array([again[name] for name in known], float),
    )


def bg_nbd(customers: Customers, days_ahead: float) -> Floats:
    """Return the orders a BG/NBD model, fitted by greatest likelihood, expects of each customer.

    Source: Fader, Hardie and Lee, "Counting your customers" the easy way: an alternative to the Pareto/NBD model,
    Marketing Science 24 (2005), equations 6 and 10.
    """
    repeats = customers.order_count - 1
    recency, age = customers.last_day - customers.first_day, customers.age_days
    later = np.maximum(repeats, 1)

    def loss(logs: Floats) -> float:
        r, alpha, a, b = np.exp(logs)
        common = gammaln(r + repeats) - gammaln(r) + r * np.log(alpha)
        common += gammaln(a + b) + gammaln(b + repeats) - gammaln(b) - gammaln(a + b + repeats)
        alive = -(r + repeats) * np.log(alpha + age)
        gone = np.log(a) - np.log(b + later - 1) - (r + repeats) * np.log(alpha + recency)
        return -float(np.mean(common + np.logaddexp(alive, np.where(repeats > 0, gone, -np.inf))))

    found = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 3000, "fatol": 1e-8})
    r, alpha, a, b = np.exp(found.x)
    hypergeometric = hyp2f1(r + repeats, b + repeats, a + b + repeats - 1, days_ahead / (alpha + age + days_ahead))
    grown = ((alpha + age) / (alpha + age + days_ahead)) ** (r + repeats)
    expected = (a + b + repeats - 1) / (a - 1) * (1 - grown * hypergeometric)
    odds = a / (b + later - 1) * ((alpha + age) / (alpha + recency)) ** (r + repeats)
    return np.asarray(expected / (1 + np.where(repeats > 0, odds, 0)), float)


def rankings(customers: Customers, cut_ms: int, days_ahead: float) -> dict[str, Floats]:
    """Return what each model ranks the customers by."""
    scale = measure_customers(customers.purchases)
    expected = bg_nbd(customers, days_ahead)
    mean = customers.amount / customers.order_count
    usual = customers.amount.sum() / customers.order_count.sum()
    drawn = (customers.amount + CLV_PRIOR_ORDERS * usual) / (customers.order_count + CLV_PRIOR_ORDERS)
    classes = [RFM_ORDER.index(rfm_class(one, scale) or "lost") for one in customers.purchases]
    return {
        "ours: clv_micros": np.array([clv_micros(one, scale, cut_ms) for one in customers.purchases], float),
        "BG/NBD x mean value": expected * mean,
        "BG/NBD x drawn value": expected * drawn,
        "BG/NBD, orders only": expected,
        "amount spent": customers.amount,
        "number of orders": customers.order_count,
        "days since the last": customers.last_day,
        "our RFM class": np.array(classes, float),
    }


def measure(path: Path, columns: Sequence[str], known_share: float) -> None:
    """Print the figures of one set."""
    orders = read_orders(path, columns)
    first_ms, last_ms = orders[0].at_ms, orders[-1].at_ms
    cut_ms = round(first_ms + (last_ms - first_ms) * known_share)
    days_ahead = (last_ms - cut_ms) / DAY_MS
    customers = cut(orders, cut_ms)
    before = f"{int(customers.order_count.sum()):,} orders in {(cut_ms - first_ms) / DAY_MS:.0f} days"
    after = f"{int(customers.orders_later.sum()):,} in the {days_ahead:.0f} days after"
    print(f"\n{path.name}: {len(customers.purchases):,} customers, {before}, {after}\n")
    print("| ranked by | spent afterwards | orders afterwards | spent by the best tenth |\n|---|---|---|---|")
    tenth = len(customers.purchases) // 10
    for name, ranking in rankings(customers, cut_ms, days_ahead).items():
        best = np.argsort(-ranking, kind="stable")[:tenth]
        by_best = customers.spent_later[best].sum() / customers.spent_later.sum()
        spent, again = (spearmanr(ranking, one).statistic for one in (customers.spent_later, customers.orders_later))
        print(f"| {name} | {spent:.3f} | {again:.3f} | {by_best:.1%} |", flush=True)


def main() -> None:
    """Measure the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--columns", default="customer_id,order_id,at,amount", help="of customer, order, time, amount")
    parser.add_argument("--known", type=float, default=0.7, help="share of the time before the cut [default: 0.7]")
    given = parser.parse_args()
    for path in given.files:
        measure(path, given.columns.split(","), given.known)


if __name__ == "__main__":
    main()

"""What a day's budget buys under pacing, against the best one multiplier in hindsight; and what late clicks give back.

Run as `python -m tests.bench.bench_pacing [auctions a day]`. No times: figures of a simulated market around the real
`SpendView` (tests/auction/paced_days.py), the same in every run. The budget is 30 % of what bidding in full would
spend; prices rise and fall by 60 % with the day, traffic by half, out of step.

- *first day*: of a campaign nobody knows anything of, in a shop whose traffic nobody has seen.
- *value*: charged events, each worth the same, over those of the best multiplier held all day, known afterwards.
- *given back*: of what was spent, clicks that came when the budget was used up.
"""

import sys

import numpy as np

from tests.auction.paced_days import (
    MIDNIGHT_MS,
    PPM,
    Prices,
    best_fixed,
    prices_of_day,
    run_day,
    run_target_day,
    share_of_everything,
    view_of,
    view_with_target,
)

DAY_COUNT = 3


def print_days(auction_count: int) -> None:
    """Print what becomes of a campaign's first days."""
    print("| prices | day | value | spent / budget | last win, of the day |\n|---|---|---|---|---|", flush=True)
    for name, phase in (("dear first", 0.0), ("cheap first", 0.5)):
        budget = share_of_everything(prices_of_day(auction_count, 1, 0, phase=phase), 0.3)
        view = view_of(budget)
        for day in range(DAY_COUNT):
            prices = prices_of_day(auction_count, 1, day, phase=phase)
            run = run_day(view, prices, budget, spent_before_micros=day * budget)
            value = run.event_count / best_fixed(prices, budget)[0]
            spent = run.spent_micros / budget
            print(f"| {name} | {day + 1} | {value:.3f} | {spent:.4f} | {run.last_win_share:.4f} |", flush=True)


def print_late_clicks() -> None:
    """Print what is given back when 64 clients ask for pages as fast as they can, for one small budget."""
    print("\n| budget, clicks | clicks come after | given back | spent / budget |\n|---|---|---|---|", flush=True)
    for click_count in (50, 200, 1_000):
        for name in ("60 s", "60 s on average"):
            spent = given_back = 0
            for seed in range(3):
                chance = np.random.default_rng((seed, 9))
                count = 60_000
                prices = Prices(
                    at_ms=MIDNIGHT_MS + 36_000_000 + np.sort(chance.integers(0, 1_800_000, count)),
                    price_micros=chance.integers(300_000, 900_000, count),
                    happens=chance.integers(0, PPM, count) < 60_000,
                )
                delay = 60_000 if name == "60 s" else chance.exponential(60_000, count).astype(np.int64)
                run = run_day(view_of(600_000 * click_count, "asap"), prices, 600_000 * click_count, 60_000, delay)
                spent, given_back = spent + run.spent_micros, given_back + run.given_back_micros
            share = spent / (3 * 600_000 * click_count)
            print(f"| {click_count} | {name} | {given_back / spent:.2%} | {share:.4f} |", flush=True)


def print_targets(auction_count: int) -> None:
    """Print how near campaigns come to a target ROAS; bidding in full, they would reach 1.8."""
    print("\n| target ROAS | reached, second half of the day |\n|---|---|", flush=True)
    for target in (2.4, 2.8):
        prices = prices_of_day(auction_count, 1, swing=0.3)
        spent, sales, _ = run_target_day(view_with_target(target), prices, 100_000, 18_000_000, 600_000, 1)
        print(f"| {target} | {sum(sales[6:]) / sum(spent[6:]):.3f} |", flush=True)


def main(auction_count: int = 100_000) -> None:
    """Print the tables."""
    print_days(auction_count)
    print_late_clicks()
    print_targets(min(auction_count, 30_000))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

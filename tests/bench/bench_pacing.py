"""What a day's budget buys under pacing, against the best one multiplier in hindsight; and what late clicks give back.

Run as `python -m tests.bench.bench_pacing [auctions a day]`. No times: figures of a simulated market around the real
`SpendView` (tests/auction/paced_days.py), the same in every run. The budget is 30 % of what bidding in full would
spend; prices rise and fall by 60 % with the day, traffic by half, out of step.

- *first day*: of a campaign nobody knows anything of, in a shop whose traffic nobody has seen.
- *value*: charged events, each worth the same, over those of the best multiplier held all day, known afterwards.
- *given back*: of what was spent, clicks that came when the budget was used up.
"""

import sys

from tests.auction.paced_days import CLICK_MICROS, prices_of_day, run_days, run_late_clicks, run_target_day

DAY_COUNT = 3
SEED_COUNT = 3


def print_days(auction_count: int) -> None:
    """Print what becomes of a campaign's first days."""
    print("| prices | day | value | spent / budget | last win, of the day |\n|---|---|---|---|---|", flush=True)
    for name, phase in (("dear first", 0.0), ("cheap first", 0.5)):
        for number, day in enumerate(run_days(DAY_COUNT, auction_count, seed=1, phase=phase), start=1):
            value = day.run.event_count / day.best_event_count
            spent = day.run.spent_micros / day.budget_micros
            print(f"| {name} | {number} | {value:.3f} | {spent:.4f} | {day.run.last_win_share:.4f} |", flush=True)


def print_late_clicks() -> None:
    """Print what is given back when 64 clients ask for pages as fast as they can, for one small budget."""
    print("\n| budget, clicks | clicks come after | given back | spent / budget |\n|---|---|---|---|", flush=True)
    for click_count in (50, 200, 1_000):
        for name, is_delay_random in (("60 s", False), ("60 s on average", True)):
            runs = [
                run_late_clicks(click_count, 60_000, 60_000, (seed, 9), is_delay_random=is_delay_random)
                for seed in range(SEED_COUNT)
            ]
            spent = sum(run.spent_micros for run in runs)
            given_back = sum(run.given_back_micros for run in runs)
            share = spent / (SEED_COUNT * click_count * CLICK_MICROS)
            print(f"| {click_count} | {name} | {given_back / spent:.2%} | {share:.4f} |", flush=True)


def print_targets(auction_count: int) -> None:
    """Print how near campaigns come to a target ROAS; bidding in full, they would reach 1.8."""
    print("\n| target ROAS | reached, second half of the day |\n|---|---|", flush=True)
    for target in (2.4, 2.8):
        day = run_target_day(target, prices_of_day(auction_count, 1, swing=0.3), seed=1)
        print(f"| {target} | {day.late_roas:.3f} |", flush=True)


def main(auction_count: int = 100_000) -> None:
    """Print the tables."""
    print_days(auction_count)
    print_late_clicks()
    print_targets(min(auction_count, 30_000))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The host: trains the model, sets the market up over HTTP, shows around, and checks. A process of its own.

So that the self-check measures the server from outside, and shares neither interpreter nor event loop with it.
"""

import sys
import time
from pathlib import Path

from bidder_api.demonstration.client import ApiClient, ServerGoneError
from bidder_api.demonstration.keys import KEYS_FILE, read_keys, site_keys
from bidder_api.demonstration.load import read_end_caps, read_shipped_products, train
from bidder_api.demonstration.setup import (
    describe_balance,
    describe_takings,
    page_categories,
    set_up,
    time_fills,
    wait_for_paid_fills,
)
from bidder_api.demonstration.shoppers import send_shoppers
from bidder_api.demonstration.state import make_console, read_state, showing, write_state
from bidder_api.settings import read_settings

CHECK_FILL_COUNT = 1_000
FILL_BUDGET_MS = 20.0
SHOPPER_PAGE_COUNT = 250
VISITOR_COUNT = 2_000
READY_WITHIN_S = 120.0
ROLES = ("admin", "merchant", "retailer", "site", "advertiser", "finance", "auditor", "crm")


def main(arguments: list[str]) -> int:
    """Receive the demo's visitors: data folder, port and time of the start are the arguments."""
    data_dir, port, began_at = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    try:
        host = Host(data_dir, port)
        host.train()
        host.set_up()
        host.show_around(time.time() - began_at)
        host.check()
    except (KeyboardInterrupt, ServerGoneError):  # whoever stopped the demo knows why
        return 0
    except Exception as failure:
        make_console().print(f"The demo could not be set up: {failure}", markup=False, style="bold red")
        return 1
    return 0


class Host:
    """Does over HTTP what a merchant, finance and brands would, and what a visitor of the demo wants to see."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._data_dir = data_dir
        self._port = port
        self._keys = read_keys(data_dir)
        self._console = make_console()
        self._products = read_shipped_products()

    def train(self) -> None:
        """Train the model while the server starts, which takes it up when it is there."""
        train(read_settings(data_dir=self._data_dir), self._console)

    def set_up(self) -> None:
        """Post the market if it is not there yet, and wait until it is live."""
        with ApiClient(self._port, self._keys["admin"]) as admin:
            admin.wait_until("/v1/placements", READY_WITHIN_S)  # the market can be posted while visitors are still read
            state = read_state(self._data_dir)
            if not state.is_set_up:
                with showing(self._console, "Placements, rules, money, bids") as progress:
                    set_up(admin, self._products, read_end_caps(), progress)
                state.is_set_up = True
                write_state(self._data_dir, state)
            admin.wait_until("/readyz", READY_WITHIN_S)
            wait_for_paid_fills(admin)

    def show_around(self, took_s: float) -> None:
        """Print addresses and keys."""
        port, show = self._port, self._console.print
        show(f"\nReady with paid fills after [bold]{took_s:.1f} s[/].\n")
        show(f"Shop               http://127.0.0.1:{port}/")
        show(f"Console            http://127.0.0.1:{port}/console   (sign in with a key from below)")
        show(f"API documentation  http://127.0.0.1:{port}/docs")
        show(f"Metrics            http://127.0.0.1:{port}/metrics")
        show(f"\nOne key per role, kept in {self._data_dir / KEYS_FILE}:\n")
        keys = self._keys | {"site": site_keys(self._keys)[f"http://127.0.0.1:{port}"]}
        for role in ROLES:
            show(f"{role:<11}{keys[role]}", markup=False)

    def check(self) -> None:
        """Measure fills, let simulated shoppers by, and read the books."""
        show, state = self._console.print, read_state(self._data_dir)
        visitor_ids = [f"household-{number}" for number in range(1, VISITOR_COUNT + 1)]
        categories = sorted({category for product in self._products for category in page_categories(product)})
        show("")
        with ApiClient(self._port, self._keys["retailer"]) as site:
            with showing(self._console, "Self-check") as progress:
                timing = time_fills(site, visitor_ids, categories, CHECK_FILL_COUNT, progress)
            with showing(self._console, "Simulated shoppers") as progress:
                takings = send_shoppers(site, visitor_ids, categories, SHOPPER_PAGE_COUNT, state.run_count, progress)
        state.run_count += 1
        write_state(self._data_dir, state)
        with ApiClient(self._port, self._keys["finance"]) as finance:
            balance = finance.call("GET", "/v1/ledger/trial-balance")
        verdict = "within" if timing.p99_ms <= FILL_BUDGET_MS else "over"
        show(
            f"\nSelf-check: {CHECK_FILL_COUNT:,} fills over HTTP, p50 {timing.p50_ms:.1f} ms, "
            f"p99 {timing.p99_ms:.1f} ms, {verdict} the budget of {FILL_BUDGET_MS:g} ms; "
            f"paid places on {timing.paid_share:.0%} of the pages."
        )
        show(f"Shoppers: {describe_takings(takings)}")
        show(f"Ledger: {describe_balance(balance)}")
        show("\nBids and clicks here are simulated; the data holds none. Ctrl-C stops the demo.\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

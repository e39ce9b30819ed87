"""Print every figure of the README's table: `make bench`. Each ratio is measured side by side in one run.

The files can be run one by one too: `python -m tests.bench.bench_auction`, `…bench_fills`, `…bench_kernel`,
`…bench_core`, `…bench_affinity`, `…bench_ledger`, `…bench_pacing`, `…bench_console`. Run by hand alone:
`…bench_customers FILE…`, which measures on orders of your own, and `…bench_restart`, which takes long.
"""

import os
import platform
import sys

from tests.bench import (
    bench_affinity,
    bench_auction,
    bench_console,
    bench_core,
    bench_fills,
    bench_kernel,
    bench_ledger,
    bench_pacing,
)

PARTS = {
    "Deciding a page": bench_auction.main,
    "POST /v1/fills beside bare routes": bench_fills.main,
    "The auction's kernel alone": bench_kernel.main,
    "Many auctions in one call, and the closed loop": bench_core.main,
    "Navigation and affinity": bench_affinity.main,
    "Billing events made durable": bench_ledger.main,
    "Budgets: a paced day, late clicks, target ROAS": bench_pacing.main,
    "The console's campaigns' page": bench_console.main,
}


def main() -> int:
    """Run every part after the other, so that none slows another."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors", flush=True)
    for title, part in PARTS.items():
        print(f"\n{title}\n", flush=True)
        part()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long a server takes to be ready again over a million charges, killed, beside one over none.

Run as `python -m tests.bench.bench_restart [CHARGES]`. Both are killed with -9 and started in turns, so that a busy
machine slows them alike; figures are medians, and what was still to come by then says where the time goes.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from bidder_api.database import Database, open_database
from bidder_api.deployment import read_deployment
from ledger import store
from ledger.beacon import BeaconKeys
from ledger.command import AddFunds
from ledger.settings import Settings
from ledger.writer import LedgerWriter
from tests.bench.bench_ledger import Market, now_ms
from tests.server import RunningServer

CHARGE_COUNT = 1_000_000
GROUP = 2_000
ROUND_COUNT = 5
PROMISED_S = 5.0


def fill(database: Database, charge_count: int) -> None:
    """Charge clicks through the writer itself, some thousands a commit."""
    deployment = database.read(read_deployment)
    assert deployment is not None
    market = Market(seed=1)
    keys = BeaconKeys.parse(BeaconKeys.generate())
    market.keys = keys
    writer = LedgerWriter(database.transact, database.read, deployment.retailer_id, keys, Settings(), now_ms)
    for advertiser_id in market.advertisers:
        writer.command(AddFunds("top-up", advertiser_id, 10**13, advertiser_id))
    for campaign_id, _, n in market.campaigns:
        limits = (campaign_id, market.advertisers[n], 10**13, 10**13)
        database.transact(
            lambda connection, limits=limits: store.set_campaign_limits(connection, deployment.retailer_id, *limits)
        )
    for _ in range(charge_count // GROUP):
        (results,), _ = writer.record([market.clicks(GROUP)])
        assert all(result.amount_micros for result in results)


def start(server: RunningServer) -> tuple[float, dict[str, float]]:
    """Start the server; return the seconds until it is ready, and until each part was no longer missing."""
    began = time.monotonic()
    server.start()
    parts: dict[str, float] = {}
    missing: set[str] = set()
    while True:
        try:
            answer = httpx2.get(f"{server.url}/readyz", timeout=2)
        except httpx2.TransportError:
            time.sleep(0.01)
            continue
        after_s = time.monotonic() - began
        parts.setdefault("listening", after_s)
        ready = answer.status_code == 200
        still = set() if ready else set(answer.json()["detail"].partition(": ")[2].split(", "))
        parts |= dict.fromkeys(missing - still, after_s)
        missing = still
        if ready:
            return after_s, parts
        time.sleep(0.01)


def main(charge_count: int = CHARGE_COUNT) -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as folder:
        servers = {"none": RunningServer(Path(folder) / "none"), "charges": RunningServer(Path(folder) / "charges")}
        for server in servers.values():
            start(server)
            server.kill()
        database = open_database(f"sqlite:///{folder}/charges/endcap.db")
        began = time.monotonic()
        fill(database, charge_count)
        database.close()
        print(f"{charge_count:,} charges recorded in {time.monotonic() - began:.0f} s")
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        parts: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for _ in range(ROUND_COUNT):
            for name, server in servers.items():
                ready_s, told = start(server)
                seconds[name].append(ready_s)
                parts[name].append(told)
                server.kill()
                time.sleep(0.5)
        for name in servers:
            each = {part for told in parts[name] for part in told}
            times = {part: statistics.median(told.get(part, 0.0) for told in parts[name]) for part in each}
            where = ", ".join(f"{part} {after:.2f}" for part, after in sorted(times.items(), key=lambda one: one[1]))
            print(f"  over {name:<8} ready after {statistics.median(seconds[name]):.2f} s  ({where})")
        more = statistics.median(seconds["charges"]) - statistics.median(seconds["none"])
        print(f"  {charge_count:,} charges cost {more:+.2f} s of the start (promised: ready ≤ {PROMISED_S:g} s)")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

"""How fast billing events become durable, against SQLite given the finished rows; and what a beacon costs.

Run as `python -m tests.bench.bench_ledger`. The rounds of the contestants are interleaved, batch by batch, on the same
disk, so that a busy machine slows them alike; figures are medians over batches.

- *ledger*: reported events in, results out: tokens opened, budgets checked, postings balanced, chain extended.
- *same tables*: SQLite inserts the very rows that commit made, into the same tables with the same indexes.
- *bare tables*: the same rows into tables without any key or index.
"""

import gc
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bidder_api.database import Database, open_database, sqlite_library
from bidder_api.migration import upgrade
from ledger import store
from ledger.beacon import BeaconKeys
from ledger.command import AddFunds
from ledger.event import EventType, ReportedEvent
from ledger.money import Micros
from ledger.settings import Settings
from ledger.terms import ChargeOn, ChargeTerms, new_id
from ledger.writer import LedgerWriter

BATCH_EVENT_COUNT = 256
BATCH_COUNT = 150
ADVERTISER_COUNT = 20
CAMPAIGN_COUNT = 100
COPIED = ("events", "entries", "touches", "chain")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Market:
    """Funded advertisers with campaigns, and clicks on their fills."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.keys = BeaconKeys.parse(BeaconKeys.generate())
        self.advertisers = [self.id("adv") for _ in range(ADVERTISER_COUNT)]
        self.campaigns = [(self.id("cmp"), self.id("bid"), n % ADVERTISER_COUNT) for n in range(CAMPAIGN_COUNT)]
        self.visitors = [self.chance.randbytes(16) for _ in range(50_000)]

    def id(self, prefix: str) -> str:
        return new_id(prefix, now_ms(), self.chance.randbytes(10))

    def terms(self) -> ChargeTerms:
        campaign_id, bid_id, advertiser = self.chance.choice(self.campaigns)
        return ChargeTerms(
            auction_id=self.id("auc"),
            placement_id="category-top",
            slot_position=self.chance.randint(1, 8),
            product_id=str(self.chance.randint(10**6, 10**7)),
            is_sponsored=True,
            advertiser_id=self.advertisers[advertiser],
            campaign_id=campaign_id,
            bid_id=bid_id,
            charge_on=ChargeOn.CLICK,
            price_micros=Micros(self.chance.randint(1, 999_983)),
            quality_ppm=self.chance.randint(1, 10**6),
            visitor_pseudonym=self.chance.choice(self.visitors),
            variant=None,
            issued_at_ms=now_ms(),
        )

    def clicks(self, count: int) -> list[ReportedEvent]:
        return [
            ReportedEvent(
                event_id=self.chance.randbytes(12).hex(),
                type=EventType.CLICK,
                beacon_token=self.keys.seal_beacon(self.terms()),
            )
            for _ in range(count)
        ]


def main() -> None:
    market = Market(seed=1)
    make_us, redeem_us = measure_beacons(market)
    print(f"beacon: make {make_us:.1f} µs, redeem {redeem_us:.1f} µs (promised: ≤ 8 each)")
    with tempfile.TemporaryDirectory(dir=os.environ.get("ENDCAP_BENCH_DIR")) as folder:
        ledger_s, same_s, bare_s = measure_commits(market, Path(folder))
    print(f"durable events/s, {BATCH_EVENT_COUNT} a commit, median of {BATCH_COUNT} commits:")
    print(f"  ledger        {BATCH_EVENT_COUNT / ledger_s:>10,.0f}")
    print(f"  same tables   {BATCH_EVENT_COUNT / same_s:>10,.0f}   ledger at {same_s / ledger_s:.0%}")
    print(f"  bare tables   {BATCH_EVENT_COUNT / bare_s:>10,.0f}   ledger at {bare_s / ledger_s:.0%}")


def measure_beacons(market: Market, count: int = 5_000, rounds: int = 7) -> tuple[float, float]:
    """Return microseconds to make and to redeem one token, the median over rounds."""
    make, redeem = [], []
    for _ in range(rounds):
        terms = [market.terms() for _ in range(count)]
        started = time.perf_counter()
        tokens = [market.keys.seal_beacon(one) for one in terms]
        made = time.perf_counter()
        at_ms = now_ms()
        redeemed = [market.keys.redeem_beacon(token, at_ms) for token in tokens]
        done = time.perf_counter()
        assert [beacon.terms for beacon in redeemed] == terms
        make.append((made - started) / count * 1e6)
        redeem.append((done - made) / count * 1e6)
    return statistics.median(make), statistics.median(redeem)


def measure_commits(market: Market, folder: Path) -> tuple[float, float, float]:
    """Return seconds per commit: the ledger's, the same rows' in the same tables, and in bare ones."""
    gc.freeze()  # as the writer's own process does
    gc.set_threshold(50_000, 20, 50)
    database = open_database(f"sqlite:///{folder}/ledger.db")
    database.transact(upgrade)
    writer = LedgerWriter(database.transact, database.read, "r", market.keys, Settings(), now_ms)
    for advertiser_id in market.advertisers:
        writer.command(AddFunds("top-up", advertiser_id, 10**12, advertiser_id))
    for campaign_id, _, n in market.campaigns:
        advertiser_id = market.advertisers[n]
        database.transact(
            lambda c, i=campaign_id, a=advertiser_id: store.set_campaign_limits(c, "r", i, a, 10**12, 10**12)
        )
    same, bare = same_tables(folder / "same.db"), bare_tables(folder / "bare.db", database)
    seconds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(BATCH_COUNT):
        clicks = market.clicks(BATCH_EVENT_COUNT)
        started = time.perf_counter()
        (results,), _ = writer.record([clicks])
        seconds[0].append(time.perf_counter() - started)
        assert all(result.result == "accepted" for result in results)
        rows = last_commit(database)
        for raw, into in ((same, seconds[1]), (bare, seconds[2])):
            started = time.perf_counter()
            insert_raw(raw, rows)
            into.append(time.perf_counter() - started)
    database.close()
    return tuple(statistics.median(one) for one in seconds)  # type: ignore[return-value]


def same_tables(path: Path) -> Any:
    made = open_database(f"sqlite:///{path}")
    made.transact(upgrade)
    made.close()
    return raw_connection(path)


def bare_tables(path: Path, like: Database) -> Any:
    raw = raw_connection(path)
    for name in COPIED:
        columns = ", ".join(f"{c.name} {c.type.compile(like.engine.dialect)}" for c in store.metadata.tables[name].c)
        raw.execute(f"CREATE TABLE {name} ({columns})")
    return raw


def raw_connection(path: Path) -> Any:
    raw = sqlite_library().connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    return raw


def last_commit(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of the newest commit, table by table."""
    with database.engine.connect() as connection:
        recorded = connection.exec_driver_sql("SELECT MAX(recorded_at_ms) FROM events").scalar()
        first = connection.exec_driver_sql(
            "SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?", (BATCH_EVENT_COUNT - 1,)
        ).scalar()
        where = {
            "events": f"seq >= {first}",
            "entries": f"recorded_at_ms = {recorded}",
            "touches": f"token_id IN (SELECT token_id FROM events WHERE seq >= {first})",
            "chain": "batch > (SELECT MAX(batch) - 2 FROM chain)",
        }
        return {
            name: [tuple(r) for r in connection.exec_driver_sql(f"SELECT * FROM {name} WHERE {where[name]}")]
            for name in COPIED
        }


def insert_raw(raw: Any, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    raw.execute("BEGIN IMMEDIATE")
    for name, some in rows.items():
        raw.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(some[0]))})", some)
    raw.execute("COMMIT")


if __name__ == "__main__":
    sys.exit(main())

"""Visitors over a real server that is killed; and how much memory a flood of made-up visitors can take."""

import os
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from affinity.computed import Purchases
from affinity.navigation import NavigationBatch
from affinity.navigation_log import NavigationLog
from affinity.pseudonym import Pseudonymizer
from affinity.settings import Settings
from affinity.visitors import VisitorStore
from bidder_api.serving import RECORD_FILE
from tests.faults.harness import IS_FULL
from tests.server import RunningServer, ok
from tests.valkey import ValkeyServer

KILL_COUNT = 12 if IS_FULL else 1
VISITOR_COUNT = 20
BATCH_COUNT = 20  # events


class Shopper:
    """Sends purchases until the server is gone; what was answered for is remembered."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.chance = random.Random(1)
        self.now = datetime.now(UTC)
        self.acknowledged: list[dict[str, Any]] = []
        self.unanswered: list[dict[str, Any]] = []
        self._count = 0

    def batch(self) -> list[dict[str, Any]]:
        events = []
        for _ in range(BATCH_COUNT):
            self._count += 1
            events.append(
                {
                    "event_id": f"e{self._count}",
                    "visitor_id": f"v{self._count % VISITOR_COUNT}",
                    "action": "purchase",
                    "product_id": f"p{self._count % 50}",
                    "price_micros": 1_000_000,
                    "occurred_at": (self.now - timedelta(seconds=self.chance.randrange(86_000))).isoformat(),
                }
            )
        return events

    def shop(self) -> None:
        """Send batch after batch until the server is gone."""
        while True:
            events = self.batch()
            try:
                answer = self.client.post("/v1/navigation", json={"events": events})
            except httpx2.TransportError:
                self.unanswered += events
                return
            assert ok(answer, 202) == {"recorded": BATCH_COUNT, "duplicates": 0}
            self.acknowledged += events
            time.sleep(0.005)


def resend(client: httpx2.Client, events: list[dict[str, Any]]) -> tuple[int, int]:
    recorded = duplicates = 0
    for first in range(0, len(events), 500):
        answer = ok(client.post("/v1/navigation", json={"events": events[first : first + 500]}), 202)
        recorded, duplicates = recorded + answer["recorded"], duplicates + answer["duplicates"]
    return recorded, duplicates


def bought(visitor_id: str, events: list[dict[str, Any]]) -> int:
    """Return how many orders the visitor's events are, each taken in once, as they were sent."""
    purchases = Purchases()
    for event in events:
        if event["visitor_id"] == visitor_id:
            purchases.note(int(datetime.fromisoformat(event["occurred_at"]).timestamp() * 1000), 0)
    return purchases.order_count


def order_counts(client: httpx2.Client) -> list[int]:
    return [ok(client.get(f"/v1/profiles/v{number}"))["computed"]["order_count"] for number in range(VISITOR_COUNT)]


def test_no_kill_loses_or_doubles_what_a_visitor_shared_with_others_did(tmp_path: Path, valkey_binary: str) -> None:
    """Both are killed again and again, the server and the one its visitors are in; either may be first."""
    with (
        ValkeyServer(valkey_binary, appendonly="yes") as valkey,
        RunningServer(tmp_path / "data", variables={"ENDCAP_VISITOR_STORE": valkey.url}) as running,
    ):
        client = running.client(running.create_key("retailer"))
        shopper = Shopper(client)
        for number in range(KILL_COUNT):
            chance = random.Random(number)
            thread = threading.Thread(target=shopper.shop)
            thread.start()
            time.sleep(chance.uniform(0.3, 1.5))
            valkey.kill()  # what it had not written to its file yet is gone
            time.sleep(chance.uniform(0.0, 0.5))
            if chance.random() < 0.5:
                valkey.start()
            time.sleep(chance.uniform(0.0, 1.0))
            running.kill()
            thread.join()
            if valkey.is_running:
                valkey.kill()
            running.start()
            running.wait_ready()
            valkey.start()
            wait_shared(client)
            assert resend(client, shopper.acknowledged) == (0, len(shopper.acknowledged))
            recorded, duplicates = resend(client, shopper.unanswered)
            assert recorded + duplicates == len(shopper.unanswered)
            shopper.acknowledged += shopper.unanswered
            shopper.unanswered = []
        orders = order_counts(client)
        valkey.client.flushall()
        assert running.stop() == 0
        running.start()
        running.wait_ready()
        again = order_counts(client)
    print(f"kill -9 × {KILL_COUNT}: {len(shopper.acknowledged)} events, none lost, none doubled")
    assert len(shopper.acknowledged) >= KILL_COUNT * BATCH_COUNT
    assert orders == again == [bought(f"v{number}", shopper.acknowledged) for number in range(VISITOR_COUNT)]


def wait_shared(client: httpx2.Client) -> None:
    ends = time.monotonic() + 30
    while ok(client.get("/readyz")) != {"status": "ready"}:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_no_kill_loses_or_doubles_what_a_visitor_did(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", variables={"ENDCAP_VISITOR_RECORD_FILE_EVERY_S": "1"}) as running:
        client = running.client(running.create_key("retailer"))
        shopper = Shopper(client)
        record_file = running.data_dir / RECORD_FILE
        for number in range(KILL_COUNT):
            thread = threading.Thread(target=shopper.shop)
            thread.start()
            while not record_file.exists():
                assert thread.is_alive()
                time.sleep(0.05)
            time.sleep(random.Random(number).uniform(0.3, 2.5))
            running.kill()
            thread.join()
            running.start()
            running.wait_ready()
            assert resend(client, shopper.acknowledged) == (0, len(shopper.acknowledged))
            recorded, duplicates = resend(client, shopper.unanswered)
            assert recorded + duplicates == len(shopper.unanswered)
            shopper.acknowledged += shopper.unanswered
            shopper.unanswered = []
        orders = order_counts(client)
        assert running.stop() == 0
        running.start()
        running.wait_ready()
        again = order_counts(client)
    print(f"kill -9 × {KILL_COUNT}: {len(shopper.acknowledged)} events, none lost, none doubled")
    assert "record_file_refused" not in running.log()
    assert len(shopper.acknowledged) >= KILL_COUNT * BATCH_COUNT
    assert orders == again == [bought(f"v{number}", shopper.acknowledged) for number in range(VISITOR_COUNT)]


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ever_new_visitor_ids_take_bounded_memory(tmp_path: Path) -> None:
    id_count, kept_count = (1_000_000, 200_000) if IS_FULL else (60_000, 10_000)
    visitors = VisitorStore(
        Settings(visitor_count_max=kept_count, event_id_window=kept_count),
        Pseudonymizer(b"k" * 32),
        NavigationLog(tmp_path, 64_000_000),
    )
    now_ms, taken, count = 1_700_000_000_000, [], 0
    at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    decode = msgspec.json.Decoder(NavigationBatch).decode
    began = time.perf_counter()
    while count < id_count:
        events = [
            {"event_id": f"e{number}", "visitor_id": f"made-up-{number}", "action": "view_item", "occurred_at": at}
            for number in range(count, count + 100)
        ]
        visitors.post(decode(msgspec.json.encode({"events": events})), now_ms)
        count += 100
        if count % (id_count // 10) == 0:
            taken.append(memory_bytes())
    seconds = time.perf_counter() - began
    grown = (taken[-1] - taken[4]) / 1e6
    print(
        f"{id_count:,} ids in {seconds:.0f} s: {taken[-1] / 1e6:.0f} MB, {grown:.1f} MB more than after half of them; "
        f"{len(visitors):,} visitors, {visitors.records.byte_count / len(visitors):.0f} bytes each"
    )
    assert len(visitors) == kept_count
    assert seconds < 60
    assert grown < 0.1 * taken[4] / 1e6

"""How long the console's campaigns' page takes on the server: 100 campaigns of a brand's among 10,000.

Run as `python -m tests.bench.bench_console`. The whole server in this process: session, the API's own operations on
SQLite, the page rendered and compressed. Beside it what one of its parts takes alone, the report of the same period.
"""

import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from auction.campaign import Campaign
from auction.store import insert_campaign
from bidder_api.resources import moment
from bidder_api.settings import beacon_keys
from ledger.beacon import BeaconKeys
from ledger.command import AddFunds
from ledger.event import EventType, ReportedEvent
from ledger.money import Micros
from ledger.store import set_campaign_limits
from ledger.terms import ChargeOn, ChargeTerms, new_id
from ledger.writer import LedgerWriter
from tests.bidder_api.world import RETAILER, World, world_over
from tests.conftest import migrated

BRAND_COUNT, CAMPAIGN_COUNT_OF_BRAND = 100, 100
EVENT_COUNT, BATCH_SIZE = 50_000, 250
DAY_MS = 86_400_000
ROUND_COUNT = 100
BRAND = "brand-42"


def campaign_id(brand: int, number: int) -> str:
    return f"cmp_{brand:04}{number:04}"


def fill_world(world: World) -> None:
    """Put ten thousand campaigns into a world, and clicks and impressions of the last fortnight into its books."""
    chance, now_ms = random.Random(5), world.clock()

    def make(connection: Any) -> None:
        for brand in range(BRAND_COUNT):
            for number in range(CAMPAIGN_COUNT_OF_BRAND):
                campaign = Campaign(
                    campaign_id=campaign_id(brand, number), advertiser_id=f"brand-{brand}",
                    name=f"Campaign {number} of {brand}", daily_budget_micros=50_000_000, total_budget_micros=None,
                    flight_starts_at=None, flight_ends_at=None, pacing="even", status="active",
                    created_at=moment(now_ms), updated_at=moment(now_ms), change_seq=1,
                )  # fmt: skip
                insert_campaign(connection, RETAILER, campaign)
                set_campaign_limits(
                    connection, RETAILER, campaign.campaign_id, campaign.advertiser_id, 50_000_000, None
                )

    world.database.transact(make)
    settings = world.serving.settings
    keys = BeaconKeys.parse(beacon_keys(settings.server))
    writer = LedgerWriter(world.database.transact, world.database.read, RETAILER, keys, settings.ledger, world.clock)
    for brand in range(BRAND_COUNT):
        writer.command(AddFunds("top-up", f"brand-{brand}", 10**10, f"bench {brand}"))
    began_ms = now_ms - 14 * DAY_MS
    for batch in range(EVENT_COUNT // BATCH_SIZE):
        world.clock.now_ms = began_ms + 14 * DAY_MS * batch // (EVENT_COUNT // BATCH_SIZE)
        writer.record([[_event(keys, chance, world.clock()) for _ in range(BATCH_SIZE)]])
    world.clock.now_ms = now_ms


def _event(keys: BeaconKeys, chance: random.Random, at_ms: int) -> ReportedEvent:
    brand = chance.randrange(BRAND_COUNT)
    terms = ChargeTerms(
        auction_id=new_id("auc", at_ms, chance.randbytes(10)), placement_id="category-top",
        slot_position=chance.randint(1, 8), product_id=f"p{chance.randrange(1000)}", is_sponsored=True,
        advertiser_id=f"brand-{brand}", campaign_id=campaign_id(brand, chance.randrange(CAMPAIGN_COUNT_OF_BRAND)),
        bid_id="bid_1", charge_on=ChargeOn.IMPRESSION, price_micros=Micros(chance.randint(1, 9_973)),
        quality_ppm=31_415, visitor_pseudonym=chance.randbytes(16), variant=None, issued_at_ms=at_ms,
    )  # fmt: skip
    return ReportedEvent(
        event_id=chance.randbytes(12).hex(), type=EventType.IMPRESSION, beacon_token=keys.seal_beacon(terms)
    )


def sign_in(world: World) -> None:
    """Sign the world's client in as the brand."""
    key = world.key("advertiser", BRAND)
    token = re.search(r'name="form_token" value="([^"]+)"', world.client.get("/console/sign-in").text)
    assert token
    answer = world.client.post(
        "/console/sign-in", data={"form_token": token[1], "key": key}, headers={"Origin": "http://endcap.test"}
    )
    assert answer.status_code == 200


def times_ms(work: Callable[[], Any]) -> tuple[list[float], float]:
    """Return how long something takes, over and over, and the processor's time of one: others' work is not in that."""
    work()
    took, cpu_began = [], time.process_time()
    for _ in range(ROUND_COUNT):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1_000)
    return sorted(took), (time.process_time() - cpu_began) * 1_000 / ROUND_COUNT


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        database = migrated(f"sqlite:///{folder}/endcap.db")
        with world_over(database) as world:
            world.wait_started()
            fill_world(world)
            sign_in(world)
            page = world.client.get("/console/campaigns")
            assert page.text.count('<tr id="cmp_') == CAMPAIGN_COUNT_OF_BRAND
            headers = world.headers("advertiser", BRAND)
            week = "/v1/reports/campaigns?from=2026-11-12T00:00:00Z&to=2026-11-19T00:00:00Z&by=day"
            for name, work in (
                ("campaigns' page, a week and the week before", lambda: world.client.get("/console/campaigns")),
                ("the same, no comparison", lambda: world.client.get("/console/campaigns?compare=none")),
                ("GET /v1/reports/campaigns of that week alone", lambda: world.client.get(week, headers=headers)),
            ):
                took, cpu_ms = times_ms(work)
                p95 = took[len(took) * 95 // 100]
                print(
                    f"{name:<48} p50 {statistics.median(took):6.1f}   p95 {p95:6.1f}   processor {cpu_ms:6.1f} ms",
                    flush=True,
                )
        database.close()


if __name__ == "__main__":
    main()

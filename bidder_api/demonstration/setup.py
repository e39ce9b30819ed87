"""What the demo does over the HTTP API: set the market up, measure fills, and put the books in a sentence."""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR, Product
from bidder_api.demonstration import market
from bidder_api.demonstration.client import ApiClient
from bidder_api.demonstration.shoppers import Takings, choose_page
from bidder_api.shop.shelves import HOME_END_CAP

Progress = Callable[[int, int | None], None]
PAID_WITHIN_S = 20.0  # from the last bid posted to the first paid fill, at most


class Timing(Struct, frozen=True):
    """How long fills took, as the client saw it."""

    p50_ms: float
    p99_ms: float
    paid_share: float


def set_up(
    admin: ApiClient, products: Sequence[Product], end_caps: Sequence[tuple[str, str]], progress: Progress
) -> None:
    """Post placements, rules, top-ups, campaigns and bids; posting again what is there changes nothing.

    Args:
        admin: calls with an admin's key.
        products: the catalogue.
        end_caps: (aisle, product id) of what stood on physical end caps.
        progress: told how many calls are done, and of how many.
    """
    placements = market.placements()
    rules = market.merchant_rules(products, end_caps)
    brands = market.brands(products)
    total = len(placements) + len(rules) + sum(2 + len(brand.offers) for brand in brands)
    done = 0

    def send(method: str, path: str, body: object, name: str) -> Any:
        nonlocal done
        done += 1
        progress(done, total)
        return admin.call(method, path, body, {} if method == "PUT" else {"Idempotency-Key": f"demo: {name}"[:255]})

    for placement_id, placement in placements.items():
        send("PUT", f"/v1/placements/{placement_id}", placement, placement_id)
    for number, rule in enumerate(rules):
        send("POST", "/v1/rules", rule, f"rule {number}")
    for brand in brands:
        name = brand.advertiser_id
        top_up = {"advertiser_id": name, "amount_micros": market.TOP_UP_MICROS, "reference": f"demo {name}"}
        send("POST", "/v1/ledger/top-ups", top_up, f"top-up {name}")
        campaign_id = send("POST", "/v1/campaigns", brand.campaign, f"campaign {name}")["campaign_id"]
        for number, offer in enumerate(brand.offers):
            draft = msgspec.structs.replace(offer.draft, campaign_id=campaign_id)
            send("POST", "/v1/bids", draft, f"bid {name} {number}")


def wait_for_paid_fills(admin: ApiClient) -> None:
    """Wait until the home page comes back with a paid fill.

    Raises:
        TimeoutError: none did in time.
    """
    home = {
        "page": {"type": "home"},
        "placements": [{"placement_id": HOME_END_CAP.name}],
        "mode": "merchandised",
        "tmax_ms": 1_000,
    }
    ends = time.monotonic() + PAID_WITHIN_S
    while time.monotonic() < ends:
        answer = admin.call("POST", "/v1/fills", home)
        if any(fill["is_sponsored"] for placement in answer["placements"] for fill in placement["fills"]):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no paid fill within {PAID_WITHIN_S:g} s after the bids were posted")


def time_fills(
    site: ApiClient, visitor_ids: Sequence[str], categories: Sequence[str], count: int, progress: Progress
) -> Timing:
    """Ask for so many pages, one after the other, and measure each from sending to the last byte."""
    chance = random.Random(0)
    encode = msgspec.json.Encoder().encode
    took_ms: list[float] = []
    paid_count = 0
    for number in range(count):
        body = encode(choose_page(chance, visitor_ids, categories))
        began = time.perf_counter()
        status, raw = site.raw("POST", "/v1/fills", body)
        took_ms.append((time.perf_counter() - began) * 1_000)
        if status != 200:
            raise RuntimeError(f"a fill was answered {status}: {raw[:300].decode('utf-8', 'replace')}")
        paid_count += b'"is_sponsored":true' in raw
        progress(number + 1, count)
    took_ms.sort()
    return Timing(took_ms[count // 2], took_ms[count * 99 // 100], paid_count / count)


def page_categories(product: Product) -> list[str]:
    """Return the product's categories that have a page: its aisle, and the category below."""
    parts = (product.product_type or "").split(CATEGORY_SEPARATOR)
    return [CATEGORY_SEPARATOR.join(parts[: depth + 1]) for depth in range(min(2, len(parts)))]


def describe_takings(takings: Takings) -> str:
    """Return what simulated shoppers brought in, in a sentence."""
    text = (
        f"{takings.page_count:,} pages, {takings.impression_count:,} impressions and {takings.click_count:,} clicks; "
        f"{takings.billed_count:,} billed, ${takings.billed_micros / 1_000_000:,.2f} in all"
    )
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(takings.refused.items()))
    return f"{text}; {refused}." if refused else f"{text}."


def describe_balance(balance: dict[str, Any]) -> str:
    """Return the books' trial balance in a sentence."""
    difference, account_count = balance["difference_micros"], len(balance["accounts"])
    text = (
        f"trial balance {difference} over {account_count} accounts, ${balance['debit_micros'] / 1_000_000:,.2f} a side"
    )
    return f"{text}." if difference == 0 else f"{text}: THE BOOKS DO NOT BALANCE."

"""Simulated shoppers for the demo, so that the ledger has something to show. The data holds no clicks.

They ask for pages, look from the top down, click now and then, and report it all as a retailer's site would.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from bidder_api.demonstration.client import ApiClient
from bidder_api.shop.shelves import CATEGORY_SHELF, HOME_END_CAP, HOME_MORE

SEEN_PER_PAGE = 12
CLICK_CHANCE = 0.06  # of the best slot; paid and organic alike
VIEW_CHANCE = 0.8


class Takings(Struct, kw_only=True):
    """What the shoppers did, and what it brought in."""

    page_count: int = 0
    impression_count: int = 0
    click_count: int = 0
    billed_count: int = 0
    billed_micros: int = 0
    refused: dict[str, int] = {}


def send_shoppers(
    site: ApiClient,
    visitor_ids: Sequence[str],
    categories: Sequence[str],
    page_count: int,
    seed: int,
    progress: Callable[[int, int | None], None],
) -> Takings:
    """Let shoppers look at pages and report what they saw and clicked.

    Args:
        site: calls with a retailer's key.
        visitor_ids: who may come by.
        categories: pages of categories they may look at.
        page_count: pages they look at, one after the other.
        seed: the same shoppers do the same on the same pages; give each run its own.
        progress: told how many pages are done, and of how many.
    """
    chance = random.Random(seed)
    takings = Takings(refused={})
    for number in range(page_count):
        answer = site.call("POST", "/v1/fills", choose_page(chance, visitor_ids, categories))
        events = _look_at(answer, chance, f"shopper-{seed}-{number}")
        for event, result in zip(events, _report(site, events), strict=True):
            _count(takings, event["type"], result)
        takings.page_count += 1
        progress(takings.page_count, page_count)
    return takings


def choose_page(chance: random.Random, visitor_ids: Sequence[str], categories: Sequence[str]) -> dict[str, Any]:
    """Return the request of somebody's page: home or a category, as the shop itself asks for it."""
    is_home = chance.random() < 0.4
    plans = (HOME_END_CAP, HOME_MORE) if is_home else (CATEGORY_SHELF,)
    return {
        "visitor_id": chance.choice(visitor_ids),
        "consent": {"personalised": True},
        "page": {"type": "home"} if is_home else {"type": "category", "category_id": chance.choice(categories)},
        "placements": [{"placement_id": plan.name} for plan in plans],
        "mode": "merchandised",
        "tmax_ms": 100,
    }


def _look_at(answer: dict[str, Any], chance: random.Random, name: str) -> list[dict[str, Any]]:
    """Return what a shopper reports of a page: the first tiles seen, fewer looked at, fewer still clicked."""
    now = datetime.now(UTC).isoformat()
    events: list[dict[str, Any]] = []
    for placement in answer["placements"]:
        for place, fill in enumerate(placement["fills"][:SEEN_PER_PAGE]):
            kinds = ["impression"]
            if chance.random() < VIEW_CHANCE:
                kinds.append("view")
                if chance.random() < CLICK_CHANCE * 0.9**place:
                    kinds.append("click")
            events += [
                {
                    "event_id": f"{name}-{len(events) + offset}",
                    "type": kind,
                    "beacon_token": fill["beacon_token"],
                    "occurred_at": now,
                }
                for offset, kind in enumerate(kinds)
            ]
    return events


def _report(site: ApiClient, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not events:
        return []
    results: list[dict[str, Any]] = site.call("POST", "/v1/events", {"events": events})["results"]
    return results


def _count(takings: Takings, kind: str, result: dict[str, Any]) -> None:
    if result["result"] not in ("accepted", "unbilled"):
        reason = f"{result['result']}:{result['code']}"
        takings.refused[reason] = takings.refused.get(reason, 0) + 1
        return
    takings.impression_count += kind == "impression"
    takings.click_count += kind == "click"
    amount = result.get("amount_micros") or 0
    takings.billed_count += amount > 0
    takings.billed_micros += amount

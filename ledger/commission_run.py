"""Posting the commission that is due, through the one writer: what the API's call and the server's housekeeping do."""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from ledger.command import CommissionsPosted, PostCommissions
from ledger.commissioning import ORDERS_PER_POST_MAX, find_due
from ledger.pipe import Intake
from ledger.sales import FactsOf, model_named


async def run_commissions(
    intake: Intake,
    read: Callable[[Callable[[Connection], Any]], Any],
    retailer_id: str,
    model_name: str,
    facts_of: FactsOf,
    now_ms: int,
    since_ms: int,
) -> CommissionsPosted:
    """Find what is due of orders made since then, and have it posted, some orders at a time.

    Raises:
        LedgerUnavailable: what was not posted yet is found again next time.
    """
    model = model_named(model_name)
    due = await asyncio.to_thread(
        read, lambda connection: find_due(connection, retailer_id, model, facts_of, now_ms, since_ms)
    )
    done = CommissionsPosted(0, 0, 0, 0)
    for first in range(0, len(due), ORDERS_PER_POST_MAX):
        posted = await intake.command(PostCommissions(due[first : first + ORDERS_PER_POST_MAX], model_name))
        assert isinstance(posted, CommissionsPosted)
        done = done.plus(posted)
    return done

"""Many bids at once: made, changed and archived in one transaction, each on its own terms.

What is refused changes nothing and says why, as it would alone; the others take effect.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from auction.campaign import Bid, BidDraft
from auction.store import insert_bids
from bidder_api.bids import BidPatch, Lookup, archive_bid, change_bid, place
from bidder_api.call import Answer, Call, etag
from bidder_api.errors import Refused
from bidder_api.problems import Problem, problem_of
from ledger.terms import Identifier

ITEM_COUNT_MAX = 1_000


class BidCreation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="op", tag="create"):
    """A bid to be placed."""

    bid: BidDraft


class BidChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="op", tag="update"):
    """A bid of which some is to be changed.

    Attributes:
        if_match: its ETag as it was read; left out, whatever it is now is changed.
    """

    bid_id: Identifier
    change: BidPatch  # type: ignore[valid-type]  # a type made of BidDraft
    if_match: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class BidRemoval(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="op", tag="archive"):
    """A bid to be archived."""

    bid_id: Identifier
    if_match: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class BidBatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/bids:batch`. A body that cannot be read is refused whole."""

    items: Annotated[list[BidCreation | BidChange | BidRemoval], Meta(min_length=1, max_length=ITEM_COUNT_MAX)]


class BidBatchResult(Struct, frozen=True):
    """What became of one item.

    Attributes:
        bid_id: of a new bid too; None where none was made.
        etag: of the bid as it is now; None where it was refused.
        problem: why it was refused, as the answer to it alone would say; pointers are into the whole body.
    """

    result: Literal["created", "updated", "archived", "rejected"]
    bid_id: str | None = None
    etag: str | None = None
    problem: Problem | None = None


class BidBatchResults(Struct, frozen=True):
    """What became of each item, in the order they were sent."""

    results: list[BidBatchResult]


def change_many(connection: Connection, call: Call) -> Answer:
    """Carry out the items of a batch, one after the other."""
    batch: BidBatch = call.body
    lookup, placed = Lookup(connection, call), list[Bid]()
    _ask_ahead(lookup, [item.bid for item in batch.items if isinstance(item, BidCreation)])
    results = [
        _carry_out(connection, call, item, f"/items/{row}", lookup, placed) for row, item in enumerate(batch.items)
    ]
    insert_bids(connection, call.retailer_id, placed)
    return Answer(body=BidBatchResults(results))


def _ask_ahead(lookup: Lookup, drafts: Sequence[BidDraft]) -> None:
    """Ask once which products the advertisers of new bids may bid on."""
    named: dict[str, set[str]] = {}
    for draft in drafts:
        with suppress(Refused):  # said when its turn comes
            named.setdefault(lookup.campaign(draft.campaign_id).advertiser_id, set()).update(draft.product_ids)
    for advertiser_id, product_ids in named.items():
        lookup.entitled(advertiser_id, product_ids)


def _carry_out(
    connection: Connection,
    call: Call,
    item: BidCreation | BidChange | BidRemoval,
    pointer: str,
    lookup: Lookup,
    placed: list[Bid],
) -> BidBatchResult:
    """Do what one item says. Every check comes before the first write, so that what is refused left nothing behind."""
    try:
        match item:
            case BidCreation():
                bid = place(connection, call, item.bid, lookup)
                placed.append(bid)
                return BidBatchResult("created", bid.bid_id, etag(bid.change_seq))
            case BidChange():
                alone = msgspec.structs.replace(
                    call, body=item.change, path={"bid_id": item.bid_id}, if_match=item.if_match
                )
                return BidBatchResult("updated", item.bid_id, change_bid(connection, alone, lookup).headers["ETag"])
            case BidRemoval():
                alone = msgspec.structs.replace(call, path={"bid_id": item.bid_id}, if_match=item.if_match)
                return BidBatchResult("archived", item.bid_id, archive_bid(connection, alone, lookup).headers["ETag"])
    except Exception as failure:
        problem = problem_of(failure)
        if problem is None:
            raise
        part = {BidCreation: "/bid", BidChange: "/change"}.get(type(item), "")
        where = f"{pointer}{part}{problem.pointer}" if problem.pointer is not None else pointer
        named = None if isinstance(item, BidCreation) else item.bid_id
        return BidBatchResult("rejected", named, None, msgspec.structs.replace(problem, pointer=where))

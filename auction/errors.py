"""What the auction refuses, and how each refusal is called.

```
AuctionRefused
├── PlacementUnknown        404  placement_unknown
├── PlacementRepeated       422  placement_repeated
├── PlacementNotOnPage      422  placement_not_on_page
├── AllocationMixed         422  allocation_mixed
├── TooManySlots            422  slot_count_too_large
├── BodyTooLarge            413  body_too_large
├── AuctionUnknown          404  auction_unknown
├── AuctionGone             410  auction_gone
├── NotReady                503  not_ready (retryable)
└── SnapshotRefused         500  snapshot_refused: a file of another version, or damaged
```

A page that cannot be filled is not a refusal: it is an answer with a `no_fill_reason`.
"""

from typing import ClassVar


class AuctionRefused(Exception):  # a refusal is an answer, not an error
    """A refusal with a stable code; the message says the rule and what came instead."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 422
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer


class PlacementUnknown(AuctionRefused):
    """No placement has that id."""

    code = "placement_unknown"
    status = 404


class PlacementRepeated(AuctionRefused):
    """One request names a placement twice."""

    code = "placement_repeated"


class PlacementNotOnPage(AuctionRefused):
    """The placement does not stand on pages of that type."""

    code = "placement_not_on_page"


class AllocationMixed(AuctionRefused):
    """Placements of one page that are to be filled in different ways: a page is one decision."""

    code = "allocation_mixed"


class TooManySlots(AuctionRefused):
    """More slots are asked for than the placement has."""

    code = "slot_count_too_large"


class BodyTooLarge(AuctionRefused):
    """The body is over its limit."""

    code = "body_too_large"
    status = 413


class AuctionUnknown(AuctionRefused):
    """No auction has that id, or none this caller may see."""

    code = "auction_unknown"
    status = 404


class AuctionGone(AuctionRefused):
    """The receipt is no longer kept."""

    code = "auction_gone"
    status = 410


class NotReady(AuctionRefused):
    """No snapshot is loaded yet."""

    code = "not_ready"
    status = 503
    retryable = True


class SnapshotRefused(AuctionRefused):
    """The snapshot's file is of another version, or damaged."""

    code = "snapshot_refused"
    status = 500

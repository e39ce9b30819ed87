"""HTTP of navigation, profiles, links between devices, and erasure."""

from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar

import anyio.to_thread
import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from affinity import store
from affinity.catalog import Attribute
from affinity.computed import (
    clv_micros,
    clv_tier,
    lifecycle,
    price_tier,
    promophile_score,
    promotion_lift,
    promotion_share,
    rfm_class,
)
from affinity.errors import BodyTooLarge, LinkUnknown, ProfileUnknown
from affinity.metrics import AffinityMetrics
from affinity.navigation import NavigationBatch, VisitorId
from affinity.profile import ProfileDraft, SegmentId
from affinity.special import special_categories
from affinity.visitors import Recorded, VisitorStore

T = TypeVar("T")
Transact = Callable[[Callable[[Connection], T]], T]
AlsoErase = Callable[[Connection, bytes], None]

_decode_batch = msgspec.json.Decoder(NavigationBatch).decode
_encode = msgspec.json.Encoder().encode


class LinkDraft(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/visitors/{visitor_id}/link`."""

    customer_id: VisitorId


class Link(Struct, frozen=True):
    """A visitor joined to a customer."""

    visitor_id: str
    customer_id: str


class Entry(Struct, frozen=True, kw_only=True):
    """That a visitor came into a segment."""

    segment: str
    from_segment: str | None
    entered_at: datetime


class ComputedProfile(Struct, frozen=True, kw_only=True):
    """What we compute of a visitor; null where nothing was bought.

    Attributes:
        clv_micros: what the customer is expected to spend in the coming year.
        promotion_share: share of the units bought under the shelf price, 0 to 1.
        promotion_lift: that share over the shop's own.
        entered: the segments entered, with when and, where it is known, from which.
    """

    rfm: str | None
    clv_tier: str | None
    clv_micros: int
    lifecycle: str
    order_count: int
    order_status: str | None
    promophile: float | None
    promotion_share: float | None
    promotion_lift: float | None
    price_tier: float | None
    entered: list[Entry]


class Profile(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/profiles/{visitor_id}`."""

    visitor_id: str
    segments: list[SegmentId]
    attributes: dict[str, Attribute]
    computed: ComputedProfile


def erase_nothing_else(_connection: Connection, _pseudonym: bytes) -> None:
    """Erase nothing: no other package keeps anything of a visitor."""


def routes(
    visitors: VisitorStore,
    transact: Callable[[Callable[[Connection], Any]], Any],
    retailer_id: str,
    clock_ms: Callable[[], int],
    metrics: AffinityMetrics,
    also_erase: AlsoErase = erase_nothing_else,
) -> list[Route]:
    """Return the routes of this package.

    Args:
        visitors: changed on the event loop's thread only.
        transact: runs a function in one transaction; called in a thread of its own.
        retailer_id: whose deployment it is.
        clock_ms: UTC, milliseconds since 1970.
        metrics: where what happens is counted.
        also_erase: erases what other packages keep under a pseudonym, in the transaction that erases ours.
    """
    return _Surface(visitors, transact, retailer_id, clock_ms, metrics, also_erase).routes()


class _Surface:
    def __init__(
        self,
        visitors: VisitorStore,
        transact: Callable[[Callable[[Connection], Any]], Any],
        retailer_id: str,
        clock_ms: Callable[[], int],
        metrics: AffinityMetrics,
        also_erase: AlsoErase,
    ) -> None:
        self._also_erase = also_erase
        self._visitors = visitors
        self._transact = transact
        self._retailer_id = retailer_id
        self._clock_ms = clock_ms
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            Route("/v1/navigation", self.post_navigation, methods=["POST"]),
            Route("/v1/profiles/{visitor_id}", self.put_profile, methods=["PUT"]),
            Route("/v1/profiles/{visitor_id}", self.get_profile, methods=["GET"]),
            Route("/v1/visitors/{visitor_id}/link", self.link, methods=["POST"]),
            Route("/v1/visitors/{visitor_id}/link", self.unlink, methods=["DELETE"]),
            Route("/v1/visitors/{visitor_id}", self.erase, methods=["DELETE"]),
        ]

    async def post_navigation(self, request: Request) -> Response:
        """Take events in: they are in the log when this answers 202."""
        raw = await _read_body(request, self._visitors.settings.navigation_body_bytes_max)
        recorded = self._visitors.post(_decode_batch(raw), self._clock_ms())
        self._metrics.count_events(recorded)
        return _json(recorded, 202)

    async def put_profile(self, request: Request) -> Response:
        """Set a visitor's profile, whole."""
        draft: ProfileDraft = request.scope["body"]
        special_categories(self._visitors.settings.special_category_terms).check_profile(draft)
        pseudonym = self._visitors.pseudonym(request.path_params["visitor_id"])
        person, now_ms = self._visitors.person(pseudonym), self._clock_ms()
        await self._commit(lambda connection: store.put_profile(connection, self._retailer_id, person, draft, now_ms))
        self._visitors.put_profile(person, draft)
        return await self.get_profile(request)

    async def get_profile(self, request: Request) -> Response:
        """Return what the CRM said of a visitor, and what we compute."""
        visitor_id = request.path_params["visitor_id"]
        pseudonym = self._visitors.pseudonym(visitor_id)
        draft, record = self._visitors.profile(pseudonym), self._visitors.record(pseudonym)
        if record is None:
            raise ProfileUnknown(f"nothing is known of visitor {visitor_id!r}")
        purchases, scale = record.purchases, self._visitors.scale
        computed = ComputedProfile(
            rfm=rfm_class(purchases, scale),
            clv_tier=clv_tier(purchases, scale),
            clv_micros=clv_micros(purchases, scale, self._clock_ms()),
            lifecycle=lifecycle(purchases, self._clock_ms()),
            order_count=purchases.order_count,
            order_status=purchases.last_order_status if purchases.order_count else None,
            promophile=promophile_score(purchases, scale),
            promotion_share=promotion_share(purchases),
            promotion_lift=promotion_lift(purchases, scale),
            price_tier=price_tier(purchases),
            entered=[
                Entry(
                    segment=segment_id,
                    from_segment=origin or None,
                    entered_at=datetime.fromtimestamp(at_ms / 1000, UTC),
                )
                for (segment_id, origin), at_ms in sorted(record.entered.items(), key=itemgetter(1, 0))
            ],
        )
        draft = draft or ProfileDraft()
        return _json(
            Profile(visitor_id=visitor_id, segments=draft.segments, attributes=draft.attributes, computed=computed)
        )

    async def link(self, request: Request) -> Response:
        """Join a visitor to a customer."""
        draft: LinkDraft = request.scope["body"]
        visitor_id = request.path_params["visitor_id"]
        pseudonym = self._visitors.pseudonym(visitor_id)
        customer, now_ms = self._visitors.pseudonym(draft.customer_id), self._clock_ms()
        self._visitors.check_link(pseudonym, customer)
        await self._commit(
            lambda connection: store.put_link(connection, self._retailer_id, pseudonym, customer, now_ms)
        )
        self._visitors.link(pseudonym, customer)
        return _json(Link(visitor_id, draft.customer_id))

    async def unlink(self, request: Request) -> Response:
        """Part a visitor from its customer."""
        visitor_id = request.path_params["visitor_id"]
        pseudonym = self._visitors.pseudonym(visitor_id)
        was_linked = await self._commit(lambda connection: store.delete_link(connection, self._retailer_id, pseudonym))
        self._visitors.unlink(pseudonym)
        if not was_linked:
            raise LinkUnknown(f"visitor {visitor_id!r} is linked to nobody")
        return Response(status_code=204)

    async def erase(self, request: Request) -> Response:
        """Erase everything kept of a visitor, their customer and its other devices."""
        pseudonym = self._visitors.pseudonym(request.path_params["visitor_id"])
        await erase_visitor(self._visitors, self._transact, self._retailer_id, pseudonym, self._also_erase)
        self._metrics.erasures.inc()
        return Response(status_code=204)

    async def _commit(self, work: Callable[[Connection], T]) -> T:
        committed: T = await anyio.to_thread.run_sync(lambda: self._transact(work))
        return committed


async def erase_visitor(
    visitors: VisitorStore,
    transact: Callable[[Callable[[Connection], Any]], Any],
    retailer_id: str,
    pseudonym: bytes,
    also_erase: AlsoErase = erase_nothing_else,
) -> None:
    """Erase a person from memory, the navigation log and the database, in that order.

    The database goes last, since it knows which devices belong together: an erasure that failed midway is whole when
    it is asked for again.
    """
    linked = await anyio.to_thread.run_sync(
        lambda: transact(lambda connection: store.read_person(connection, retailer_id, pseudonym))
    )
    gone = {*linked, *visitors.devices(pseudonym)}
    visitors.forget(gone)
    log = visitors.log
    if log is not None:
        log.rotate()
        await anyio.to_thread.run_sync(lambda: log.erase(gone))

    def delete(connection: Connection) -> None:
        for one in sorted(gone):
            also_erase(connection, one)
        store.delete_visitor(connection, retailer_id, gone)

    await anyio.to_thread.run_sync(lambda: transact(delete))


async def _read_body(request: Request, size_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > size_max:
            raise BodyTooLarge(f"the body may have {size_max} bytes, had more")
        chunks.append(chunk)
    return b"".join(chunks)


def _json(body: Recorded | Profile | Link, status_code: int = 200) -> Response:
    return Response(_encode(body), status_code=status_code, media_type="application/json")

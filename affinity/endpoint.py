"""HTTP of navigation, profiles, links between devices, what is held of a visitor, and erasure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import TypeVar

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
from affinity.erasure import Elsewhere, Eraser, Transact
from affinity.errors import BodyTooLarge, LinkUnknown, ProfileUnknown, VisitorUnknown
from affinity.ga4 import read_batch
from affinity.held import (
    HeldEvent,
    HeldLink,
    HeldOrder,
    HeldState,
    HeldTouch,
    describe_events,
    describe_line,
    describe_state,
)
from affinity.metrics import AffinityMetrics
from affinity.navigation import NavigationBatch, VisitorId
from affinity.navigation_log import LogLine
from affinity.profile import ProfileDraft, SegmentId
from affinity.record import VisitorRecord
from affinity.shared_visitors import SharedVisitors
from affinity.special import special_categories
from affinity.visitors import Recorded, VisitorStore

T = TypeVar("T")

PUBLISHABLE = "site"  # the role of keys that are in the pages themselves, so that anybody may use them

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


class HeldVisitor(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/visitors/{visitor_id}`: everything held of the person, all devices together.

    `links` names the devices and the customer where the visitor is linked; `computed` and `state` are null where the
    visitor is not in memory.
    """

    visitor_id: str
    links: list[HeldLink]
    segments: list[SegmentId]
    attributes: dict[str, Attribute]
    computed: ComputedProfile | None
    state: HeldState | None
    navigation: list[HeldEvent]
    orders: list[HeldOrder]
    touches: list[HeldTouch]


class Profile(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/profiles/{visitor_id}`."""

    visitor_id: str
    segments: list[SegmentId]
    attributes: dict[str, Attribute]
    computed: ComputedProfile


def routes(
    visitors: VisitorStore,
    transact: Transact,
    retailer_id: str,
    clock_ms: Callable[[], int],
    metrics: AffinityMetrics,
    elsewhere: Elsewhere | None = None,
    eraser: Eraser | None = None,
    currency: str | None = None,
    shared: SharedVisitors | None = None,
) -> list[Route]:
    """Return the routes of this package.

    Args:
        visitors: changed on the event loop's thread only.
        transact: runs a function in one transaction; called in a thread of its own.
        retailer_id: whose deployment it is.
        clock_ms: UTC, milliseconds since 1970.
        metrics: where what happens is counted.
        elsewhere: what other packages keep under pseudonyms; None for nothing.
        eraser: whoever erases, where somebody else uses it too.
        currency: of the deployment; prices of GA4's events in another are not known.
        shared: where other processes share the visitors; None where they do not.
    """
    elsewhere = elsewhere or Elsewhere()
    eraser = eraser or Eraser(visitors, transact, retailer_id, elsewhere, shared)
    return _Surface(visitors, transact, retailer_id, clock_ms, metrics, elsewhere, eraser, currency, shared).routes()


class _Surface:
    def __init__(
        self,
        visitors: VisitorStore,
        transact: Transact,
        retailer_id: str,
        clock_ms: Callable[[], int],
        metrics: AffinityMetrics,
        elsewhere: Elsewhere,
        eraser: Eraser,
        currency: str | None,
        shared: SharedVisitors | None,
    ) -> None:
        self._currency = currency
        self._shared = shared
        self._visitors = visitors
        self._transact = transact
        self._retailer_id = retailer_id
        self._clock_ms = clock_ms
        self._metrics = metrics
        self._elsewhere = elsewhere
        self._eraser = eraser

    def routes(self) -> list[Route]:
        return [
            Route("/v1/navigation", self.post_navigation, methods=["POST"]),
            Route("/v1/profiles/{visitor_id}", self.put_profile, methods=["PUT"]),
            Route("/v1/profiles/{visitor_id}", self.get_profile, methods=["GET"]),
            Route("/v1/visitors/{visitor_id}/link", self.link, methods=["POST"]),
            Route("/v1/visitors/{visitor_id}/link", self.unlink, methods=["DELETE"]),
            Route("/v1/visitors/{visitor_id}", self.export, methods=["GET"]),
            Route("/v1/visitors/{visitor_id}", self.erase, methods=["DELETE"]),
        ]

    async def post_navigation(self, request: Request) -> Response:
        """Take events in: they are in the log when this answers 202."""
        raw = await _read_body(request, self._visitors.settings.navigation_body_bytes_max)
        caller = request.scope.get("caller")
        is_trusted = caller is None or caller.role != PUBLISHABLE
        read = read_batch(raw, self._currency)
        if self._shared is not None:
            await self._prepare(self._shared, read.batch)
        done = self._visitors.post(read.batch, self._clock_ms(), is_trusted=is_trusted, places=read.places)
        if self._shared is not None:
            await self._shared.send_soon()
        recorded = msgspec.structs.replace(done, ignored=read.ignored_count)
        self._metrics.count_events(recorded)
        return _json(recorded, 202)

    async def put_profile(self, request: Request) -> Response:
        """Set a visitor's profile, whole."""
        draft: ProfileDraft = request.scope["body"]
        special_categories(self._visitors.settings.special_category_terms).check_profile(draft)
        pseudonym = self._visitors.pseudonym(request.path_params["visitor_id"])
        await self._read(pseudonym)
        person, now_ms = self._visitors.person(pseudonym), self._clock_ms()
        was_known = self._visitors.is_known(person)
        await self._finish_withdrawal_of(person)
        await self._commit(lambda connection: store.put_profile(connection, self._retailer_id, person, draft, now_ms))
        self._visitors.put_profile(person, draft)
        if not was_known:
            await self._take_in_orders(person)
        return await self.get_profile(request)

    async def get_profile(self, request: Request) -> Response:
        """Return what the CRM said of a visitor, and what we compute."""
        visitor_id = request.path_params["visitor_id"]
        pseudonym = self._visitors.pseudonym(visitor_id)
        await self._read(pseudonym)
        draft, record = self._visitors.profile(pseudonym), self._visitors.record(pseudonym)
        if record is None:
            raise ProfileUnknown(f"nothing is known of visitor {visitor_id!r}")
        draft = draft or ProfileDraft()
        return _json(
            Profile(
                visitor_id=visitor_id,
                segments=draft.segments,
                attributes=draft.attributes,
                computed=self._compute(record),
            )
        )

    async def link(self, request: Request) -> Response:
        """Join a visitor to a customer."""
        draft: LinkDraft = request.scope["body"]
        visitor_id = request.path_params["visitor_id"]
        pseudonym = self._visitors.pseudonym(visitor_id)
        customer, now_ms = self._visitors.pseudonym(draft.customer_id), self._clock_ms()
        await self._read(pseudonym, customer)
        self._visitors.check_link(pseudonym, customer)
        await self._finish_withdrawal_of(pseudonym, customer)
        await self._commit(
            lambda connection: store.put_link(connection, self._retailer_id, pseudonym, customer, now_ms)
        )
        was_known = self._visitors.is_known(customer)
        self._visitors.link(pseudonym, customer)
        if not was_known:
            await self._take_in_orders(customer)
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

    async def export(self, request: Request) -> Response:
        """Return everything held of a visitor, their customer and its other devices."""
        visitor_id = request.path_params["visitor_id"]
        visitors = self._visitors
        pseudonym = visitors.pseudonym(visitor_id)
        visitors.flush(self._clock_ms())
        await self._read(pseudonym)
        devices = visitors.devices(pseudonym)
        log = visitors.log
        lines = [] if log is None else await anyio.to_thread.run_sync(log.lines_of, devices)
        elsewhere = await self._commit(lambda connection: self._elsewhere.read(connection, devices))
        profile, record, person = visitors.profile(pseudonym), visitors.record(pseudonym), visitors.person(pseudonym)
        if record is None and not lines and not elsewhere.orders and not elsewhere.touches:
            raise VisitorUnknown(f"nothing is held of visitor {visitor_id!r}")
        profile = profile or ProfileDraft()
        return _json(
            HeldVisitor(
                visitor_id=visitor_id,
                links=[
                    HeldLink(pseudonym=one.hex(), is_customer=one == person, profile=visitors.own_profile(one))
                    for one in sorted(devices)
                    if len(devices) > 1
                ],
                segments=profile.segments,
                attributes=profile.attributes,
                computed=None if record is None else self._compute(record),
                state=None if record is None else describe_state(record),
                navigation=[*map(describe_line, lines), *self._logged_elsewhere(devices, lines)],
                orders=elsewhere.orders,
                touches=elsewhere.touches,
            )
        )

    def _logged_elsewhere(self, devices: Iterable[bytes], lines: Sequence[LogLine]) -> list[HeldEvent]:
        """Return what is held of a person's navigation that another process has in its log."""
        if self._shared is None:
            return []
        own = [record for one in devices if (record := self._visitors.records.get(one)) is not None]
        return [event for record in own for event in describe_events(record, lines)]

    async def erase(self, request: Request) -> Response:
        """Erase everything kept of a visitor, their customer and its other devices; 204 means that it is done."""
        await self._eraser.erase_person(self._visitors.pseudonym(request.path_params["visitor_id"]))
        self._metrics.erasures.inc()
        return Response(status_code=204)

    async def _read(self, *pseudonyms: bytes) -> None:
        """Have memory know what other processes do of visitors."""
        if self._shared is not None:
            await self._shared.read(*pseudonyms)

    async def _prepare(self, shared: SharedVisitors, batch: NavigationBatch) -> None:
        """Learn of a batch's visitors and events what other processes know and this one must.

        Of whom consent is refused, memory has to tell whether there is anything to withdraw.
        """
        if self._visitors.refuses(batch.consent):
            await shared.read(*{self._visitors.pseudonym(event.visitor_id) for event in batch.events})
        else:
            await shared.note_seen((one.visitor_id, one.event_id) for one in batch.events if one.event_id is not None)

    async def _finish_withdrawal_of(self, *pseudonyms: bytes) -> None:
        """See to it that what is kept from now on is not taken for what somebody withdrew a moment ago."""
        if not self._visitors.withdrawn.isdisjoint(pseudonyms):
            self._visitors.flush(self._clock_ms())
            await self._eraser.finish_withdrawals(at_once=True)

    async def _take_in_orders(self, pseudonym: bytes) -> None:
        """Take in what somebody ordered before anything was known of them."""
        held = await self._commit(lambda connection: self._elsewhere.read(connection, [pseudonym]))
        for order in held.orders:
            self._visitors.note_order(order, None, pseudonym, self._clock_ms())

    def _compute(self, record: VisitorRecord) -> ComputedProfile:
        purchases, scale = record.purchases, self._visitors.scale
        return ComputedProfile(
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

    async def _commit(self, work: Callable[[Connection], T]) -> T:
        committed: T = await anyio.to_thread.run_sync(lambda: self._transact(work))
        return committed


async def _read_body(request: Request, size_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > size_max:
            raise BodyTooLarge(f"the body may have {size_max} bytes, had more")
        chunks.append(chunk)
    return b"".join(chunks)


def _json(body: Recorded | Profile | Link | HeldVisitor, status_code: int = 200) -> Response:
    return Response(_encode(body), status_code=status_code, media_type="application/json")

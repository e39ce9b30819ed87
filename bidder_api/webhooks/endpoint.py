"""The operations on webhooks and their deliveries, and on the threshold under which funds are low.

An advertiser's webhooks are told of its own affairs; those of the retailer's staff of everybody's, and are the staff's
own: neither sees the other's, an admin sees both.
"""

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from affinity.catalog import AdvertiserId
from affinity.store import has_advertiser
from bidder_api.access import Caller, Role
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Conflict, Invalid, NotFound
from bidder_api.resources import (
    PageQuery,
    given,
    make_id,
    moment,
    own_advertiser,
    page_of,
    patch_type,
    read_page,
    sees,
)
from bidder_api.store import read_deployment
from bidder_api.webhooks import store
from bidder_api.webhooks.address import Outlets
from bidder_api.webhooks.deliverer import make_again, make_delivery
from bidder_api.webhooks.signature import secret_of, show_secret
from bidder_api.webhooks.store import DeliveryRecord, DeliveryStatus, WebhookRecord, WebhookStatus
from ledger.chain import lock_head
from ledger.money import AmountMicros
from ledger.notice import NoticeType, read_low_funds, set_low_funds, write_body
from ledger.terms import new_id

WEBHOOK_COUNT_MAX = 20  # of one advertiser, or of the retailer's staff
PREVIOUS_SECRET_MS = 24 * 3_600_000
TEST = "webhook.test"
STAFF = frozenset({Role.RETAILER, Role.FINANCE})
Url = Annotated[str, Meta(min_length=1, max_length=2048)]


class WebhookDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/webhooks`.

    Attributes:
        url: where notices are posted; https, and on the public internet.
        event_types: which notices; none named is all.
        advertiser_id: whose, where an agency or an admin makes it; an admin may leave it out, for everybody's.
    """

    url: Url
    event_types: Annotated[list[NoticeType], Meta(max_length=32)] = []
    status: WebhookStatus = "active"
    advertiser_id: AdvertiserId | None = None


WebhookPatch = patch_type(WebhookDraft, "WebhookPatch", leave_out=["advertiser_id"])


class Webhook(Struct, frozen=True, kw_only=True):
    """A webhook as it stands; its secret is not shown again.

    Attributes:
        advertiser_id: whose notices it gets; null is everybody's.
        previous_secret_until: until when deliveries are signed with the secret before, too.
    """

    webhook_id: str
    advertiser_id: str | None
    url: str
    event_types: list[NoticeType]
    status: WebhookStatus
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class SignedWebhook(Webhook, frozen=True, kw_only=True):
    """A webhook with its new secret, shown only now. A repeat with the same Idempotency-Key has `secret` null."""

    secret: str | None


class Delivery(Struct, frozen=True, kw_only=True):
    """One notice for one webhook.

    Attributes:
        notice_id: sent as `webhook-id`, the same on every attempt.
        type: of the notice; `webhook.test` for a test.
        body: as it is sent.
        next_attempt_at: null once it is delivered or dead.
        last_status: HTTP status of the last answer.
        last_error: why the last attempt failed: `refused` (the answer's status), `redirect_refused`, `timeout`,
            `connection_failed`, `tls_failed`, `name_unknown`, `address_refused` or `protocol_error`.
    """

    delivery_id: str
    webhook_id: str
    notice_id: str
    type: NoticeType | Literal["webhook.test"]
    body: str
    status: DeliveryStatus
    attempt_count: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime


class DeliveryQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of a webhook's deliveries."""

    status: DeliveryStatus | None = None


class LowFundsDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/ledger/low-funds/{advertiser_id}`: null goes back to the deployment's threshold, 0 is none."""

    threshold_micros: AmountMicros | None


class LowFunds(Struct, frozen=True, kw_only=True):
    """Below what an advertiser's funds are low.

    Attributes:
        threshold_micros: what counts.
        is_default: whether it is the deployment's.
    """

    advertiser_id: str
    threshold_micros: int
    is_default: bool


WebhookPage = page_of("Webhook", Webhook)
DeliveryPage = page_of("Delivery", Delivery)


class WebhookDesk:
    """The operations on webhooks, which need what secrets are derived from and where webhooks may lead."""

    def __init__(self, master: bytes, outlets: Outlets) -> None:
        self._master = master
        self._outlets = outlets

    def create(self, connection: Connection, call: Call) -> Answer:
        """Make a webhook."""
        draft: WebhookDraft = call.body
        advertiser_id = _owner(connection, call, draft.advertiser_id)
        made = WebhookRecord(
            webhook_id=make_id("whk", call),
            advertiser_id=advertiser_id,
            url=draft.url,
            event_types=sorted(set(draft.event_types)),
            status=draft.status,
            secret_generation=1,
            previous_until_ms=None,
            version=1,
            created_at_ms=call.now_ms,
            updated_at_ms=call.now_ms,
        )
        self._check(made)
        lock_head(connection, call.retailer_id)  # so that two at once do not make one too many
        if len(store.list_webhooks(connection, call.retailer_id, [advertiser_id])) >= WEBHOOK_COUNT_MAX:
            raise Conflict("webhooks_too_many", f"there are {WEBHOOK_COUNT_MAX} already: delete one first")
        store.insert_webhook(connection, call.retailer_id, made)
        call.log("create", "webhook", made.webhook_id, after=show(made))
        return self._with_secret(made, {"Location": f"/v1/webhooks/{made.webhook_id}"})

    def list_own(self, connection: Connection, call: Call) -> Answer:
        """Return a page of the caller's webhooks."""
        whose = _owners(call.caller)

        def read(after: str | None, limit: int) -> list[WebhookRecord]:
            return store.list_webhooks(connection, call.retailer_id, whose, after, limit)

        page = read_page(call.query, read, lambda record: record.webhook_id)
        return Answer(body=page | {"items": [show(record) for record in page["items"]]})

    def read(self, connection: Connection, call: Call) -> Answer:
        """Return a webhook."""
        record = _find(connection, call)
        return Answer(body=show(record), headers={"ETag": etag(record.version)})

    def change(self, connection: Connection, call: Call) -> Answer:
        """Change where a webhook leads, what it is told, or pause it: what waits for it is delivered afterwards."""
        before = _find(connection, call, to_change=True)
        check_match(call, before.version)
        changed = given(call.body)
        if "event_types" in changed:
            changed["event_types"] = sorted(set(changed["event_types"]))
        self._check(msgspec.structs.replace(before, **changed))
        after = _store(connection, call, "update", before, changed)
        return Answer(body=show(after), headers={"ETag": etag(after.version)})

    def delete(self, connection: Connection, call: Call) -> Answer:
        """Delete a webhook with its deliveries."""
        before = _find(connection, call, to_change=True)
        check_match(call, before.version)
        store.delete_webhook(connection, call.retailer_id, before.webhook_id)
        call.log("delete", "webhook", before.webhook_id, before=show(before))
        return Answer()

    def rotate(self, connection: Connection, call: Call) -> Answer:
        """Give a webhook a new secret; for a day deliveries are signed with the one before, too."""
        before = _find(connection, call, to_change=True)
        changed = {
            "secret_generation": before.secret_generation + 1,
            "previous_until_ms": call.now_ms + PREVIOUS_SECRET_MS,
        }
        return self._with_secret(_store(connection, call, "rotate", before, changed), {})

    def test(self, connection: Connection, call: Call) -> Answer:
        """Let a test be delivered."""
        record = _find(connection, call, to_change=True)
        notice_id = new_id("ntc", call.now_ms, secrets.token_bytes(10))
        body = write_body(TEST, {"webhook_id": record.webhook_id}, call.now_ms)
        made = make_delivery(record.webhook_id, 0, notice_id, TEST, body, call.now_ms)
        store.insert_deliveries(connection, call.retailer_id, [made])
        return Answer(body=show_delivery(made))

    def list_deliveries(self, connection: Connection, call: Call) -> Answer:
        """Return a page of a webhook's deliveries, the newest first."""
        query: DeliveryQuery = call.query
        record = _find(connection, call)

        def read(before: str | None, limit: int) -> list[DeliveryRecord]:
            return store.list_deliveries(connection, call.retailer_id, record.webhook_id, query.status, before, limit)

        page = read_page(query, read, lambda delivery: delivery.delivery_id)
        return Answer(body=page | {"items": [show_delivery(one) for one in page["items"]]})

    def redeliver(self, connection: Connection, call: Call) -> Answer:
        """Deliver once more, under the same id, whatever became of it; one that waits is tried at once."""
        record = _find(connection, call, to_change=True)
        delivery = store.get_delivery(connection, call.retailer_id, call.path["delivery_id"])
        if delivery is None or delivery.webhook_id != record.webhook_id:
            raise NotFound("delivery", call.path["delivery_id"])
        again = make_again(delivery, call.now_ms)
        store.keep_attempt(connection, call.retailer_id, delivery, again)
        return Answer(body=show_delivery(again))

    def _check(self, record: WebhookRecord) -> None:
        """Check what the type of the URL cannot say.

        Raises:
            Invalid: it leads nowhere, or where webhooks may not.
        """
        fault = self._outlets.fault_of(record.url)
        if fault is not None:
            raise Invalid("url_refused", f"url: {fault}", "/url")

    def _with_secret(self, record: WebhookRecord, headers: dict[str, str]) -> Answer:
        shown = msgspec.structs.asdict(show(record))
        secret = show_secret(secret_of(self._master, record.webhook_id, record.secret_generation))
        return Answer(
            body=SignedWebhook(**shown, secret=secret),
            kept_body=SignedWebhook(**shown, secret=None),
            headers={"ETag": etag(record.version), **headers},
        )


def put_low_funds(connection: Connection, call: Call) -> Answer:
    """Set below what an advertiser's funds are low."""
    advertiser_id, draft = _known_advertiser(connection, call), call.body
    lock_head(connection, call.retailer_id)
    before = read_low_funds(connection, call.retailer_id, advertiser_id)
    books = read_deployment(connection)
    assert books is not None
    set_low_funds(
        connection,
        call.retailer_id,
        advertiser_id,
        draft.threshold_micros,
        call.low_funds_micros,
        books.currency,
        call.now_ms,
    )
    call.log("set", "low_funds", advertiser_id, before=before, after=draft.threshold_micros)
    return get_low_funds(connection, call)


def get_low_funds(connection: Connection, call: Call) -> Answer:
    """Return below what an advertiser's funds are low."""
    advertiser_id = _known_advertiser(connection, call)
    own_micros = read_low_funds(connection, call.retailer_id, advertiser_id)
    threshold_micros = call.low_funds_micros if own_micros is None else own_micros
    shown = LowFunds(advertiser_id=advertiser_id, threshold_micros=threshold_micros, is_default=own_micros is None)
    return Answer(body=shown)


def show(record: WebhookRecord) -> Webhook:
    """Return what may be seen of a webhook."""
    until_ms = record.previous_until_ms
    return Webhook(
        webhook_id=record.webhook_id,
        advertiser_id=record.advertiser_id,
        url=record.url,
        event_types=record.event_types,  # type: ignore[arg-type]
        status=record.status,
        previous_secret_until=None if until_ms is None else moment(until_ms),
        created_at=moment(record.created_at_ms),
        updated_at=moment(record.updated_at_ms),
    )


def show_delivery(record: DeliveryRecord) -> Delivery:
    """Return a delivery as it is listed."""
    last_ms = record.last_attempt_at_ms
    return Delivery(
        delivery_id=record.delivery_id,
        webhook_id=record.webhook_id,
        notice_id=record.notice_id,
        type=record.type,  # type: ignore[arg-type]
        body=record.body,
        status=record.status,
        attempt_count=record.attempt_count,
        next_attempt_at=moment(record.next_attempt_at_ms) if record.status == "pending" else None,
        last_attempt_at=None if last_ms is None else moment(last_ms),
        last_status=record.last_status,
        last_error=record.last_error,
        created_at=moment(record.created_at_ms),
    )


def _owner(connection: Connection, call: Call, named: str | None) -> str | None:
    """Return whose a new webhook is; None is the retailer's staff's."""
    if call.caller.role in STAFF:
        if named is not None:
            raise Invalid("advertiser_id_not_allowed", "a webhook of yours is told of everybody", "/advertiser_id")
        return None
    if call.caller.role == Role.ADMIN and named is None:
        return None
    return own_advertiser(connection, call, named)


def _owners(caller: Caller) -> list[str | None] | None:
    """Return whose webhooks the caller sees; None is everybody's."""
    if caller.role == Role.ADMIN:
        return None
    return [None] if caller.role in STAFF else list(caller.advertiser_ids)


def _find(connection: Connection, call: Call, *, to_change: bool = False) -> WebhookRecord:
    """Return a webhook the caller may see.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    webhook_id = call.path["webhook_id"]
    record = store.get_webhook(connection, call.retailer_id, webhook_id, to_change=to_change)
    whose = _owners(call.caller)
    if record is None or (whose is not None and record.advertiser_id not in whose):
        raise NotFound("webhook", webhook_id)
    return record


def _store(
    connection: Connection, call: Call, action: str, before: WebhookRecord, changed: dict[str, Any]
) -> WebhookRecord:
    after = msgspec.structs.replace(before, **changed, version=before.version + 1, updated_at_ms=call.now_ms)
    store.update_webhook(connection, call.retailer_id, after)
    call.log(action, "webhook", after.webhook_id, before=show(before), after=show(after))
    return after


def _known_advertiser(connection: Connection, call: Call) -> str:
    """Return the advertiser of the path.

    Raises:
        NotFound: there is none, or it is not the caller's.
    """
    advertiser_id = call.path["advertiser_id"]
    if not sees(call.caller, advertiser_id) or not has_advertiser(connection, call.retailer_id, advertiser_id):
        raise NotFound("advertiser", advertiser_id)
    return advertiser_id

"""The application: every surface behind one door. Start reading here.

`build_app` puts the parts together and holds no part itself; `serving.py` makes the parts of a running process, and a
test can make its own.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from affinity.audience import Audience
from auction.settings import Settings as AuctionSettings
from bidder_api import (
    audiences,
    bid_batch,
    bids,
    bookings,
    campaigns,
    disclosure,
    docs,
    history,
    keys,
    patterns,
    placements,
    products,
    readiness,
    rules,
    virtual_attributes,
)
from bidder_api import metrics as figures
from bidder_api.access import Keyring
from bidder_api.call import Desk, Work
from bidder_api.guard import Doors, Endpoint, Guard, no_page
from bidder_api.metrics import ServerMetrics
from bidder_api.openapi import openapi_document
from bidder_api.operations import Operation
from bidder_api.readiness import Readiness
from bidder_api.settings import Settings
from bidder_api.webhooks.endpoint import WebhookDesk, get_low_funds, put_low_funds

CountAudience = Callable[[Audience], int | None]


class Parts(Struct, frozen=True, kw_only=True):
    """What an application is made of.

    Attributes:
        operations: the table; every one of `surfaces` is in it, and nothing else.
        surfaces: routes of operations.
        pages: routes that are no operations, such as the demo shop's; they need no key.
        lifespan: what runs while the application does.
    """

    settings: Settings
    operations: Sequence[Operation]
    surfaces: Sequence[Route]
    keyring: Keyring
    metrics: ServerMetrics
    readiness: Readiness
    pages: Sequence[Route] = ()
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None


def build_app(parts: Parts) -> Guard:
    """Return the application, as ASGI."""

    def write_document() -> dict[str, Any]:
        return openapi_document(parts.operations, version("endcap"))

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        if parts.lifespan is None:
            yield
            return
        async with parts.lifespan():
            yield

    pages = Router(
        routes=[
            *readiness.routes(parts.readiness),
            *figures.routes(parts.metrics, parts.keyring, parts.settings.metrics),
            *docs.routes(write_document),
            *parts.pages,
        ],
        redirect_slashes=False,
        default=no_page,
        lifespan=lifespan,
    )
    return Guard(
        Doors(parts.operations, parts.surfaces),
        parts.keyring,
        pages,
        parts.settings.body_deadline_s,
        parts.metrics.count_problem,
    )


def management_routes(
    desk: Desk,
    keyring: Keyring,
    hash_key: bytes,
    count_audience: CountAudience,
    count_pattern: patterns.CountPattern,
    auction_settings: AuctionSettings,
    webhooks: WebhookDesk,
) -> list[Route]:
    """Return the routes of the management API.

    Args:
        desk: where its calls are carried out.
        keyring: told when a key changed, so that here it counts at once.
        hash_key: what the secrets of keys are hashed with.
        count_audience, count_pattern: how many visitors one matches now, None under the least that is shown.
        auction_settings: what auctions are held with, for whoever asks how.
        webhooks: the operations on webhooks.
    """
    own_keys = keys.KeyDesk(hash_key)
    own_audiences = audiences.saved_audiences(count_audience, desk.special)
    preview_audience = audiences.audience_preview(count_audience)
    own_patterns = patterns.saved_patterns(count_pattern)
    read, change = desk.reading, desk.changing
    one_attribute = "/v1/virtual-attributes/{virtual_attribute_id}"
    one_webhook, low_funds = "/v1/webhooks/{webhook_id}", "/v1/ledger/low-funds/{advertiser_id}"

    def change_keys(work: Work) -> Endpoint:
        endpoint = change(work)

        async def then_look(request: Request) -> Response:
            response = await endpoint(request)
            await keyring.refresh()
            return response

        return then_look

    return [
        Route("/v1/campaigns", change(campaigns.create_campaign), methods=["POST"]),
        Route("/v1/campaigns", read(campaigns.list_own_campaigns), methods=["GET"]),
        Route("/v1/campaigns/{campaign_id}", read(campaigns.read_campaign), methods=["GET"]),
        Route("/v1/campaigns/{campaign_id}", change(campaigns.change_campaign), methods=["PATCH"]),
        Route("/v1/campaigns/{campaign_id}", change(campaigns.archive_campaign), methods=["DELETE"]),
        Route("/v1/bids", change(bids.create_bid), methods=["POST"]),
        Route("/v1/bids", read(bids.list_own_bids), methods=["GET"]),
        Route("/v1/bids:batch", change(bid_batch.change_many), methods=["POST"]),
        Route("/v1/bids/{bid_id}", read(bids.read_bid), methods=["GET"]),
        Route("/v1/bids/{bid_id}", change(bids.change_bid), methods=["PATCH"]),
        Route("/v1/bids/{bid_id}", change(bids.archive_bid), methods=["DELETE"]),
        Route("/v1/audiences", change(own_audiences.create), methods=["POST"]),
        Route("/v1/audiences", read(own_audiences.list_own), methods=["GET"]),
        Route("/v1/audiences/preview", read(preview_audience), methods=["POST"]),
        Route("/v1/audiences/{audience_id}", read(own_audiences.read), methods=["GET"]),
        Route("/v1/audiences/{audience_id}", change(own_audiences.change), methods=["PATCH"]),
        Route("/v1/audiences/{audience_id}", change(own_audiences.archive), methods=["DELETE"]),
        Route("/v1/navigation-patterns", change(own_patterns.create), methods=["POST"]),
        Route("/v1/navigation-patterns", read(own_patterns.list_own), methods=["GET"]),
        Route("/v1/navigation-patterns/{pattern_id}", read(own_patterns.read), methods=["GET"]),
        Route("/v1/navigation-patterns/{pattern_id}", change(own_patterns.change), methods=["PATCH"]),
        Route("/v1/navigation-patterns/{pattern_id}", change(own_patterns.archive), methods=["DELETE"]),
        Route("/v1/rules", change(rules.create_rule), methods=["POST"]),
        Route("/v1/rules", read(rules.list_all), methods=["GET"]),
        Route("/v1/rules/{rule_id}", read(rules.read_rule), methods=["GET"]),
        Route("/v1/rules/{rule_id}", change(rules.change_rule), methods=["PATCH"]),
        Route("/v1/rules/{rule_id}", change(rules.archive_rule), methods=["DELETE"]),
        Route("/v1/virtual-attributes", change(virtual_attributes.create_attribute), methods=["POST"]),
        Route("/v1/virtual-attributes", read(virtual_attributes.list_all), methods=["GET"]),
        Route("/v1/virtual-attributes/preview", read(virtual_attributes.preview), methods=["POST"]),
        Route(one_attribute, read(virtual_attributes.read_attribute), methods=["GET"]),
        Route(one_attribute, change(virtual_attributes.change_attribute), methods=["PATCH"]),
        Route(one_attribute, change(virtual_attributes.archive_attribute), methods=["DELETE"]),
        Route("/v1/bookings", change(bookings.create_booking), methods=["POST"]),
        Route("/v1/bookings", read(bookings.list_all), methods=["GET"]),
        Route("/v1/bookings/{booking_id}", read(bookings.read_booking), methods=["GET"]),
        Route("/v1/bookings/{booking_id}", change(bookings.change_booking), methods=["PATCH"]),
        Route("/v1/bookings/{booking_id}", change(bookings.archive_booking), methods=["DELETE"]),
        Route("/v1/products", read(products.list_all), methods=["GET"]),
        Route("/v1/products:batch", change(products.change_many), methods=["POST"]),
        Route("/v1/products/{product_id}", read(products.read), methods=["GET"]),
        Route("/v1/products/{product_id}", change(products.put), methods=["PUT"]),
        Route("/v1/placements", read(placements.list_all), methods=["GET"]),
        Route("/v1/placements/{placement_id}", read(placements.read), methods=["GET"]),
        Route("/v1/placements/{placement_id}", change(placements.put), methods=["PUT"]),
        Route("/v1/page-types", read(placements.list_caps), methods=["GET"]),
        Route("/v1/page-types/{type}", change(placements.put_caps), methods=["PUT"]),
        Route("/v1/keys", change_keys(own_keys.create), methods=["POST"]),
        Route("/v1/keys", read(own_keys.list_all), methods=["GET"]),
        Route("/v1/keys/{key_id}", read(own_keys.read), methods=["GET"]),
        Route("/v1/keys/{key_id}", change_keys(own_keys.revoke), methods=["DELETE"]),
        Route("/v1/webhooks", change(webhooks.create), methods=["POST"]),
        Route("/v1/webhooks", read(webhooks.list_own), methods=["GET"]),
        Route(one_webhook, read(webhooks.read), methods=["GET"]),
        Route(one_webhook, change(webhooks.change), methods=["PATCH"]),
        Route(one_webhook, change(webhooks.delete), methods=["DELETE"]),
        Route(one_webhook + "/rotate", change(webhooks.rotate), methods=["POST"]),
        Route(one_webhook + "/test", change(webhooks.test), methods=["POST"]),
        Route(one_webhook + "/deliveries", read(webhooks.list_deliveries), methods=["GET"]),
        Route(one_webhook + "/deliveries/{delivery_id}/redeliver", change(webhooks.redeliver), methods=["POST"]),
        Route(low_funds, change(put_low_funds), methods=["PUT"]),
        Route(low_funds, read(get_low_funds), methods=["GET"]),
        Route("/v1/changes", read(history.list_all), methods=["GET"]),
        Route("/v1/disclosure", read(disclosure.disclosing(auction_settings)), methods=["GET"]),
    ]

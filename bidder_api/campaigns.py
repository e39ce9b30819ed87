"""Campaigns: an advertiser's budgets, dates and pacing. A campaign and its limits change in one transaction."""

from typing import Literal

import msgspec
from sqlalchemy.engine import Connection

from affinity.store import next_change_seq
from auction.campaign import Campaign, CampaignDraft
from auction.store import get_campaign, insert_campaign, list_campaigns, update_campaign
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
    read_of_tenants,
    read_page,
    sees,
)
from bidder_api.store import read_deployment
from ledger.calendar import Calendar
from ledger.chain import lock_head
from ledger.notice import change_limits

CampaignPatch = patch_type(CampaignDraft, "CampaignPatch", leave_out=["advertiser_id"])
CampaignPage = page_of("Campaign", Campaign)


class CampaignQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the list of campaigns; archived ones are listed only when asked for by status."""

    status: Literal["active", "paused", "archived"] | None = None


def create_campaign(connection: Connection, call: Call) -> Answer:
    """Make a campaign and its limits."""
    draft: CampaignDraft = call.body
    advertiser_id = own_advertiser(connection, call, draft.advertiser_id)
    now = moment(call.now_ms)
    values = msgspec.structs.asdict(draft) | {"advertiser_id": advertiser_id}
    campaign = Campaign(
        **values,
        campaign_id=make_id("cmp", call),
        created_at=now,
        updated_at=now,
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    check_campaign(campaign)
    insert_campaign(connection, call.retailer_id, campaign)
    _set_limits(connection, call, campaign)
    call.log("create", "campaign", campaign.campaign_id, after=campaign)
    location = {"ETag": etag(campaign.change_seq), "Location": f"/v1/campaigns/{campaign.campaign_id}"}
    return Answer(body=campaign, headers=location)


def read_campaign(connection: Connection, call: Call) -> Answer:
    """Return one campaign."""
    campaign = find_campaign(connection, call, call.path["campaign_id"])
    return Answer(body=campaign, headers={"ETag": etag(campaign.change_seq)})


def list_own_campaigns(connection: Connection, call: Call) -> Answer:
    """Return a page of the caller's campaigns."""
    query: CampaignQuery = call.query

    def read(after: str | None, limit: int) -> list[Campaign]:
        return read_of_tenants(
            call.caller,
            lambda tenant: list_campaigns(connection, call.retailer_id, tenant, after, limit, status=query.status),
            lambda campaign: campaign.campaign_id,
            limit,
        )

    return Answer(body=read_page(query, read, lambda campaign: campaign.campaign_id))


def change_campaign(connection: Connection, call: Call) -> Answer:
    """Change some of a campaign."""
    campaign = find_campaign(connection, call, call.path["campaign_id"])
    check_match(call, campaign.change_seq)
    if campaign.status == "archived":
        raise Conflict("campaign_archived", "an archived campaign cannot be changed")
    return _store(connection, call, campaign, "update", given(call.body))


def archive_campaign(connection: Connection, call: Call) -> Answer:
    """Archive a campaign; its bids no longer take part. Archiving it again changes nothing."""
    campaign = find_campaign(connection, call, call.path["campaign_id"])
    check_match(call, campaign.change_seq)
    if campaign.status != "archived":
        _store(connection, call, campaign, "archive", {"status": "archived"})
    return Answer()


def find_campaign(connection: Connection, call: Call, campaign_id: str) -> Campaign:
    """Return a campaign the caller may see.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    campaign = get_campaign(connection, call.retailer_id, campaign_id)
    if campaign is None or not sees(call.caller, campaign.advertiser_id):
        raise NotFound("campaign", campaign_id)
    return campaign


def check_campaign(campaign: Campaign) -> None:
    """Check what no single field's type can say.

    Raises:
        Invalid: the flight ends before it starts.
    """
    starts, ends = campaign.flight_starts_at, campaign.flight_ends_at
    if starts is not None and ends is not None and ends <= starts:
        raise Invalid(
            "flight_ends_before_start",
            f"flight_ends_at must be after flight_starts_at, were {ends.isoformat()} and {starts.isoformat()}",
            "/flight_ends_at",
        )


def _store(connection: Connection, call: Call, before: Campaign, action: str, changed: dict[str, object]) -> Answer:
    after = msgspec.structs.replace(
        before,
        **changed,
        updated_at=moment(call.now_ms),
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    check_campaign(after)
    update_campaign(connection, call.retailer_id, after)
    _set_limits(connection, call, after)
    call.log(action, "campaign", after.campaign_id, before=before, after=after)
    return Answer(body=after, headers={"ETag": etag(after.change_seq)})


def _set_limits(connection: Connection, call: Call, campaign: Campaign) -> None:
    lock_head(connection, call.retailer_id)  # as the ledger's writer does first: two orders would deadlock
    books = read_deployment(connection)
    assert books is not None
    change_limits(
        connection,
        call.retailer_id,
        campaign.campaign_id,
        campaign.advertiser_id,
        campaign.daily_budget_micros,
        campaign.total_budget_micros,
        Calendar(books.time_zone).day(call.now_ms),
        books.currency,
        call.now_ms,
    )

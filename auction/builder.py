"""From what is stored to what the auction reads: pure building of a snapshot, no database and no clock."""

from msgspec import Struct

from affinity.catalog import Product
from auction.campaign import Bid, Campaign
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule


class SnapshotSource(Struct, frozen=True, kw_only=True):
    """Everything a snapshot is built from, as of one version.

    Attributes:
        version: value of the deployment's change sequence it was read at.
        currency: ISO 4217.
        time_zone: IANA name; days of budgets and hours of bids are in it.
        advertiser_names: advertiser id to the name shown in disclosures.
        page_caps: type of page to its caps.
        campaigns, bids: archived ones left out; paused ones are in, so that a receipt can say so.
        rules: live ones.
    """

    version: int
    currency: str
    time_zone: str
    products: list[Product]
    advertiser_names: dict[str, str] = {}
    placements: list[Placement] = []
    page_caps: dict[str, PageCaps] = {}
    campaigns: list[Campaign] = []
    bids: list[Bid] = []
    rules: list[RetailerRule] = []

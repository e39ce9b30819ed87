"""The table of every operation of the API. Adding one is adding a line here and a route of the same path."""

from msgspec import Struct

from affinity.catalog import Product
from auction.campaign import Bid, BidDraft, Campaign, CampaignDraft
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule, RuleDraft
from bidder_api import audiences, bids, campaigns, history, keys, patterns, placements, products, rules
from bidder_api.access import Role
from bidder_api.operations import KIB, Operation
from bidder_api.resources import PageQuery

SITE = frozenset({Role.SITE, Role.RETAILER})
SERVING = frozenset({Role.RETAILER})
RECEIPTS = frozenset({Role.RETAILER, Role.MERCHANT, Role.ADVERTISER, Role.AGENCY})
CUSTOMERS = frozenset({Role.RETAILER, Role.CRM})
BIDDING = frozenset({Role.ADVERTISER, Role.AGENCY})
MERCHANT = frozenset({Role.MERCHANT})
MERCHANT_READS = frozenset({Role.MERCHANT, Role.RETAILER})
FINANCE = frozenset({Role.FINANCE})
FINANCE_READS = frozenset({Role.FINANCE, Role.AUDITOR})
AUDIT = frozenset({Role.AUDITOR})
ADMIN = frozenset({Role.ADMIN})


def _resource(
    kind: str,
    path: str,
    plural: str,
    roles: frozenset[str],
    draft: object,
    patch: object,
    answer: object,
    page: object,
    query: type[Struct],
) -> list[Operation]:
    """Return the five operations of something that is made, changed and archived."""
    tag, words = plural, plural.removesuffix("s").replace("-", " ")
    name, one = words.replace(" ", "_"), f"{path}/{{{kind}_id}}"
    return [
        Operation(
            method="POST", path=path, name=f"create_{name}", summary=f"Make a {words}", tag=tag, roles=roles,
            body=draft, answer=answer, status=201, takes_idempotency_key=True,
        ),
        Operation(
            method="GET", path=path, name=f"list_{name}s", summary=f"List {plural.replace('-', ' ')}", tag=tag,
            roles=roles, answer=page, query=query,
        ),
        Operation(
            method="GET", path=one, name=f"get_{name}", summary=f"Read a {words}", tag=tag, roles=roles, answer=answer,
        ),
        Operation(
            method="PATCH", path=one, name=f"update_{name}", summary=f"Change some of a {words}", tag=tag,
            roles=roles, body=patch, answer=answer, needs_if_match=True,
        ),
        Operation(
            method="DELETE", path=one, name=f"archive_{name}", summary=f"Archive a {words}", tag=tag, roles=roles,
            status=204,
        ),
    ]  # fmt: skip


MANAGEMENT: list[Operation] = [
    *_resource(
        "campaign", "/v1/campaigns", "campaigns", BIDDING, CampaignDraft, campaigns.CampaignPatch, Campaign,
        campaigns.CampaignPage, campaigns.CampaignQuery,
    ),
    *_resource("bid", "/v1/bids", "bids", BIDDING, BidDraft, bids.BidPatch, Bid, bids.BidPage, bids.BidQuery),
    *_resource(
        "audience", "/v1/audiences", "audiences", BIDDING, audiences.AudienceDraft, audiences.AudiencePatch,
        audiences.CountedAudience, audiences.AudiencePage, PageQuery,
    ),
    *_resource(
        "pattern", "/v1/navigation-patterns", "navigation-patterns", BIDDING, patterns.PatternDraft,
        patterns.PatternPatch, patterns.CountedPattern, patterns.PatternPage, PageQuery,
    ),
    *_resource(
        "rule", "/v1/rules", "rules", MERCHANT, RuleDraft, rules.RulePatch, RetailerRule, rules.RulePage,
        rules.RuleQuery,
    ),
    Operation(
        method="PUT", path="/v1/products/{product_id}", name="put_product", summary="Set a product, whole",
        tag="products", roles=MERCHANT, body=products.ProductBody, answer=Product,
    ),
    Operation(
        method="GET", path="/v1/products/{product_id}", name="get_product", summary="Read a product", tag="products",
        roles=MERCHANT_READS, answer=Product,
    ),
    Operation(
        method="GET", path="/v1/products", name="list_products", summary="List products", tag="products",
        roles=MERCHANT_READS, answer=products.ProductPage, query=PageQuery,
    ),
    Operation(
        method="POST", path="/v1/products:batch", name="change_products", tag="products",
        summary="Change price, stock or availability of many products", roles=MERCHANT | SERVING,
        body=products.ProductChangeBatch, answer=products.ProductChangeResults, takes_idempotency_key=True,
        body_size_max=512 * KIB,
    ),
    Operation(
        method="PUT", path="/v1/placements/{placement_id}", name="put_placement", summary="Set a placement, whole",
        tag="placements", roles=MERCHANT, body=placements.PlacementBody, answer=Placement,
    ),
    Operation(
        method="GET", path="/v1/placements/{placement_id}", name="get_placement", summary="Read a placement",
        tag="placements", roles=MERCHANT_READS, answer=Placement,
    ),
    Operation(
        method="GET", path="/v1/placements", name="list_placements", summary="List placements", tag="placements",
        roles=MERCHANT_READS, answer=placements.PlacementPage, query=PageQuery,
    ),
    Operation(
        method="PUT", path="/v1/page-types/{type}", name="put_page_type", summary="Set the caps of a type of page",
        tag="placements", roles=MERCHANT, body=PageCaps, answer=PageCaps,
    ),
    Operation(
        method="GET", path="/v1/page-types", name="list_page_types", summary="List the caps of types of pages",
        tag="placements", roles=MERCHANT_READS, answer=placements.PageTypeList,
    ),
    Operation(
        method="POST", path="/v1/keys", name="create_key", summary="Make a key; its text is answered once",
        tag="keys", roles=ADMIN, body=keys.KeyDraft, answer=keys.NewKey, status=201, takes_idempotency_key=True,
    ),
    Operation(
        method="GET", path="/v1/keys", name="list_keys", summary="List keys", tag="keys", roles=ADMIN,
        answer=keys.KeyPage, query=PageQuery,
    ),
    Operation(
        method="GET", path="/v1/keys/{key_id}", name="get_key", summary="Read a key", tag="keys", roles=ADMIN,
        answer=keys.Key,
    ),
    Operation(
        method="DELETE", path="/v1/keys/{key_id}", name="revoke_key", summary="Revoke a key", tag="keys",
        roles=ADMIN, status=204,
    ),
    Operation(
        method="GET", path="/v1/changes", name="list_changes", summary="Who changed what, before and after",
        tag="changes", roles=AUDIT, answer=history.ChangePage, query=PageQuery,
    ),
]  # fmt: skip

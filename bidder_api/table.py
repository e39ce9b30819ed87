"""The table of every operation of the API. Adding one is adding a line here and a route of the same path."""

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from affinity.catalog import Product
from affinity.endpoint import HeldVisitor, Link, LinkDraft, Profile
from affinity.navigation import NavigationBatch
from affinity.profile import ProfileDraft
from affinity.visitors import Recorded
from auction.booking import Booking, BookingDraft
from auction.campaign import Bid, BidDraft, Campaign, CampaignDraft
from auction.explanation import AuctionReceipt
from auction.placement import PageCaps, Placement
from auction.request import SlotRequest, SlotResponse
from auction.retailer_rule import RuleDraft
from auction.virtual_attribute import VirtualAttribute, VirtualAttributeDraft
from bidder_api import (
    audiences,
    bid_batch,
    bids,
    bookings,
    campaigns,
    disclosure,
    history,
    keys,
    patterns,
    placements,
    preview,
    products,
    rules,
    virtual_attributes,
)
from bidder_api.access import Role
from bidder_api.operations import ANYBODY, KIB, Operation
from bidder_api.resources import PageQuery
from bidder_api.webhooks import endpoint as webhooks
from ledger import performance, reports, sales
from ledger.closing import PeriodReport
from ledger.command import (
    AdvertiserFunds,
    ClosedPeriod,
    CloseDraft,
    CommissionAgreement,
    CommissionAgreementList,
    CommissionDraft,
    CommissionEnd,
    CommissionPage,
    CommissionsPosted,
    CreditLineDraft,
    CreditNoteDraft,
    DocumentPage,
    InvoiceDraft,
    Issued,
    OrderBatch,
    OrderResults,
    Payment,
    PaymentPage,
    PeriodList,
    PromotionalCredit,
    PromotionalCreditPage,
    Reversal,
    ReversalDraft,
    TopUp,
    TopUpDraft,
    TopUpPage,
    WriteOff,
    WriteOffPage,
)
from ledger.document import BillingProfile
from ledger.event import EventBatch, EventResults
from ledger.table_file import MEDIA_TYPES

SITE = frozenset({Role.SITE, Role.RETAILER})
SERVING = frozenset({Role.RETAILER})
RECEIPTS = frozenset({Role.RETAILER, Role.MERCHANT, Role.FINANCE, Role.AUDITOR, Role.ADVERTISER})
CUSTOMERS = frozenset({Role.RETAILER, Role.CRM})
BIDDING = frozenset({Role.ADVERTISER, Role.AGENCY})
MERCHANT = frozenset({Role.MERCHANT})
MERCHANT_READS = frozenset({Role.MERCHANT, Role.RETAILER})
FINANCE = frozenset({Role.FINANCE})
FINANCE_READS = frozenset({Role.FINANCE, Role.AUDITOR})
OWN_BOOKS = FINANCE_READS | {Role.ADVERTISER}  # an advertiser's key sees its own only
TOLD = BIDDING | {Role.RETAILER, Role.FINANCE}
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


ReceiptShown = msgspec.defstruct(  # what the retailer's candidates and an advertiser's have in common is no type
    "AuctionReceipt",
    [
        (field.name, list[dict[str, Any]])
        if field.name == "placements"
        else (field.name, field.type)
        if field.required
        else (field.name, field.type, field.default)
        for field in fields(AuctionReceipt)
    ],
    kw_only=True,
)

SERVING_OPERATIONS: list[Operation] = [
    Operation(
        method="POST", path="/v1/fills", name="fill_slots", tag="fills", roles=SERVING,
        summary="Fill the slots of a page", body=SlotRequest, answer=SlotResponse, is_hot=True,
        body_size_max=2_000_000,
    ),
    Operation(
        method="GET", path="/v1/auctions/{auction_id}", name="get_auction", tag="fills", roles=RECEIPTS,
        summary="Read the receipt of an auction: an advertiser sees its own candidates", answer=ReceiptShown,
    ),
    Operation(
        method="POST", path="/v1/events", name="record_events", tag="events", roles=ANYBODY,
        summary="Record impressions, views and clicks; 200 means that every result is durable",
        body=EventBatch, answer=EventResults, is_hot=True, is_cross_origin=True, body_size_max=2_000_000,
    ),
    Operation(
        method="GET", path="/v1/click/{beacon_token}", name="follow_click", tag="events", roles=ANYBODY,
        summary="Record a click and go to the product", status=302,
    ),
    Operation(
        method="POST", path="/v1/navigation", name="record_navigation", tag="navigation", roles=SITE,
        summary="Record what visitors did, under our names or Google Analytics 4's", body=NavigationBatch,
        answer=Recorded, status=202, is_hot=True,
        is_cross_origin=True, body_size_max=512_000,
    ),
    Operation(
        method="POST", path="/v1/orders", name="record_orders", tag="orders", roles=SERVING,
        summary="Record orders and returns", body=OrderBatch, answer=OrderResults, body_size_max=1024 * KIB,
    ),
    Operation(
        method="PUT", path="/v1/profiles/{visitor_id}", name="put_profile", tag="visitors", roles=CUSTOMERS,
        summary="Set a visitor's profile, whole", body=ProfileDraft, answer=Profile,
    ),
    Operation(
        method="GET", path="/v1/profiles/{visitor_id}", name="get_profile", tag="visitors", roles=CUSTOMERS,
        summary="Read a visitor's profile, and what is computed of it", answer=Profile,
    ),
    Operation(
        method="POST", path="/v1/visitors/{visitor_id}/link", name="link_visitor", tag="visitors", roles=CUSTOMERS,
        summary="Join a visitor to a customer", body=LinkDraft, answer=Link,
    ),
    Operation(
        method="DELETE", path="/v1/visitors/{visitor_id}/link", name="unlink_visitor", tag="visitors",
        roles=CUSTOMERS, summary="Part a visitor from its customer", status=204,
    ),
    Operation(
        method="GET", path="/v1/visitors/{visitor_id}", name="export_visitor", tag="visitors", roles=CUSTOMERS,
        summary="Read everything held of a visitor", answer=HeldVisitor,
    ),
    Operation(
        method="DELETE", path="/v1/visitors/{visitor_id}", name="erase_visitor", tag="visitors", roles=CUSTOMERS,
        summary="Erase everything kept of a visitor; 204 means that no file holds it any more", status=204,
    ),
]  # fmt: skip

LEDGER_OPERATIONS: list[Operation] = [
    Operation(
        method="GET", path="/v1/ledger/accounts", name="list_accounts", tag="ledger", roles=OWN_BOOKS,
        summary="List the accounts in use", answer=reports.AccountList, query=reports.LedgerQuery,
    ),
    Operation(
        method="GET", path="/v1/ledger/balances", name="list_balances", tag="ledger", roles=OWN_BOOKS,
        summary="List balances", answer=reports.BalanceList, query=reports.LedgerQuery,
    ),
    Operation(
        method="GET", path="/v1/ledger/trial-balance", name="get_trial_balance", tag="ledger", roles=FINANCE_READS,
        summary="Read all balances and their sum, 0", answer=reports.TrialBalance,
    ),
    Operation(
        method="GET", path="/v1/ledger/transactions", name="list_transactions", tag="ledger", roles=FINANCE_READS,
        summary="List the journal", answer=reports.TransactionPage, query=reports.TransactionsQuery,
    ),
    Operation(
        method="GET", path="/v1/ledger/transactions/{transaction_id}", name="get_transaction", tag="ledger",
        roles=FINANCE_READS, summary="Read a transaction", answer=reports.JournalTransaction,
    ),
    Operation(
        method="GET", path="/v1/ledger/statements", name="get_statement", tag="ledger", roles=OWN_BOOKS,
        summary="Read an advertiser's month", answer=reports.Statement, query=reports.StatementQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/top-ups", name="create_top_up", tag="ledger", roles=FINANCE,
        summary="Book money received, once per reference", body=TopUpDraft, answer=TopUp, status=201, also_status=200,
    ),
    Operation(
        method="GET", path="/v1/ledger/top-ups", name="list_top_ups", tag="ledger", roles=OWN_BOOKS,
        summary="List money received", answer=TopUpPage, query=reports.FundsQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/promotional-credits", name="create_promotional_credit", tag="ledger",
        roles=FINANCE, summary="Give credit, once per reference", body=TopUpDraft, answer=PromotionalCredit,
        status=201, also_status=200,
    ),
    Operation(
        method="GET", path="/v1/ledger/promotional-credits", name="list_promotional_credits", tag="ledger",
        roles=OWN_BOOKS, summary="List credit given", answer=PromotionalCreditPage, query=reports.FundsQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/credit-lines", name="set_credit_line", tag="ledger", roles=FINANCE,
        summary="Set the most an advertiser may owe", body=CreditLineDraft, answer=AdvertiserFunds,
    ),
    Operation(
        method="GET", path="/v1/ledger/credit-lines", name="list_credit_lines", tag="ledger", roles=OWN_BOOKS,
        summary="List advertisers' funds", answer=reports.FundsPage, query=reports.FundsQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/reversals", name="create_reversal", tag="ledger", roles=FINANCE,
        summary="Undo a transaction, once", body=ReversalDraft, answer=Reversal, status=201,
    ),
    Operation(
        method="POST", path="/v1/ledger/payments", name="create_payment", tag="ledger", roles=FINANCE,
        summary="Book money received for invoices, once per reference", body=TopUpDraft, answer=Payment, status=201,
        also_status=200,
    ),
    Operation(
        method="GET", path="/v1/ledger/payments", name="list_payments", tag="ledger", roles=OWN_BOOKS,
        summary="List payments", answer=PaymentPage, query=reports.FundsQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/write-offs", name="create_write_off", tag="ledger", roles=FINANCE,
        summary="Give up what will not be paid, once per reference", body=TopUpDraft, answer=WriteOff, status=201,
        also_status=200,
    ),
    Operation(
        method="GET", path="/v1/ledger/write-offs", name="list_write_offs", tag="ledger", roles=OWN_BOOKS,
        summary="List write-offs", answer=WriteOffPage, query=reports.FundsQuery,
    ),
    Operation(
        method="PUT", path="/v1/ledger/seller", name="put_seller", tag="ledger", roles=FINANCE,
        summary="Say who sells", body=BillingProfile, answer=BillingProfile,
    ),
    Operation(
        method="GET", path="/v1/ledger/seller", name="get_seller", tag="ledger", roles=OWN_BOOKS,
        summary="Read who sells", answer=BillingProfile,
    ),
    Operation(
        method="PUT", path="/v1/ledger/billing-profiles/{advertiser_id}", name="put_billing_profile", tag="ledger",
        roles=FINANCE, summary="Say to whom an advertiser's invoices go", body=BillingProfile, answer=BillingProfile,
    ),
    Operation(
        method="GET", path="/v1/ledger/billing-profiles/{advertiser_id}", name="get_billing_profile", tag="ledger",
        roles=OWN_BOOKS, summary="Read to whom an advertiser's invoices go", answer=BillingProfile,
    ),
    Operation(
        method="GET", path="/v1/ledger/periods", name="list_periods", tag="ledger", roles=FINANCE_READS,
        summary="List the months that are closed", answer=PeriodList,
    ),
    Operation(
        method="POST", path="/v1/ledger/periods/{period}/close", name="close_period", tag="ledger", roles=FINANCE,
        summary="Close a month softly, or seal it", body=CloseDraft, answer=ClosedPeriod,
    ),
    Operation(
        method="GET", path="/v1/ledger/periods/{period}/report", name="report_period", tag="ledger",
        roles=FINANCE_READS, summary="Read every account over a month", answer=PeriodReport,
    ),
    Operation(
        method="POST", path="/v1/ledger/invoices", name="create_invoice", tag="ledger", roles=FINANCE,
        summary="Invoice an advertiser's sealed month", body=InvoiceDraft, answer=Issued, status=201,
    ),
    Operation(
        method="GET", path="/v1/ledger/invoices", name="list_invoices", tag="ledger", roles=OWN_BOOKS,
        summary="List invoices", answer=DocumentPage, query=reports.FundsQuery,
    ),
    Operation(
        method="GET", path="/v1/ledger/invoices/{number}", name="get_invoice", tag="ledger", roles=OWN_BOOKS,
        summary="Read an invoice", answer=Issued,
    ),
    Operation(
        method="POST", path="/v1/ledger/credit-notes", name="create_credit_note", tag="ledger", roles=FINANCE,
        summary="Give back part or all of an invoice", body=CreditNoteDraft, answer=Issued, status=201,
    ),
    Operation(
        method="GET", path="/v1/ledger/credit-notes", name="list_credit_notes", tag="ledger", roles=OWN_BOOKS,
        summary="List credit notes", answer=DocumentPage, query=reports.FundsQuery,
    ),
    Operation(
        method="GET", path="/v1/ledger/credit-notes/{number}", name="get_credit_note", tag="ledger", roles=OWN_BOOKS,
        summary="Read a credit note", answer=Issued,
    ),
    Operation(
        method="POST", path="/v1/ledger/commission-agreements", name="create_commission_agreement", tag="ledger",
        roles=FINANCE, summary="Agree with an advertiser on commission on attributed sales", body=CommissionDraft,
        answer=CommissionAgreement, status=201, also_status=200,
    ),
    Operation(
        method="GET", path="/v1/ledger/commission-agreements", name="list_commission_agreements", tag="ledger",
        roles=OWN_BOOKS, summary="List agreements on commission", answer=CommissionAgreementList,
        query=reports.LedgerQuery,
    ),
    Operation(
        method="POST", path="/v1/ledger/commission-agreements/{commission_agreement_id}/end",
        name="end_commission_agreement", tag="ledger", roles=FINANCE, summary="Say when an agreement ends",
        body=CommissionEnd, answer=CommissionAgreement,
    ),
    Operation(
        method="POST", path="/v1/ledger/commissions", name="post_commissions", tag="ledger", roles=FINANCE,
        summary="Post the commission that is due; the server does so hourly by itself", answer=CommissionsPosted,
    ),
    Operation(
        method="GET", path="/v1/ledger/commissions", name="list_commissions", tag="ledger", roles=OWN_BOOKS,
        summary="List the commission posted, and what went back of it", answer=CommissionPage,
        query=reports.FundsQuery,
    ),
    Operation(
        method="GET", path="/v1/reconciliation", name="get_reconciliation", tag="ledger", roles=FINANCE_READS,
        summary="Read counts, sums and digests to hold against a log of one's own", answer=reports.Reconciliation,
        query=reports.ReconciliationQuery,
    ),
    Operation(
        method="GET", path="/v1/reports/{report}", name="get_report", tag="reports", roles=OWN_BOOKS,
        summary="Read what campaigns, products or placements brought", answer=performance.PerformanceReport,
        query=performance.PerformanceQuery, table_types=tuple(MEDIA_TYPES.values()),
    ),
    Operation(
        method="GET", path="/v1/sales", name="get_sales", tag="ledger", roles=OWN_BOOKS,
        summary="Read sales credited to campaigns, and what these were charged", answer=sales.SalesReport,
        query=sales.SalesQuery,
    ),
]  # fmt: skip

MANAGEMENT: list[Operation] = [
    *_resource(
        "campaign", "/v1/campaigns", "campaigns", BIDDING, CampaignDraft, campaigns.CampaignPatch, Campaign,
        campaigns.CampaignPage, campaigns.CampaignQuery,
    ),
    *_resource("bid", "/v1/bids", "bids", BIDDING, BidDraft, bids.BidPatch, Bid, bids.BidPage, bids.BidQuery),
    Operation(
        method="POST", path="/v1/bids:batch", name="change_bids", tag="bids", roles=BIDDING,
        summary="Make, change and archive many bids", body=bid_batch.BidBatch, answer=bid_batch.BidBatchResults,
        takes_idempotency_key=True, body_size_max=4096 * KIB,
    ),
    *_resource(
        "audience", "/v1/audiences", "audiences", BIDDING, audiences.AudienceDraft, audiences.AudiencePatch,
        audiences.CountedAudience, audiences.AudiencePage, PageQuery,
    ),
    Operation(
        method="POST", path="/v1/audiences/preview", name="preview_audience", tag="audiences", roles=BIDDING,
        summary="How many visitors are in an audience now", body=audiences.AudiencePreviewRequest,
        answer=audiences.AudiencePreview,
    ),
    *_resource(
        "pattern", "/v1/navigation-patterns", "navigation-patterns", BIDDING, patterns.PatternDraft,
        patterns.PatternPatch, patterns.CountedPattern, patterns.PatternPage, PageQuery,
    ),
    Operation(
        method="GET", path="/v1/navigation-patterns/{pattern_id}/explain", name="explain_navigation_pattern",
        tag="navigation-patterns", roles=MERCHANT, query=patterns.ExplainQuery, answer=patterns.ExplainedPattern,
        summary="How far a visitor is with a navigation pattern: what was done, what is missing, what is in the way",
    ),
    *_resource(
        "rule", "/v1/rules", "rules", MERCHANT, RuleDraft, rules.RulePatch, rules.CheckedRule, rules.RulePage,
        rules.RuleQuery,
    ),
    Operation(
        method="POST", path="/v1/rules/preview", name="preview_rules", tag="rules", roles=MERCHANT,
        summary="A page before and after a change of the rules, with the reason for every tile",
        body=preview.PreviewRequest, answer=preview.PreviewAnswer,
    ),
    *_resource(
        "virtual_attribute", "/v1/virtual-attributes", "virtual-attributes", MERCHANT, VirtualAttributeDraft,
        virtual_attributes.VirtualAttributePatch, VirtualAttribute, virtual_attributes.VirtualAttributePage,
        virtual_attributes.VirtualAttributeQuery,
    ),
    Operation(
        method="POST", path="/v1/virtual-attributes/preview", name="preview_virtual_attribute",
        tag="virtual-attributes", roles=MERCHANT, summary="What a virtual attribute would be of 20 products",
        body=virtual_attributes.AttributePreviewRequest, answer=virtual_attributes.AttributePreview,
    ),
    *_resource(
        "booking", "/v1/bookings", "bookings", MERCHANT, BookingDraft, bookings.BookingPatch, Booking,
        bookings.BookingPage, bookings.BookingQuery,
    ),
    Operation(
        method="PUT", path="/v1/products/{product_id}", name="put_product", summary="Set a product, whole",
        tag="products", roles=MERCHANT, body=products.ProductBody, answer=Product, also_status=201,
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
        tag="placements", roles=MERCHANT, body=placements.PlacementBody, answer=Placement, also_status=201,
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
        method="POST", path="/v1/webhooks", name="create_webhook", tag="webhooks", roles=TOLD,
        summary="Make a webhook; its secret is answered once", body=webhooks.WebhookDraft,
        answer=webhooks.SignedWebhook, status=201, takes_idempotency_key=True,
    ),
    Operation(
        method="GET", path="/v1/webhooks", name="list_webhooks", tag="webhooks", roles=TOLD, summary="List webhooks",
        answer=webhooks.WebhookPage, query=PageQuery,
    ),
    Operation(
        method="GET", path="/v1/webhooks/{webhook_id}", name="get_webhook", tag="webhooks", roles=TOLD,
        summary="Read a webhook", answer=webhooks.Webhook,
    ),
    Operation(
        method="PATCH", path="/v1/webhooks/{webhook_id}", name="update_webhook", tag="webhooks", roles=TOLD,
        summary="Change some of a webhook, or pause it", body=webhooks.WebhookPatch, answer=webhooks.Webhook,
        needs_if_match=True,
    ),
    Operation(
        method="DELETE", path="/v1/webhooks/{webhook_id}", name="delete_webhook", tag="webhooks", roles=TOLD,
        summary="Delete a webhook with its deliveries", status=204,
    ),
    Operation(
        method="POST", path="/v1/webhooks/{webhook_id}/rotate", name="rotate_webhook", tag="webhooks", roles=TOLD,
        summary="Give a webhook a new secret, answered once; the one before signs for a day more",
        answer=webhooks.SignedWebhook, takes_idempotency_key=True,
    ),
    Operation(
        method="POST", path="/v1/webhooks/{webhook_id}/test", name="test_webhook", tag="webhooks", roles=TOLD,
        summary="Let a test be delivered", answer=webhooks.Delivery, status=202, takes_idempotency_key=True,
    ),
    Operation(
        method="GET", path="/v1/webhooks/{webhook_id}/deliveries", name="list_deliveries", tag="webhooks", roles=TOLD,
        summary="List a webhook's deliveries, the newest first", answer=webhooks.DeliveryPage,
        query=webhooks.DeliveryQuery,
    ),
    Operation(
        method="POST", path="/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", name="redeliver",
        tag="webhooks", roles=TOLD, summary="Deliver a notice once more, under its id", answer=webhooks.Delivery,
        status=202, takes_idempotency_key=True,
    ),
    Operation(
        method="PUT", path="/v1/ledger/low-funds/{advertiser_id}", name="put_low_funds", tag="ledger",
        roles=BIDDING | FINANCE, summary="Set below what an advertiser's funds are low", body=webhooks.LowFundsDraft,
        answer=webhooks.LowFunds,
    ),
    Operation(
        method="GET", path="/v1/ledger/low-funds/{advertiser_id}", name="get_low_funds", tag="ledger",
        roles=BIDDING | FINANCE_READS, summary="Read below what an advertiser's funds are low",
        answer=webhooks.LowFunds,
    ),
    Operation(
        method="GET", path="/v1/changes", name="list_changes", summary="Who changed what, before and after",
        tag="changes", roles=AUDIT, answer=history.ChangePage, query=PageQuery,
    ),
    Operation(
        method="GET", path="/v1/disclosure", name="get_disclosure", summary="How auctions here are decided",
        tag="auctions", roles=RECEIPTS | {Role.AGENCY}, answer=disclosure.AuctionDisclosure,
    ),
]  # fmt: skip

OPERATIONS: list[Operation] = [*SERVING_OPERATIONS, *MANAGEMENT, *LEDGER_OPERATIONS]

"""Why a candidate did not win: OpenRTB's numbers where it has one, ours from 500.

The gate and the kernel write only the number; words are looked up when somebody asks.

Source: OpenRTB 3.0, list "Loss Reason Codes".
"""

from enum import IntEnum


class LossReason(IntEnum):
    """Number of a reason. `WORDS` has the sentence."""

    WON = 0
    BELOW_FLOOR = 100
    OUTBID = 102
    BOUNDED_OUT = 500
    BID_PAUSED = 501
    CAMPAIGN_PAUSED = 502
    OUT_OF_FLIGHT = 503
    NO_FUNDS = 504
    DAILY_BUDGET_SPENT = 505
    TOTAL_BUDGET_SPENT = 506
    OUT_OF_STOCK = 507
    NOT_IN_CONTEXT = 508
    PAGE_NOT_TARGETED = 509
    CONTEXT_MISSED = 510
    NEGATIVE_KEYWORD = 511
    EXCLUDED_BY_REQUEST = 512
    EXCLUDED_BY_RULE = 513
    FILTERED_OUT = 514
    DISMISSED = 515
    BELOW_RELEVANCE = 516
    NO_CONSENT = 517
    AUDIENCE_MISSED = 518
    PATTERN_MISSED = 519
    FREQUENCY_CAPPED = 520
    NOT_ENTITLED = 521
    BELOW_SCORE_FLOOR = 522
    BRAND_CAP = 523
    SPONSORED_CAP = 524
    PRODUCT_PLACED = 525
    HOLDOUT = 526
    MULTIPLIER_ZERO = 527
    RULE_CAP = 528
    PACED_OUT = 529
    VISITOR_LIMIT = 530
    OUT_OF_TIME = 531


WORDS: dict[LossReason, str] = {
    LossReason.WON: "won a slot",
    LossReason.BELOW_FLOOR: "the bid is under the floor",
    LossReason.OUTBID: "others were worth more",
    LossReason.BOUNDED_OUT: "its highest possible value could no longer win",
    LossReason.BID_PAUSED: "the bid is paused",
    LossReason.CAMPAIGN_PAUSED: "the campaign is paused",
    LossReason.OUT_OF_FLIGHT: "outside the campaign's dates",
    LossReason.NO_FUNDS: "the advertiser has no funds left",
    LossReason.DAILY_BUDGET_SPENT: "the campaign's daily budget is used, or promised to fills already shown",
    LossReason.TOTAL_BUDGET_SPENT: "the campaign's total budget is used, or promised to fills already shown",
    LossReason.OUT_OF_STOCK: "the product is out of stock",
    LossReason.NOT_IN_CONTEXT: "the bid's categories or keywords do not include this page",
    LossReason.PAGE_NOT_TARGETED: "the bid is not for this type of page",
    LossReason.CONTEXT_MISSED: "the bid's device, region, store, weather or hours do not hold here",
    LossReason.NEGATIVE_KEYWORD: "a negative keyword matches the search",
    LossReason.EXCLUDED_BY_REQUEST: "the page asked to leave the product out",
    LossReason.EXCLUDED_BY_RULE: "a retailer rule excludes the product here",
    LossReason.FILTERED_OUT: "the visitor's own filters leave the product out",
    LossReason.DISMISSED: "the visitor asked not to see the product",
    LossReason.BELOW_RELEVANCE: "the product is under the placement's relevance floor",
    LossReason.NO_CONSENT: "the bid needs a visitor's consent",
    LossReason.AUDIENCE_MISSED: "the visitor is not in the bid's audience, or too few are",
    LossReason.PATTERN_MISSED: "the visitor has not made the bid's navigation pattern",
    LossReason.FREQUENCY_CAPPED: "the visitor was shown the bid as often as it allows",
    LossReason.NOT_ENTITLED: "the advertiser is not entitled to bid on the product",
    LossReason.BELOW_SCORE_FLOOR: "bid and quality together are under the placement's score floor",
    LossReason.BRAND_CAP: "the brand had as many slots as it may",
    LossReason.SPONSORED_CAP: "as many slots were paid for as may be",
    LossReason.PRODUCT_PLACED: "the product already stands on the page",
    LossReason.HOLDOUT: "the visitor is in the experiment's ad-free part",
    LossReason.RULE_CAP: "a retailer rule leaves no more slots to products like it",
    LossReason.MULTIPLIER_ZERO: "the bid's own multiplier for this placement is zero",
    LossReason.OUT_OF_TIME: "time ran out before it was looked at",
    LossReason.VISITOR_LIMIT: "the visitor was shown as much that is sponsored as the placement allows",
    LossReason.PACED_OUT: "the campaign's pacing left it out of this auction: lowered, its bid is under the floor",
}

"""What an impression of each product is worth to the merchant under a value rule, in whole micros."""

import numpy as np
from numpy.typing import NDArray

from affinity.product_target import CatalogueColumns, Mask
from auction.kernel import VALUE_MICROS_MAX
from auction.retailer_rule import Value

PPM = 1_000_000


def value_column(value: Value, mask: Mask, columns: CatalogueColumns) -> NDArray[np.int32]:
    """Return (P,) what the rule gives each product, 0 outside the target; every part rounded down."""
    worth = np.full(columns.product_count, value.amount_micros, np.int64)
    if value.margin_share:
        worth += _margin_micros(columns) * round(value.margin_share * PPM) // PPM
    if value.novelty is not None:
        days_left = np.clip(value.novelty.within_days - columns.numbers("age_days"), 0, value.novelty.within_days)
        worth += value.novelty.amount_micros * np.nan_to_num(days_left).astype(np.int64) // value.novelty.within_days
    if value.promotion_micros:
        worth += value.promotion_micros * columns.flags("on_promotion")
    if value.own_brand_micros:
        worth += value.own_brand_micros * columns.flags("is_own_brand")
    if value.stock is not None:
        worth += value.stock.amount_micros * (columns.numbers("stock") >= value.stock.at_least)
    return np.where(mask, np.minimum(worth, VALUE_MICROS_MAX), 0).astype(np.int32)


def _margin_micros(columns: CatalogueColumns) -> NDArray[np.int64]:
    """Return what the retailer keeps of each product's price; 0 where the catalogue does not say."""
    price_micros = columns.numbers("price_micros").astype(np.int64)  # at most 10^12, so that the product fits
    rate_ppm = np.rint(np.nan_to_num(columns.numbers("margin_rate")) * PPM).astype(np.int64)
    margin: NDArray[np.int64] = price_micros * rate_ppm // PPM
    return margin

"""What the ledger must be told of the catalogue and of visitors to say which sales ads brought."""

from collections.abc import Collection

from sqlalchemy.engine import Connection

from affinity.store import get_products, read_links
from ledger.attribution import Shelf
from ledger.sales import FactsOf, SalesFacts


def sales_facts_of(retailer_id: str) -> FactsOf:
    """Return the way to a retailer's facts."""

    def facts_of(connection: Connection, product_ids: Collection[str]) -> SalesFacts:
        products = get_products(connection, retailer_id, product_ids)
        shelf = Shelf(
            {product_id: frozenset(product.advertiser_ids) for product_id, product in products.items()},
            {product_id: product.brand for product_id, product in products.items() if product.brand},
        )
        return SalesFacts(shelf, read_links(connection, retailer_id))

    return facts_of

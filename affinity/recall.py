"""What a visitor viewed last and has in the cart now, read from the events that are kept of them.

Neither looks further back than those events: the last `visitor_event_count_max` of all actions together.
"""

from collections.abc import Mapping, Sequence

from affinity.matching import Happening
from affinity.navigation import Action


def viewed_products(events: Sequence[Happening], bought_at_ms: Mapping[str, int]) -> list[str]:
    """Return the products that were viewed and not bought since, each once, the last viewed first.

    Args:
        events: oldest first.
        bought_at_ms: product id to when it was bought last.
    """
    viewed: dict[str, None] = {}
    view_item = Action.VIEW_ITEM  # to look a member of an enumeration up takes as long as all the rest
    for event in reversed(events):
        product_id = event.product_id
        if event.action is view_item and product_id is not None and product_id not in viewed:
            bought_ms = bought_at_ms.get(product_id)
            if bought_ms is None or bought_ms < event.at_ms:
                viewed[product_id] = None
    return list(viewed)


def cart_products(events: Sequence[Happening]) -> list[str]:
    """Return the products in the cart, each once, the last added first.

    What was put in less what was taken out again, and never less than none; a purchase, of whatever, empties the cart.

    Args:
        events: oldest first.
    """
    units: dict[str, int] = {}
    purchase, add_to_cart, remove_from_cart = Action.PURCHASE, Action.ADD_TO_CART, Action.REMOVE_FROM_CART
    for event in events:
        product_id = event.product_id
        if event.action is purchase:
            units.clear()
        elif event.action is add_to_cart and product_id is not None:
            added = units.pop(product_id, 0) + event.quantity  # it moves to the end
            if added > 0:
                units[product_id] = added
        elif event.action is remove_from_cart and product_id in units:
            units[product_id] -= event.quantity
            if units[product_id] <= 0:
                del units[product_id]
    return list(reversed(units))

"""Products and visitors without history in an auction: category, brand and segments decide."""

from datetime import UTC, datetime

from affinity.catalog import Product
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.navigation_log import LogLine
from affinity.profile import ProfileDraft
from affinity.sessions import read_sessions
from affinity.train import START, train_model
from auction.request import Page
from tests.affinity import test_back_off as learnt
from tests.auction.servers import Served
from tests.auction.worlds import NOW_MS, bid, placement, product, request, source

CONSENT = Consent(personalised=True)


def served_with(products: list[Product], lines: list[LogLine]) -> Served:
    """Serve three new products, one bid each, all alike but for category and brand; and what the model knows."""
    served = Served(
        source(
            products=products,
            bids=[bid(f"bid_{letter}", [f"new-{letter}"], 1_000_000, f"cmp_{letter}") for letter in "abc"],
            placements=[placement("top", 3, page_types=["home"])],
        )
    )
    taste = learnt.taste_of(dict(learnt.members()))
    model = train_model(read_sessions(lines, 10_000), NOW_MS, tuned=START, products=products, taste=taste)
    served.server.swap_model(model.bind)
    return served


def first_of(served: Served, visitor_id: str) -> list[str]:
    asked = request(Page(type="home"), visitor_id=visitor_id, consent=CONSENT)
    return [fill.product_id for fill in served.fill(asked).placements[0].fills]


def test_new_products_are_ranked_by_category_and_brand_and_new_visitors_by_their_segments() -> None:
    new = [
        product("new-a", "toys", brand="b9", advertiser_ids=["adv_a"]),
        product("new-b", "C > c3", brand="b9", advertiser_ids=["adv_b"]),
        product("new-c", "C > c3", brand="b1", advertiser_ids=["adv_c"]),
    ]
    known = [one for one in learnt.catalogue() if not one.product_id.startswith("new")]
    served = served_with([*known, *new], learnt.sessions_of(known))
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    look = NavigationEvent(visitor_id="looker", action=Action.VIEW_ITEM, product_id="p393", occurred_at=at)
    served.visitors.post(NavigationBatch(events=[look], consent=CONSENT), NOW_MS)
    assert first_of(served, "looker") == ["new-c", "new-b", "new-a"]
    served.visitors.put_profiles([(served.visitors.pseudonym("parent"), ProfileDraft(segments=["parent"]))])
    assert first_of(served, "parent")[0] == "new-a"

"""Visits are as long as the scenario says and go where the visitor likes to go."""

from collections import Counter

from sim.chance import key_of
from sim.visit import PageView, Visit
from sim.world import HOME, build_world
from tests.sim.test_world import SMALL, scenario

MARKET = scenario(world=SMALL, traffic={"pages_per_session": 6})
WORLD = build_world(MARKET, 5)


def pages_of(row: int) -> list[PageView]:
    visit = Visit(row, row % 50, key_of(1, row), MARKET, WORLD)
    view: PageView | None = visit.open_first()
    found = []
    while view is not None:
        found.append(view)
        view = visit.open_next(None)
    return found


def test_visits_have_the_mean_length_and_page_mix_of_the_scenario() -> None:
    visits = [pages_of(row) for row in range(2000)]
    lengths = [len(pages) for pages in visits]
    assert abs(sum(lengths) / 2000 - 6) < 4 * 5.5 / 2000**0.5
    assert max(lengths) <= 60
    kinds = Counter(view.type for pages in visits for view in pages)
    assert abs(kinds["category"] / sum(lengths) - 0.55) < 0.02
    assert all(view.category_row == HOME for pages in visits for view in pages if view.type == "home")


def test_a_visitor_mostly_opens_what_it_likes() -> None:
    liked = total = 0
    for row in range(500):
        for view in pages_of(row):
            if view.category_row != HOME:
                total += 1
                liked += view.category_row in WORLD.liked_category[row % 50]
    assert liked / total > 0.75


def test_a_clicked_product_is_opened() -> None:
    visit = Visit(0, 0, 7, MARKET, WORLD)
    visit.open_first()
    assert visit.open_next(17) == PageView("product", int(WORLD.product_category[17]), 17)

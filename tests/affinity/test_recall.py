"""What a visitor viewed last and has in the cart: the events re-read as one would on paper."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from affinity.matching import Happening
from affinity.model import neutral_model
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.pseudonym import Pseudonymizer
from affinity.recall import cart_products, viewed_products
from affinity.settings import Settings
from affinity.targets import compile_targets
from affinity.view import VisitorView
from affinity.visitors import VisitorStore

NOW_MS = 1_790_000_000_000
VIEW, ADD, REMOVE, BUY = Action.VIEW_ITEM, Action.ADD_TO_CART, Action.REMOVE_FROM_CART, Action.PURCHASE
CONSENT = Consent(personalised=True)
MODEL = neutral_model(["p1", "p2", "p3"])
TARGETS = compile_targets([], [])


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW_MS / 1000 + seconds, UTC)


def did(*done: tuple[Action, str | None] | tuple[Action, str | None, int]) -> list[Happening]:
    """Events a second apart; the third of each is a quantity."""
    return [
        Happening(1_000 * number, one[0], one[1], quantity=one[2] if len(one) > 2 else 1)
        for number, one in enumerate(done, 1)
    ]


def bought(events: Sequence[Happening]) -> dict[str, int]:
    return {event.product_id: event.at_ms for event in events if event.action is BUY and event.product_id}


def test_the_last_viewed_comes_first_and_each_once() -> None:
    events = did((VIEW, "a"), (VIEW, "b"), (VIEW, "a"), (VIEW, "c"), (Action.SELECT_ITEM, "d"), (VIEW, None))
    assert viewed_products(events, {}) == ["c", "a", "b"]


def test_what_was_bought_since_it_was_viewed_is_left_out_and_viewed_again_is_back() -> None:
    events = did((VIEW, "a"), (VIEW, "b"), (BUY, "a"), (VIEW, "c"))
    assert viewed_products(events, bought(events)) == ["c", "b"]
    again = [*events, *(one._replace(at_ms=9_000) for one in did((VIEW, "a")))]
    assert viewed_products(again, bought(events)) == ["a", "c", "b"]
    assert viewed_products(did((VIEW, "a")), {"a": 1_000}) == [], "at the same moment it was bought"
    assert viewed_products(did((VIEW, "a")), {"a": 999}) == ["a"], "an old purchase does not count"


def test_the_cart_holds_what_was_put_in_less_what_was_taken_out() -> None:
    assert cart_products(did((ADD, "a"), (ADD, "b"))) == ["b", "a"]
    assert cart_products(did((ADD, "a", 3), (REMOVE, "a", 2))) == ["a"]
    assert cart_products(did((ADD, "a", 3), (REMOVE, "a", 2), (REMOVE, "a"))) == []
    assert cart_products(did((REMOVE, "a", 5), (ADD, "a"))) == ["a"], "never less than none"
    assert cart_products(did((ADD, "a", 2), (REMOVE, "a", 9), (ADD, "a"))) == ["a"]
    assert cart_products(did((ADD, "a"), (ADD, "b"), (ADD, "a"))) == ["a", "b"], "added again, it is the last"
    assert cart_products(did((ADD, "a", 0), (ADD, None), (REMOVE, None))) == []


def test_a_purchase_empties_the_cart_whatever_it_names() -> None:
    assert cart_products(did((ADD, "a"), (ADD, "b"), (BUY, "a"))) == []
    assert cart_products(did((ADD, "a"), (BUY, None), (ADD, "b"))) == ["b"]


steps = st.lists(
    st.tuples(st.sampled_from([VIEW, ADD, REMOVE, BUY]), st.sampled_from("abc"), st.integers(0, 3)), max_size=25
)


@given(steps)
def test_both_are_what_one_finds_by_asking_of_each_product_alone(done: list[tuple[Action, str, int]]) -> None:
    events = did(*done)
    last_purchase = max((event.at_ms for event in events if event.action is BUY), default=0)
    in_cart, viewed = {}, {}
    for name in "abc":
        units = touched_ms = 0
        for event in events:
            if event.product_id == name and event.at_ms > last_purchase:
                if event.action is ADD:
                    units, touched_ms = units + event.quantity, event.at_ms
                elif event.action is REMOVE:
                    units = max(0, units - event.quantity)
        if units:
            in_cart[name] = touched_ms
        views = [event.at_ms for event in events if event.product_id == name and event.action is VIEW]
        if views and views[-1] > bought(events).get(name, 0):
            viewed[name] = views[-1]
    assert cart_products(events) == sorted(in_cart, key=lambda name: -in_cart[name])
    assert viewed_products(events, bought(events)) == sorted(viewed, key=lambda name: -viewed[name])


# --- in a visitor's view -------------------------------------------------------------------------------------------


def post(visitors: VisitorStore, *done: tuple[Action, str], begin_s: int = 0) -> None:
    events = [
        NavigationEvent(visitor_id="v", action=action, product_id=name, occurred_at=moment(begin_s + second))
        for second, (action, name) in enumerate(done)
    ]
    visitors.post(NavigationBatch(events), NOW_MS + 60_000)


def look(visitors: VisitorStore, *, recalls: bool = True, consent: Consent = CONSENT) -> VisitorView:
    return visitors.view("v", consent, TARGETS, MODEL, NOW_MS + 60_000, recalls=recalls)


def rows(view: VisitorView) -> tuple[list[int], list[int]]:
    assert view.recalled is not None
    return view.recalled.viewed_row.tolist(), view.recalled.cart_row.tolist()


def test_a_view_has_rows_in_their_order_of_products_that_are_there_and_only_where_asked() -> None:
    visitors = VisitorStore(Settings(), Pseudonymizer(bytes(32)))
    post(visitors, (VIEW, "p1"), (VIEW, "p3"), (VIEW, "gone"), (VIEW, "p2"), (ADD, "p1"), (ADD, "gone"), (ADD, "p3"))
    plain = look(visitors, recalls=False)
    assert plain.recalled is None
    asked = look(visitors)
    assert rows(asked) == ([1, 2, 0], [2, 0]), "though a view without them was kept"
    assert look(visitors, recalls=False) is asked, "one with them serves both"
    post(visitors, (BUY, "p2"), begin_s=20)
    assert rows(look(visitors)) == ([2, 0], []), "an event is in the next view"
    assert not asked.recalled.viewed_row.flags.writeable if asked.recalled else False


def test_without_consent_or_an_id_nothing_is_recalled() -> None:
    visitors = VisitorStore(Settings(), Pseudonymizer(bytes(32)))
    post(visitors, (VIEW, "p1"), (ADD, "p1"))
    assert look(visitors, consent=Consent()).recalled is None
    assert visitors.view(None, CONSENT, TARGETS, MODEL, NOW_MS, recalls=True).recalled is None


def test_nothing_is_recalled_from_beyond_the_events_that_are_kept() -> None:
    visitors = VisitorStore(Settings(visitor_event_count_max=4), Pseudonymizer(bytes(32)))
    post(visitors, (ADD, "p1"), (VIEW, "p2"), *[(Action.SEARCH, "p3")] * 3)
    assert rows(look(visitors)) == ([1], [])
    sent = [NavigationEvent(visitor_id="v", action=ADD, product_id="p1", occurred_at=moment(30))]
    view = visitors.view("v", CONSENT, TARGETS, MODEL, NOW_MS + 60_000, sent, recalls=True)
    assert rows(view) == ([], [0]), "events sent along count, in the place of the oldest"
    assert view.recalled is not None
    assert view.recalled.cart_row.dtype == np.int32

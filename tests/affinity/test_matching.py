"""Navigation patterns: the compiled matcher says what re-reading the whole history says."""

import os
import random

import pytest

from affinity.matching import Happening, PatternIndex
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.record import VisitorRecord
from affinity.settings import Settings
from affinity.targets import Targets, compile_targets, has_bit
from tests.affinity.naive import SESSION_GAP_MS, pattern_holds

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
SETTINGS = Settings()
CASE_COUNT = 12_000 if os.environ.get("ENDCAP_FAULTS") == "full" else 2_400

VIEW, CART, SEARCH, BUY = Action.VIEW_ITEM, Action.ADD_TO_CART, Action.SEARCH, Action.PURCHASE


def view(at_min: float, category_id: str = "Shoes", **more: object) -> Happening:
    return Happening(START_MS + int(at_min * MINUTE_MS), VIEW, category_id=category_id, **more)  # type: ignore[arg-type]


def did(action: Action, at_min: float, category_id: str | None = "Shoes", **more: object) -> Happening:
    return Happening(START_MS + int(at_min * MINUTE_MS), action, category_id=category_id, **more)  # type: ignore[arg-type]


def holds(pattern: NavigationPattern, events: list[Happening], at_min: float, settings: Settings = SETTINGS) -> bool:
    """Say whether the pattern holds, when events arrive in the order given and it was live all along."""
    targets = compile_targets([], [pattern])
    record = VisitorRecord(b"v")
    record.advance(targets)
    for event in events:
        record.note(event, None, settings)
        record.advance(targets)
    return bit(record, targets, START_MS + int(at_min * MINUTE_MS), settings)


def bit(record: VisitorRecord, targets: Targets, now_ms: int, settings: Settings = SETTINGS) -> bool:
    bits, until_ms = targets.pattern_bits(record, record.session_ends_ms(settings), now_ms)
    value = has_bit(bits, 0)
    if value:
        assert until_ms >= now_ms
    return value


def two_views(**more: object) -> NavigationPattern:
    return NavigationPattern(
        within="session",
        steps=[PatternStep(action=VIEW, category_id="Shoes", at_least=2)],
        without=[PatternStep(action=BUY, category_id="Shoes")],
        **more,  # type: ignore[arg-type]
    )


def test_a_step_is_done_once_it_happened_often_enough() -> None:
    assert not holds(two_views(), [view(0)], 1)
    assert holds(two_views(), [view(0), view(1)], 1)
    assert holds(two_views(), [view(0, "Shoes > Running"), view(1, "Shoes")], 1)
    assert not holds(two_views(), [view(0, "Shoestrings"), view(1)], 1)


def test_buying_ends_it_and_two_more_views_begin_it_again() -> None:
    bought = [view(0), view(1), did(BUY, 2)]
    assert not holds(two_views(), bought, 2)
    assert not holds(two_views(), [*bought, view(3)], 3)
    assert holds(two_views(), [*bought, view(3), view(4)], 4)


def test_what_was_bought_before_the_first_step_does_not_count() -> None:
    assert holds(two_views(), [did(BUY, 0), view(1), view(2)], 2)


def test_a_session_lasts_until_thirty_minutes_without_an_event() -> None:
    assert holds(two_views(), [view(0), view(30)], 60)
    assert not holds(two_views(), [view(0), view(30)], 60.001)
    assert not holds(two_views(), [view(0), view(30.001)], 31)
    assert holds(two_views(), [view(0), did(SEARCH, 29, None), view(58)], 58)


def test_an_event_that_comes_late_can_join_two_sessions() -> None:
    assert holds(two_views(), [view(0), view(50), did(SEARCH, 25, None)], 50)


def test_an_event_that_comes_late_goes_before_what_it_happened_before() -> None:
    steps = [PatternStep(action=VIEW), PatternStep(action=CART)]
    pattern = NavigationPattern(within=3600, steps=steps)
    assert not holds(pattern, [did(CART, 5)], 6)
    assert holds(pattern, [did(CART, 5), view(4)], 6)
    assert not holds(pattern, [did(CART, 5), view(5)], 6)


def test_events_of_one_moment_count_in_the_order_they_arrive() -> None:
    pattern = NavigationPattern(within=60, steps=[PatternStep(action=SEARCH), PatternStep(action=VIEW)])
    assert holds(pattern, [did(SEARCH, 1), view(1)], 1)
    assert not holds(pattern, [view(1), did(SEARCH, 1)], 1)


def test_one_event_is_not_two_steps() -> None:
    twice = [PatternStep(action=VIEW), PatternStep(action=VIEW, category_id="Shoes")]
    pattern = NavigationPattern(within="session", steps=twice)
    assert not holds(pattern, [view(0)], 0)
    assert holds(pattern, [view(0), view(1)], 1)


def test_a_window_slides_to_the_latest_beginning() -> None:
    steps = [PatternStep(action=VIEW), PatternStep(action=CART)]
    pattern = NavigationPattern(within=600, steps=steps)
    events = [view(0), view(5), did(CART, 6)]
    assert holds(pattern, events, 15)
    assert not holds(pattern, events, 15.001)


def test_an_old_without_has_no_say_over_a_new_beginning() -> None:
    pattern = NavigationPattern(
        within=600,
        steps=[PatternStep(action=VIEW), PatternStep(action=CART)],
        without=[PatternStep(action=Action.REMOVE_FROM_CART)],
    )
    removed = did(Action.REMOVE_FROM_CART, 1)
    assert not holds(pattern, [view(0), removed, did(CART, 2)], 2)
    assert holds(pattern, [view(0), removed, view(1.5), did(CART, 2)], 2)


def test_an_event_that_is_forbidden_may_be_the_first_step() -> None:
    pattern = NavigationPattern(
        within="session", steps=[PatternStep(action=VIEW)], without=[PatternStep(action=VIEW, category_id="Shoes")]
    )
    assert holds(pattern, [view(0)], 0)
    assert holds(pattern, [view(0), view(1)], 1)


@pytest.mark.parametrize(
    ("step", "event", "expected"),
    [
        (PatternStep(action=SEARCH, query_contains="trail shoes"), did(SEARCH, 0, query="shoes for trail"), True),
        (PatternStep(action=SEARCH, query_contains="trail"), did(SEARCH, 0, query="trailing"), False),
        (PatternStep(action=SEARCH, query_contains="Trail"), did(SEARCH, 0, query="trail"), True),
        (PatternStep(action=VIEW, price_at_least_micros=5), view(0, price_micros=5), True),
        (PatternStep(action=VIEW, price_at_most_micros=4), view(0, price_micros=5), False),
        (PatternStep(action=VIEW, price_at_most_micros=4), view(0), False),
        (PatternStep(action=VIEW, brand="B", product_id="p"), view(0, brand="C", product_id="p"), False),
        (PatternStep(action=VIEW, brand="B", product_id="p"), view(0, brand="B", product_id="p"), True),
    ],
)
def test_every_condition_of_a_step_must_hold_of_the_event(step: PatternStep, event: Happening, expected: bool) -> None:
    assert holds(NavigationPattern(within="session", steps=[step]), [event], 0) is expected


def test_a_pattern_made_live_later_is_read_from_the_events_that_are_kept() -> None:
    record = VisitorRecord(b"v")
    for event in (view(0), view(1)):
        record.note(event, None, SETTINGS)
    assert bit(record, compile_targets([], [two_views()]), START_MS + MINUTE_MS)


def test_an_event_looks_at_no_pattern_that_does_not_mention_it() -> None:
    patterns = [
        NavigationPattern(within="session", steps=[PatternStep(action=VIEW, product_id=f"p{row}")])
        for row in range(500)
    ]
    index = PatternIndex(patterns)
    assert [entry.pattern_row for entry in index.find(view(0, product_id="p7"))] == [7]
    assert index.find(view(0, product_id="other")) == []


CATEGORIES = ["A", "A > B", "A > B > C", "A > D", "E", None]
QUERIES = ["red shoe", "blue shoe", "shoe", "", None]


def random_event(rng: random.Random) -> Happening:
    return Happening(
        at_ms=START_MS + rng.choice((rng.randrange(8) * 15 * MINUTE_MS, rng.randrange(120 * MINUTE_MS))),
        action=rng.choice([VIEW, VIEW, CART, SEARCH, BUY]),
        product_id=rng.choice(["p", "q", "r", None]),
        category_id=rng.choice(CATEGORIES),
        brand=rng.choice(["X", "Y", None]),
        price_micros=rng.choice([None, 1, 5, 9]),
        query=rng.choice(QUERIES),
    )


def random_step(rng: random.Random, can_repeat: bool) -> PatternStep:
    def maybe(choices: list[object]) -> object:
        return rng.choice(choices) if rng.random() < 0.25 else None

    return PatternStep(
        action=rng.choice([VIEW, VIEW, CART, SEARCH, BUY]),
        at_least=rng.choice([1, 1, 2, 3]) if can_repeat else 1,
        category_id=maybe(["A", "A > B", "E"]),
        brand=maybe(["X", "Y"]),
        product_id=maybe(["p", "q"]),
        price_at_least_micros=maybe([1, 5]),
        price_at_most_micros=maybe([5, 9]),
        query_contains=maybe(["shoe", "red shoe"]),
    )  # type: ignore[arg-type]


def random_pattern(rng: random.Random) -> NavigationPattern:
    return NavigationPattern(
        within=rng.choice(["session", 900, 1800, 3600, 6000]),
        steps=[random_step(rng, can_repeat=True) for _ in range(rng.choice([1, 1, 2, 2, 3]))],
        without=[random_step(rng, can_repeat=False) for _ in range(rng.choice([0, 0, 1, 2]))],
    )


def test_the_compiled_matcher_agrees_with_re_reading_the_history() -> None:
    """Histories arrive out of order, patterns become live at any time and are asked about at any time."""
    rng = random.Random(20_26)
    case_count = matched_count = 0
    while case_count < CASE_COUNT:
        patterns = [random_pattern(rng) for _ in range(12)]
        old, live = compile_targets([], patterns[:6]), compile_targets([], patterns)
        history = [random_event(rng) for _ in range(rng.randrange(1, 25))]
        if rng.random() < 0.6:
            history.sort(key=lambda event: event.at_ms)
        record = VisitorRecord(b"v")
        live_from = rng.randrange(len(history))
        for place, event in enumerate(history):
            record.note(event, None, SETTINGS)
            if rng.random() < 0.5:
                record.advance(live if place >= live_from else old)
        now_ms = max(event.at_ms for event in history) + rng.choice(
            [0, MINUTE_MS, SESSION_GAP_MS, SESSION_GAP_MS + 1, rng.randrange(100 * MINUTE_MS)]
        )
        bits, until_ms = live.pattern_bits(record, record.session_ends_ms(SETTINGS), now_ms)
        arrived = list(enumerate(history))
        for row, pattern in enumerate(patterns):
            expected = pattern_holds(pattern, arrived, now_ms)
            assert has_bit(bits, row) is expected, (pattern, history, now_ms)
            if expected:
                matched_count += 1
                assert pattern_holds(pattern, arrived, until_ms)  # no bit outlives what it stands for
            case_count += 1
    assert matched_count > case_count // 20

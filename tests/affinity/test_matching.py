"""Navigation patterns: the compiled matcher says what re-reading the whole history says."""

import inspect
import os
import random
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Literal, NamedTuple

import pytest
from msgspec.structs import replace

from affinity import matching
from affinity.audience import Audience
from affinity.matching import Happening, PatternIndex, PatternProgress, holding_rows
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_sets import ProductSets
from affinity.product_target import Target
from affinity.record import VisitorRecord
from affinity.settings import Settings
from affinity.targets import Targets, compile_targets, has_bit
from tests.affinity.histories import (
    BUY,
    CART,
    MINUTE_MS,
    SEARCH,
    START_MS,
    VIEW,
    Catalogue,
    random_catalogue,
    random_history,
    random_moment,
    random_pattern,
    sets_of,
)
from tests.affinity.naive import pattern_holds, patterns_holding

SETTINGS = Settings()
SIZE_MAX = SETTINGS.visitor_pattern_size_max
CASE_COUNT = 100_000 if os.environ.get("ENDCAP_FAULTS") == "full" else 20_000


def view(at_min: float, category_id: str = "Shoes", **more: object) -> Happening:
    return Happening(START_MS + int(at_min * MINUTE_MS), VIEW, category_id=category_id, **more)  # type: ignore[arg-type]


def did(action: Action, at_min: float, category_id: str | None = "Shoes", **more: object) -> Happening:
    return Happening(START_MS + int(at_min * MINUTE_MS), action, category_id=category_id, **more)  # type: ignore[arg-type]


def holds(pattern: NavigationPattern, events: list[Happening], at_min: float, settings: Settings = SETTINGS) -> bool:
    """Say whether the pattern holds, when events arrive in the order given and it was live all along."""
    targets = compile_targets([], [pattern])
    record = VisitorRecord(b"v")
    record.advance(targets, settings)
    for event in events:
        record.note(event, None, settings)
        record.advance(targets, settings)
    return bit(record, targets, START_MS + int(at_min * MINUTE_MS), settings)


def bit(record: VisitorRecord, targets: Targets, now_ms: int, settings: Settings = SETTINGS) -> bool:
    bits, until_ms = targets.pattern_bits(record, settings, now_ms)
    value = has_bit(bits, 0)
    if value:
        assert until_ms >= now_ms
    return value


def looked_at(index: PatternIndex, happening: Happening) -> int:
    """Return how many steps an event of a visitor who has begun nothing looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_agreeing", lambda entries, *_: entries)
        return len(index.find(happening, [], SIZE_MAX))


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


def test_audiences_change_without_patterns_being_read_again() -> None:
    targets, record = compile_targets([], [two_views()]), VisitorRecord(b"v")
    record.note(view(0), None, SETTINGS)
    progress = record.advance(targets, SETTINGS)
    others = compile_targets([Audience(segment="vip")], [two_views()], targets)
    assert others is not targets
    assert compile_targets(others.audiences, others.patterns, others) is others
    record.note(view(1), None, SETTINGS)
    assert record.advance(others, SETTINGS) is progress
    assert bit(record, others, START_MS + MINUTE_MS)
    fewer = compile_targets([], [], others)
    assert record.advance(fewer, SETTINGS) is not progress
    assert bit(record, compile_targets([], [two_views()], fewer), START_MS + MINUTE_MS)


def test_an_event_looks_at_no_pattern_that_does_not_mention_it() -> None:
    patterns = [
        NavigationPattern(within="session", steps=[PatternStep(action=VIEW, product_id=f"p{row}")])
        for row in range(500)
    ]
    index = PatternIndex(patterns)
    assert [entry.pattern_row for entry in index.find(view(0, product_id="p7"), [], SIZE_MAX)] == [7]
    assert index.find(view(0, product_id="other"), [1, 7], SIZE_MAX) == []


def test_a_step_is_filed_under_what_fewest_ask_for() -> None:
    patterns = [
        NavigationPattern(within="session", steps=[step])
        for row in range(300)
        for step in (
            PatternStep(action=VIEW, brand="everybody's", category_id=f"C{row}"),
            PatternStep(action=VIEW, brand=f"b{row % 30}", category_id=f"C{row // 30}"),
            PatternStep(action=SEARCH, query_contains=f"everybody's w{row}"),
        )
    ]
    index = PatternIndex(patterns)
    assert looked_at(index, view(0, "C7", brand="everybody's")) == 1
    assert looked_at(index, view(0, "C70", brand="everybody's")) == 1
    assert looked_at(index, view(0, "C7", brand="b3")) == 1
    assert looked_at(index, view(0, "D", brand="everybody's")) == 0
    assert looked_at(index, did(SEARCH, 0, query="everybody's w7")) == 1
    assert looked_at(index, did(SEARCH, 0, query="everybody's")) == 0


def test_an_event_every_pattern_forbids_looks_only_at_those_the_visitor_has_begun() -> None:
    patterns = [
        NavigationPattern(
            within="session",
            steps=[PatternStep(action=VIEW, product_id=f"p{row}"), PatternStep(action=CART)],
            without=[PatternStep(action=BUY)],
        )
        for row in range(500)
    ]
    index = PatternIndex(patterns)
    for action in (CART, BUY):
        assert index.find(did(action, 0), [], SIZE_MAX) == []
        assert [entry.pattern_row for entry in index.find(did(action, 0), [7, 11], SIZE_MAX)] == [7, 11]


def test_wide_targets_of_later_steps_are_not_gone_through_for_who_has_begun_little() -> None:
    count = 300
    patterns = [
        NavigationPattern(
            within="session",
            steps=[PatternStep(action=VIEW, product_id=f"p{row}"), PatternStep(action=CART)],
            without=[PatternStep(action=BUY, product_target=Target(field="weight", at_least=row))],
        )
        for row in range(count)
    ]
    index = PatternIndex(patterns, sets_of(patterns, {"p": {"weight": count}, "q": {"weight": 8}}))
    numbers, yielded = ProductSets.numbers, []

    def counting(sets: ProductSets, row: int, among: int) -> Iterator[int]:
        for number in numbers(sets, row, among):
            yielded.append(number)
            yield number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProductSets, "numbers", counting)
        for product_id, found in (("p", [7, 11]), ("q", [7]), ("gone", [])):
            hits = index.find(did(BUY, 0, product_id=product_id), [7, 11], SIZE_MAX)
            assert [entry.pattern_row for entry in hits] == found
    assert len(yielded) <= 6


def size_of(progress: PatternProgress) -> int:
    """Return the bytes of a visitor's progress and of all it alone holds."""
    rows = list(progress._progress.values())
    moments = {id(moment): moment for row in rows for moment in row if moment is not None}
    return sum(map(sys.getsizeof, [progress, progress._progress, progress.complete, *rows, *moments.values()]))


@pytest.mark.parametrize("step_count", [1, 2, 8])
def test_what_is_kept_of_a_visitors_patterns_is_bounded(step_count: int) -> None:
    """A visitor who begins 5,000 patterns with every event, and goes through them, is followed in the last of them."""
    patterns = [
        NavigationPattern(within=3600 + row, steps=[PatternStep(action=VIEW, at_least=2)] * step_count)
        for row in range(5_000)
    ]
    targets, record = compile_targets([], patterns), VisitorRecord(b"v")
    for minute in range(20):
        record.note(view(minute), None, SETTINGS)
        progress = record.advance(targets, SETTINGS)
        assert progress.size <= SIZE_MAX
        assert size_of(progress) < 400_000
    assert progress.size == SIZE_MAX
    assert len(progress.complete) == SIZE_MAX // (2 * step_count)


@pytest.mark.parametrize(
    ("within", "later_min", "followed"),
    [
        ("session", [30], True),
        ("session", [30.001], False),
        (3600, [61], True),
        (3600, [60, 91], True),
        (3600, [61, 91], True),
        (3600, [61, 91.001], False),
    ],
)
def test_what_can_no_longer_hold_is_forgotten_when_a_session_begins(
    within: int | Literal["session"], later_min: list[float], followed: bool
) -> None:
    pattern = NavigationPattern(within=within, steps=[PatternStep(action=VIEW), PatternStep(action=CART)])
    targets, record = compile_targets([], [pattern]), VisitorRecord(b"v")
    for event in [view(0), *[did(SEARCH, minute) for minute in later_min]]:
        record.note(event, None, SETTINGS)
    assert record.advance(targets, SETTINGS).size == (2 if followed else 0)


def test_a_window_goes_on_until_the_time_of_an_event_reported_ahead_of_it() -> None:
    pattern = NavigationPattern(within=1_860, steps=[PatternStep(action=VIEW)])
    assert holds(pattern, [view(0), did(SEARCH, 33)], 31)
    assert not holds(pattern, [view(0), did(SEARCH, 33)], 31.001)


def test_an_event_more_patterns_begin_with_than_there_is_room_for_costs_no_more_for_all_of_them() -> None:
    def seconds(count: int) -> float:
        steps = [PatternStep(action=VIEW), PatternStep(action=CART)]
        targets = compile_targets([], [NavigationPattern(within=60 + row, steps=steps) for row in range(count)])
        record, taken = VisitorRecord(b"v"), []
        for minute in range(7):
            record.note(view(minute), None, SETTINGS)
            began = time.process_time()
            record.advance(targets, SETTINGS)
            taken.append(time.process_time() - began)
        return min(taken)

    few, many = seconds(3_000), seconds(60_000)
    assert many < 6 * few


def test_what_began_with_an_event_no_longer_kept_is_forgotten() -> None:
    pattern = NavigationPattern(within="session", steps=[PatternStep(action=VIEW), PatternStep(action=CART)])
    settings = Settings(visitor_event_count_max=3)
    targets, record = compile_targets([], [pattern]), VisitorRecord(b"v")
    for minute, size in enumerate((2, 2, 2, 0)):
        record.note(did(SEARCH if minute else VIEW, minute), None, settings)
        assert record.advance(targets, settings).size == size


class Compared(NamedTuple):
    """What two matchers were compared on.

    Attributes:
        case_count: histories × patterns.
        matched_count: cases in which the pattern holds.
        shortened_count: cases in which it would also or not hold if all events were kept.
        changed_count: likewise, if the products were what they were before.
    """

    case_count: int
    matched_count: int
    shortened_count: int
    changed_count: int


def compare_with_history(case_count_wanted: int, seed: int) -> Compared:
    """Assert that the compiled matcher says what re-reading the history says.

    Histories arrive out of order and lose their oldest events; patterns become live, and are asked for, at any time;
    product targets come to be about other products.
    """
    rng = random.Random(seed)
    case_count = matched_count = shortened_count = changed_count = 0
    while case_count < case_count_wanted:
        patterns = [random_pattern(rng) for _ in range(12)]
        earlier, catalogue = random_catalogue(rng), random_catalogue(rng)
        old = compile_targets([], patterns[:6], sets=sets_of(patterns[:6], earlier))
        before = compile_targets([], patterns, old, sets_of(patterns, earlier))
        live = compile_targets([], patterns, before, sets_of(patterns, catalogue))
        history = random_history(rng)
        kept_count = rng.choice([128, 128, 128, 6, 2])
        settings = Settings(visitor_event_count_max=kept_count)
        record = VisitorRecord(b"v")
        live_from = rng.randrange(len(history))
        for place, event in enumerate(history):
            record.note(event, None, settings)
            if rng.random() < 0.5:
                record.advance(live if place >= live_from else rng.choice([old, before]), settings)
            if rng.random() < 0.02:
                record.progress = None  # it can be read again from the events that are kept
        now_ms = random_moment(rng, history)
        bits, until_ms = live.pattern_bits(record, settings, now_ms)
        read_again = holding_rows(live.pattern_index, record.events, settings, now_ms)
        arrived = list(enumerate(history))
        for row, pattern in enumerate(patterns):
            expected = pattern_holds(pattern, arrived, now_ms, kept_count, catalogue)
            assert has_bit(bits, row) is expected, (pattern, history, now_ms)
            assert (row in read_again) is expected
            if expected:
                matched_count += 1
                assert pattern_holds(
                    pattern, arrived, until_ms, kept_count, catalogue
                )  # no bit outlives what it stands for
            shortened_count += expected is not pattern_holds(pattern, arrived, now_ms, catalogue=catalogue)
            then = pattern_holds(pattern, arrived, now_ms, kept_count, earlier)
            changed_count += expected is not then
            case_count += 1
    return Compared(case_count, matched_count, shortened_count, changed_count)


def test_the_compiled_matcher_agrees_with_re_reading_the_history() -> None:
    compared = compare_with_history(CASE_COUNT, 20_26)
    assert compared.case_count >= CASE_COUNT
    assert compared.matched_count > compared.case_count // 20
    assert compared.shortened_count > compared.case_count // 400
    assert compared.changed_count > compared.case_count // 500


FAULTS = {  # one line of the matcher, and what it would be by mistake
    "a without is overlooked": ("if progress is not None:\n                    self._forget(row)", "pass"),
    "a without forgets only that the pattern was complete": (
        "                    self._forget(row)\n                continue",
        "                    self.complete.pop(row, None)\n                continue",
    ),
    "a without counts after the steps of its own event": (
        "self._file(row, 0, FORBIDDEN",
        "self._file(row, 99, FORBIDDEN",
    ),
    "one event is two steps": ("self._file(row, len(pattern.steps) - index,", "self._file(row, index + 1,"),
    "the earliest beginning is kept": ("progress[0] = moment", "progress[0] = progress[0] or moment"),
    "a step forgets how often it was done": (
        "progress[base + 1 : base + wanted + 1] = progress[base : base + wanted]",
        "progress[base + wanted] = progress[base]",
    ),
    "a later step needs no earlier one": (
        "elif progress is None:\n                continue",
        "elif progress is None:\n                progress = self._progress[row] = [moment] * index.length[row]",
    ),
    "the window is open at its end": ("if now_ms <= ends_ms:", "if now_ms < ends_ms:"),
    "the session's end is overlooked": (
        "ends_ms = session_ends_ms if within_ms is None",
        "ends_ms = 1 << 62 if within_ms is None",
    ),
    "the session's beginning is overlooked": (
        "if within_ms is None or self._begun",
        "if within_ms is not None and self._begun",
    ),
    "what is no longer kept still counts": ("if number < self._oldest:", "if False:"),
    "what is kept last no longer counts": ("if number < self._oldest:", "if number <= self._oldest:"),
    "what ends at the beginning of a session is forgotten early": (
        "if within_ms is None or self._begun_last(row).at_ms + within_ms < self._last_ms:",
        "if True:",
    ),
    "a pause as long as a session may have ends it": (
        "at_ms - self._last_ms > self._session_gap_ms",
        "at_ms - self._last_ms >= self._session_gap_ms",
    ),
    "a category has nothing below it": (
        "for category_id in ancestry(happening.category_id):",
        "for category_id in ancestry(happening.category_id)[:1]:",
    ),
    "a brand's category has nothing below it": (
        "step.category_id not in ancestry(happening.category_id)",
        "step.category_id != happening.category_id",
    ),
    "one word of a search is enough": (
        "return entry.words <= mention.words",
        "return not entry.words or bool(entry.words & mention.words)",
    ),
    "a price at the limit is out of it": ("price < step.price_at_least_micros", "price <= step.price_at_least_micros"),
    "a product without a price is cheap": (
        "(price is None or price > step.price_at_most_micros)",
        "(price is not None and price > step.price_at_most_micros)",
    ),
    "a traffic source is told by case": ("source = step.traffic_source.casefold()", "source = step.traffic_source"),
    "later steps are looked for among all patterns but one": (
        "for row in followed\n",
        "for row in list(followed)[1:]\n",
    ),
    "later steps are not told apart by their action": (
        "if entry.step.action == happening.action and _agrees",
        "if _agrees",
    ),
    "what a step is filed under is taken for all it asks": (
        "is_exact = asked.condition_count == covered",
        "is_exact = True",
    ),
    "a product target is overlooked": ("if entry.target != NO_TARGET and not", "if False and not"),
    "steps are found by the target that was filed last": (
        "self.filed_targets |= 1 << entry.target",
        "self.filed_targets = 1 << entry.target",
    ),
    "targets stay about the products they were about": (
        "object(), sets\n        return twin",
        "object(), twin.sets\n        return twin",
    ),
    "what the products were still counts": ("twin.identity, twin.sets = object(), sets", "twin.sets = sets"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees_a_fault_of_one_line(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    right, wrong = FAULTS[fault]
    source = inspect.getsource(matching)
    assert source.count(right) == 1
    faulty = ModuleType("faulty_matching")
    exec(compile(source.replace(right, wrong), "faulty_matching", "exec"), faulty.__dict__)
    monkeypatch.setattr("affinity.targets.PatternIndex", faulty.PatternIndex)
    monkeypatch.setattr("affinity.record.PatternProgress", faulty.PatternProgress)
    with pytest.raises(AssertionError):
        compare_with_history(CASE_COUNT, 20_26)


def rows_of(record: VisitorRecord, targets: Targets) -> list[int]:
    bits, _ = targets.pattern_bits(record, SETTINGS, START_MS)
    return [row for row in range(len(targets.patterns)) if has_bit(bits, row)]


def summer(catalogue: Catalogue, count: int = 1) -> tuple[list[NavigationPattern], ProductSets]:
    """Return patterns of looks at a summer product, and which products these are."""
    step = PatternStep(action=VIEW, product_target=Target(field="season", equals="summer"))
    patterns = [NavigationPattern(within=3600 + row, steps=[step]) for row in range(count)]
    return patterns, sets_of(patterns, catalogue)


def test_what_was_done_counts_by_what_its_product_is_now() -> None:
    """An attribute of a product is not kept with the event, so a change of it is a change of the past as well."""
    patterns, sets = summer({"p": {"season": "winter"}, "q": {"season": "summer"}})
    first, record = compile_targets([], patterns, sets=sets), VisitorRecord(b"v")
    record.note(view(0, product_id="p"), None, SETTINGS)
    assert not bit(record, first, START_MS)
    later = compile_targets([], patterns, first, summer({"p": {"season": "summer"}, "q": {}})[1])
    assert later is not first
    assert bit(record, later, START_MS)
    assert not bit(record, compile_targets([], patterns, later, sets), START_MS)


def test_where_targets_are_about_the_same_products_nothing_is_read_again() -> None:
    catalogue: Catalogue = {"p": {"season": "summer"}, "q": {}}
    patterns, sets = summer(catalogue)
    first, record = compile_targets([], patterns, sets=sets), VisitorRecord(b"v")
    record.note(view(0, product_id="p"), None, SETTINGS)
    assert bit(record, first, START_MS)
    progress, again = record.progress, summer(catalogue)[1]
    assert compile_targets([], patterns, first, again) is first
    assert first.pattern_index.sets is again, "the earlier ones hold on to the memory of an earlier snapshot"
    assert bit(record, first, START_MS)
    assert record.progress is progress
    renamed = summer({"p": {}, "q": {"season": "summer"}})[1]
    assert compile_targets([], patterns, first, renamed) is not first


def test_a_change_of_products_compiles_no_pattern_again() -> None:
    patterns, sets = summer({"p": {"season": "winter"}}, 1000)
    first = compile_targets([], patterns, sets=sets)
    later = compile_targets([], patterns, first, summer({"p": {"season": "summer"}}, 1000)[1])
    assert later.pattern_index is not first.pattern_index
    assert later.pattern_index.length is first.pattern_index.length


def test_patterns_that_differ_in_a_flag_and_a_number_are_two() -> None:
    """True == 1 in Python; what was compiled for one must not be taken for the other."""
    catalogue: Catalogue = {"p": {"new": 1}, "q": {"new": True}}
    steps = [PatternStep(action=VIEW, product_target=Target(field="new", equals=value)) for value in (1, True)]
    number, flag = ([NavigationPattern(within=3600, steps=[step])] for step in steps)
    assert number == flag, "or there is nothing to tell apart"
    first = compile_targets([], number, sets=sets_of(number, catalogue))
    record = VisitorRecord(b"v")
    record.note(view(0, product_id="q"), None, SETTINGS)
    assert not bit(record, first, START_MS)
    assert bit(record, compile_targets([], flag, first, sets_of(flag, catalogue)), START_MS)
    both, twice = ([number[0], replace(one[0], within=60)] for one in (flag, number))
    assert both == twice
    two = compile_targets([], both, sets=sets_of(both, catalogue))
    record.note(view(0, product_id="p"), None, SETTINGS)
    assert rows_of(record, two) == [0, 1]
    assert rows_of(record, compile_targets([], twice, two, sets_of(twice, catalogue))) == [0, 1]
    assert rows_of(record, compile_targets([], twice, two, sets_of(twice, {"p": {}, "q": {"new": True}}))) == []


@pytest.mark.parametrize("is_wide", [False, True])
def test_an_event_looks_at_few_steps_whether_targets_are_wide_or_narrow(is_wide: bool) -> None:
    """A wide target is about the product of nearly every event: what else a step asks for tells more."""
    count = 200
    products = {f"p{row}": {"weight": row} for row in range(count)}
    patterns = [
        NavigationPattern(
            within=3600,
            steps=[
                PatternStep(
                    action=VIEW,
                    category_id=f"C{row % 50}" if is_wide else "C0",
                    product_target=Target(field="weight", at_least=row / 2, at_most=count)
                    if is_wide
                    else Target(field="weight", equals=row),
                )
            ],
        )
        for row in range(count)
    ]
    index = PatternIndex(patterns, sets_of(patterns, products))
    event = Happening(START_MS, VIEW, "p199", "C0")
    assert looked_at(index, event) == (4 if is_wide else 1)
    assert len(index.find(event, (), SIZE_MAX)) == (4 if is_wide else 1)


def test_a_visitor_in_too_many_patterns_is_followed_in_those_begun_last() -> None:
    """Whatever was forgotten for want of room, one can say which, and reading the events again forgets the same."""
    rng = random.Random(7)
    size_max = 5
    matched_count = forgotten_count = 0
    for _ in range(700):
        patterns = [random_pattern(rng) for _ in range(12)]
        if rng.random() < 0.4:  # they begin with the same event
            more_count = rng.randrange(2)
            steps = [[PatternStep(action=VIEW), *pattern.steps[:more_count]] for pattern in patterns]
            patterns = [replace(pattern, steps=some) for pattern, some in zip(patterns, steps, strict=True)]
        patterns = [pattern for pattern in patterns if sum(step.at_least for step in pattern.steps) <= size_max]
        catalogue = random_catalogue(rng)
        targets = compile_targets([], patterns, sets=sets_of(patterns, catalogue))
        settings = Settings(visitor_event_count_max=rng.choice([128, 8]), visitor_pattern_size_max=size_max)
        history, record = random_history(rng), VisitorRecord(b"v")
        for event in history:
            record.note(event, None, settings)
            if rng.random() < 0.7:
                assert record.advance(targets, settings).size <= size_max
        now_ms = random_moment(rng, history)
        bits, _ = targets.pattern_bits(record, settings, now_ms)
        arrived = list(enumerate(history))
        kept_count = settings.visitor_event_count_max
        expected = patterns_holding(patterns, arrived, now_ms, kept_count, size_max, catalogue)
        assert [has_bit(bits, row) for row in range(len(patterns))] == expected, (patterns, history, now_ms)
        matched_count += sum(expected)
        forgotten_count += sum(
            pattern_holds(pattern, arrived, now_ms, kept_count, catalogue) for pattern in patterns
        ) - sum(expected)
    assert matched_count > 100
    assert forgotten_count > 100

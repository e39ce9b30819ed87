"""The drawings of affinity/README.md: each says whether a pattern holds, and every matcher must say the same."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import pytest

from affinity.matching import Happening
from affinity.model import neutral_model
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.pattern import NavigationPattern, PatternStep
from affinity.pattern_explanation import explain_pattern
from affinity.product_target import Target
from affinity.pseudonym import Pseudonymizer
from affinity.settings import Settings
from affinity.targets import compile_targets, has_bit
from affinity.visitors import VisitorStore
from tests.affinity.histories import sets_of
from tests.affinity.naive import SESSION_GAP_MS, Catalogue, pattern_holds

PAGE = Path(__file__).parents[2] / "affinity" / "README.md"
START = datetime(2026, 3, 1, tzinfo=UTC)
UNIT_S = {"s": 1, "min": 60, "h": 3600}

DEEDS = {  # letter: action, category, query, product
    "v": (Action.VIEW_ITEM, "Shoes > Running", None, None),
    "w": (Action.VIEW_ITEM, "Watches", None, None),
    "a": (Action.VIEW_ITEM, "Sandals", None, "sandal"),
    "s": (Action.SEARCH, None, "Shoes for the trail", None),
    "c": (Action.ADD_TO_CART, "Shoes > Running", None, None),
    "x": (Action.REMOVE_FROM_CART, "Shoes > Running", None, None),
    "b": (Action.PURCHASE, "Shoes > Running", None, None),
}
SEASONS: dict[str, Catalogue] = {"☂": {"sandal": {"season": "winter"}}, "☀": {"sandal": {"season": "summer"}}}
STEPS = {
    "v": PatternStep(action=Action.VIEW_ITEM, category_id="Shoes"),
    "a": PatternStep(action=Action.VIEW_ITEM, product_target=Target(field="season", equals="summer")),
    "s": PatternStep(action=Action.SEARCH, query_contains="trail shoes"),
    "c": PatternStep(action=Action.ADD_TO_CART, category_id="Shoes"),
    "x": PatternStep(action=Action.REMOVE_FROM_CART, category_id="Shoes"),
    "b": PatternStep(action=Action.PURCHASE, category_id="Shoes"),
}
HEADER = re.compile(
    r"steps (?P<steps>(?:\d+×)?\w(?:, (?:\d+×)?\w)*) · within (?P<within>session|\d+ min)"
    r"(?: · without (?P<without>\w))?(?: · keeps (?P<kept>\d+) events)?"
)
DRAWING = re.compile(r"(?P<line>.*?) +→ (?P<verdict>holds|no)(?: {2,}\S.*)?")
MARK = re.compile(
    r"(?P<pause>·)|‹(?P<span>[^›]+)›|(?P<shy>\()?(?P<deed>[vwascxb])\)?|(?P<erased>†)|(?P<season>[☀☂])|(?P<now>\?)"
)


class Mark(NamedTuple):
    """Something that happens in a drawing.

    Attributes:
        what: a letter of DEEDS, a sign of SEASONS, "†" or "?".
        arrival: its place in the order of arrival.
    """

    what: str
    occurred_at: datetime
    has_consent: bool
    arrival: int


class Drawing(NamedTuple):
    """One line of the page, read."""

    text: str
    pattern: NavigationPattern
    kept_count: int
    marks: list[Mark]
    holds: bool

    @property
    def now(self) -> datetime:
        return next(mark.occurred_at for mark in self.marks if mark.what == "?")


def read_pattern(header: re.Match[str]) -> NavigationPattern:
    """Read the first line of a block."""
    steps = []
    for word in header["steps"].split(", "):
        count, _, letter = word.rpartition("×")
        steps.append(msgspec.structs.replace(STEPS[letter], at_least=int(count or 1)))
    within: int | Literal["session"] = "session"
    if header["within"] != "session":
        within = int(header["within"].removesuffix(" min")) * 60
    return NavigationPattern(within=within, steps=steps, without=[STEPS[one] for one in header["without"] or ""])


def read_span(words: str) -> timedelta:
    """Read a time such as "30 min 1 s"."""
    numbers, units = words.split()[::2], words.split()[1::2]
    return sum((timedelta(seconds=int(n) * UNIT_S[unit]) for n, unit in zip(numbers, units, strict=True)), timedelta())


def read_marks(line: str, arrivals: str | None) -> list[Mark]:
    """Read a line, and the one below it that numbers its events as they arrive; return them as they do."""
    at, place, marks = START, 0, []
    while place < len(line):
        read = MARK.match(line, place)
        assert read is not None, f"{line!r} cannot be read from {line[place:]!r}"
        if read["pause"]:
            at += timedelta(minutes=1)
        elif read["span"]:
            at += read_span(read["span"])
        else:
            what = read["deed"] or read["erased"] or read["season"] or read["now"]
            number = arrivals[place : place + 1] if arrivals and what in DEEDS else ""
            arrival = int(number) if number.isdigit() else len(line) + len(marks)
            marks.append(Mark(what, at, read["shy"] is None, arrival))
        place = read.end()
    if arrivals is not None:
        numbers = [mark.arrival for mark in marks if mark.what in DEEDS]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"{arrivals!r} does not number {line!r}"
        assert len(arrivals.replace(" ", "")) == len(numbers), f"{arrivals!r} numbers more than {line!r}"
    return sorted(marks, key=lambda mark: mark.arrival)


def read_drawings(page: str) -> list[Drawing]:
    """Return every drawing of the page; each line of its timelines must be one, or belong to one."""
    drawings = []
    for block in re.findall(r"^```timeline\n(.*?)^```$", page, re.M | re.S):
        first, *lines = block.splitlines()
        header = HEADER.fullmatch(first)
        assert header is not None, f"{first!r} is no pattern"
        while lines:
            line = lines.pop(0)
            drawing = DRAWING.fullmatch(line)
            assert drawing is not None, f"{line!r} is no drawing"
            arrivals = lines.pop(0) if lines and re.fullmatch(r"[\d ]+", lines[0]) else None
            drawings.append(
                Drawing(
                    text=f"{first}: {drawing['line']}"
                    + (f" arriving {' '.join(arrivals.split())}" if arrivals else ""),
                    pattern=read_pattern(header),
                    kept_count=int(header["kept"] or 128),
                    marks=read_marks(drawing["line"], arrivals),
                    holds=drawing["verdict"] == "holds",
                )
            )
    return drawings


DRAWINGS = read_drawings(PAGE.read_text())


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.text)
def test_a_visitor_of_whom_this_is_reported_has_the_pattern_or_not(drawing: Drawing) -> None:
    """Events go the way they go in a shop: reported in batches, looked at by an auction after each."""
    settings = Settings(visitor_event_count_max=drawing.kept_count)
    visitors = VisitorStore(settings, Pseudonymizer(b"k" * 32))
    sets = sets_of([drawing.pattern], SEASONS["☂"])
    targets, model = compile_targets([], [drawing.pattern], sets=sets), neutral_model([])
    clock = START
    for mark in drawing.marks:
        clock = max(clock, mark.occurred_at)
        if mark.what == "†":
            visitors.forget([visitors.pseudonym("v")])
        elif mark.what in SEASONS:
            sets = sets_of([drawing.pattern], SEASONS[mark.what])
            targets = compile_targets([], [drawing.pattern], targets, sets)
        elif mark.what in DEEDS:
            action, category_id, query, product_id = DEEDS[mark.what]
            event = NavigationEvent(
                visitor_id="v",
                action=action,
                category_id=category_id,
                query=query,
                product_id=product_id,
                occurred_at=mark.occurred_at,
            )
            visitors.post(NavigationBatch([event], Consent(personalised=mark.has_consent)), to_ms(clock))
            visitors.view("v", Consent(personalised=True), targets, model, to_ms(clock))
    view = visitors.view("v", Consent(personalised=True), targets, model, to_ms(drawing.now))
    assert has_bit(view.pattern_bits, 0) is drawing.holds


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.text)
def test_re_reading_and_explaining_say_so_too(drawing: Drawing) -> None:
    kept: list[tuple[int, Happening]] = []
    catalogue = SEASONS["☂"]
    for mark in drawing.marks:
        if mark.what == "†" or not mark.has_consent:
            kept.clear()
        elif mark.what in SEASONS:
            catalogue = SEASONS[mark.what]
        elif mark.what in DEEDS:
            action, category_id, query, product_id = DEEDS[mark.what]
            event = Happening(to_ms(mark.occurred_at), action, product_id, category_id, query=query and query.lower())
            kept.append((mark.arrival, event))
    now_ms = to_ms(drawing.now)
    assert pattern_holds(drawing.pattern, kept, now_ms, drawing.kept_count, catalogue) is drawing.holds
    events = sorted(kept, key=lambda pair: (pair[1].at_ms, pair[0]))[-drawing.kept_count :]
    sets = sets_of([drawing.pattern], catalogue)
    explained = explain_pattern(drawing.pattern, [event for _, event in events], SESSION_GAP_MS, now_ms, sets)
    assert explained.holds is drawing.holds


def test_the_page_draws_both_sides_of_every_edge() -> None:
    by_pattern: dict[str, set[bool]] = {}
    for drawing in DRAWINGS:
        by_pattern.setdefault(drawing.text.partition(":")[0], set()).add(drawing.holds)
    assert len(DRAWINGS) >= 60
    assert sum(len(sides) == 2 for sides in by_pattern.values()) >= 12
    texts = [drawing.text for drawing in DRAWINGS]
    for sign in ("without", "arriving", "‹30 min 1 s›", "keeps", "†", "(", "sv?", "?·", "☀", "☂"):
        assert any(sign in text for text in texts), sign


@pytest.mark.parametrize(
    "line",
    [
        "v·y·?  → holds",
        "v·?",
        "v·?  → perhaps",
        "v·?  → no\n1 2",
        "v·v·?  → no\n12",
        "v·v·?  → no\n1 1",
        "v‹3 days›?  → no",
    ],
)
def test_a_drawing_that_cannot_be_read_is_no_drawing(line: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        read_drawings(f"```timeline\nsteps 2×v · within session\n{line}\n```\n")


def to_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)

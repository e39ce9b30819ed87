"""What is usual is told by medians, so that a flood cannot make itself usual; and memory has an end."""

import math
import random
from collections import Counter
from statistics import mean, pstdev

import pytest

from ledger import flood
from ledger.flood import RateWatch, find_floods, usual_limit
from ledger.settings import Settings
from tests.ledger.visits import MINUTE_MS, Day, judge
from tests.ledger.world import NOON_MS, World

MIDNIGHT_MS = NOON_MS - 12 * 60 * MINUTE_MS


def test_the_robust_z_score_is_that_of_the_book() -> None:
    """Worked by hand: of 40 sources with 1, 2 and 3 events, ln of the median and of the MAD, each count spread."""
    counts = {1: 10, 2: 20, 3: 10}
    spread = [
        math.log(count - 0.5 + (part + 0.5) / 8) for count, number in counts.items() for part in range(8)
        for _ in range(number)
    ]  # fmt: skip
    middle = sorted(spread)[len(spread) // 2 - 1]
    mad = sorted(abs(one - middle) for one in spread)[len(spread) // 2 - 1]
    limit = usual_limit(counts, 5.0)
    assert limit is not None
    assert 0.6745 * (math.log(limit) - middle) / max(mad, math.log(1.5)) == pytest.approx(5.0)


def test_of_few_sources_nothing_is_said() -> None:
    assert usual_limit({1: 29}, 5.0) is None
    assert find_floods(["one"] * 1_000 + ["two"], 5.0) == set()
    assert find_floods(["flood"] * 1_000 + [f"v{n}" for n in range(40)], 5.0) == {"flood"}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2])
def test_a_flood_does_not_raise_the_limit_above_itself(share: float) -> None:
    chance = random.Random(7)
    counts = Counter(chance.choice([1, 1, 2, 2, 3, 4, 7]) for _ in range(1_000))
    before = usual_limit(counts, 5.5)
    counts[5_000] = round(1_000 * share / (1 - share))
    after = usual_limit(counts, 5.5)
    assert before is not None
    assert after is not None
    assert before <= after < 5_000


def test_only_so_many_sources_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "KNOWN_SOURCE_COUNT_MAX", 100)
    rate = RateWatch(60_000, 5.0)
    for number in range(1_000):
        rate.note("always")
        rate.note(number)
    assert len(rate._counts) == 100
    rate.turn(10 * 60_000)
    assert rate.floods("always", 1), "who never stops is not forgotten"


def test_a_window_is_measured_by_the_one_before() -> None:
    rate = RateWatch(60_000, 5.5)
    rate.turn(NOON_MS)
    for number in range(100):
        assert not rate.floods(number, 1)
        rate.note(number)
    assert not rate.floods("early", 10_000), "nothing is known yet"
    rate.turn(NOON_MS + 60_000)
    assert not rate.floods("visitor", 5)
    assert rate.floods("robot", 50)
    for _ in range(50):
        rate.note("robot")
    rate.turn(NOON_MS + 120_000)
    assert rate.floods("robot", 1), "it is no visitor because a minute is over"
    rate.turn(NOON_MS + 180_000)
    assert not rate.floods("robot", 1)


def a_day(seed: int) -> Day:
    day = Day(seed, MIDNIGHT_MS)
    day.shoppers(10_000)
    day.robots()
    return day


def test_floods_among_ten_thousand_visitors_are_found_and_visitors_are_not_taken_for_them() -> None:
    for seed in range(3):
        judged = judge(a_day(seed), Settings(invalid_traffic="on"))
        kinds = [kind for kind in judged.sent if kind]
        taken, found = judged.found_share(""), judged.found_share(*kinds)
        each = ", ".join(f"{kind} {judged.found_share(kind):.1%}" for kind in sorted(kinds))
        count = sum(judged.sent[kind] for kind in kinds)
        print(
            f"floods: {count:,} events among {judged.sent['']:,} of 10,000 visitors: "
            f"found {found:.1%} ({each}), visitors' taken wrongly {taken:.2%}"
        )
        assert taken <= 0.003
        assert found >= 0.9
        assert judged.found_share("fast visitor") == 1.0
        assert judged.on_arrival["fast visitor"] > 0.8 * judged.sent["fast visitor"]


def test_a_mean_in_place_of_the_median_is_fooled_by_the_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the same threshold, of standard deviations around a mean."""

    def limit_by_mean(counts: dict[int, int], z_max: float) -> float | None:
        values = [count for count, number in counts.items() for _ in range(number)]
        return mean(values) + z_max * pstdev(values) if len(values) >= 30 else None

    few = Counter([1, 2, 2, 3, 4, 7] * 30) + Counter({5_000: 8})
    assert find_floods((source for source in sources(few)), 5.5) == {f"5000-{number}" for number in range(8)}
    monkeypatch.setattr(flood, "usual_limit", limit_by_mean)
    assert find_floods((source for source in sources(few)), 5.5) == set()


def sources(counts: Counter[int]) -> list[str]:
    return [f"{count}-{number}" for count, many in counts.items() for number in range(many) for _ in range(count)]


VISITOR = bytes(range(16))


@pytest.fixture
def strict(sqlite_world: World) -> World:
    made = World(sqlite_world.database, Settings(invalid_traffic="on"))
    made.fund("adv-1", 10**10)
    return made


def visit(world: World, visitor: bytes, count: int = 1) -> list[str | None]:
    codes = []
    for _ in range(count):
        token = world.fill(7_919, visitor=visitor, product_id=f"p{world.chance.getrandbits(40)}")
        codes.append(world.record(world.event(token, "impression"), world.event(token))[1].code)
    return codes


def test_a_flood_is_recorded_and_not_charged_and_sending_again_counts_once(strict: World) -> None:
    for _ in range(40):
        visit(strict, strict.chance.randbytes(16))
    strict.clock.pass_ms(10 * MINUTE_MS)
    codes = visit(strict, VISITOR, 60)
    first = codes.index("flood")
    assert 20 < first < 40
    assert set(codes[:first]) == {None}
    assert set(codes[first:]) == {"flood"}
    event = strict.event(strict.fill(7_919, visitor=(other := strict.chance.randbytes(16))), "impression")
    for _ in range(100):
        strict.record(event)
    assert visit(strict, other) == [None], "a hundred times the same event are one"
    assert strict.one("SELECT SUM(amount_micros) FROM events WHERE code = 'flood'") == 0
    strict.must_be_sound()


def test_what_was_not_committed_counts_for_nothing(strict: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(40):
        visit(strict, strict.chance.randbytes(16))
    strict.clock.pass_ms(10 * MINUTE_MS)
    transact = strict.writer._transact

    def fail(work: object) -> None:
        def half(connection: object) -> None:
            work(connection)  # type: ignore[operator]
            raise OSError("the disk is gone")

        transact(half)

    token = strict.fill(7_919, visitor=VISITOR)
    event = strict.event(token, "impression")
    monkeypatch.setattr(strict.writer, "_transact", fail)
    for _ in range(100):
        with pytest.raises(OSError, match="gone"):
            strict.record(event)
    monkeypatch.setattr(strict.writer, "_transact", transact)
    assert [result.code for result in strict.record(event, strict.event(token))] == [None, None]

"""The position-based model gives the chances it is named for."""

from sim.chance import Stream, key_of
from sim.click import PositionBased


def test_clicks_are_looks_times_attraction() -> None:
    model = PositionBased([1000, 500])
    stream = Stream(key_of(1))
    answers = [(model.answer(stream, 1, 300_000), model.answer(stream, 2, 300_000)) for _ in range(40_000)]
    first, second = sum(a.is_clicked for a, _ in answers), sum(b.is_clicked for _, b in answers)
    assert abs(first - 12_000) < 4 * 92
    assert abs(second - 6_000) < 4 * 72
    assert all(a.is_seen for a, _ in answers)


def test_nothing_is_clicked_unseen_and_a_slot_takes_the_same_chance_whatever_it_holds() -> None:
    model = PositionBased([1])
    one, other = Stream(9), Stream(9)
    for click_ppm in (0, 10, 999_999):
        answer = model.answer(one, 1, click_ppm)
        assert answer.is_seen or not answer.is_clicked
        model.answer(other, 1, 500_000)
    assert one.next() == other.next()

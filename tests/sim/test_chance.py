"""Chance is the same everywhere, and even."""

import numpy as np

from sim.chance import PPM, Stream, bits, key_of, whole_numbers


def test_the_first_draws_of_splitmix64_are_the_published_ones() -> None:
    stream = Stream(1234567)
    assert [stream.next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_at_once_are_the_draws_one_by_one() -> None:
    key = key_of(7, "sessions")
    stream = Stream(key)
    assert bits(key, 100).tolist() == [stream.next() for _ in range(100)]


def test_another_part_of_a_key_gives_another_stream() -> None:
    keys = {key_of(1, "a"), key_of(1, "b"), key_of(2, "a"), key_of("1a"), key_of(11, "a"), key_of(1, "1a")}
    assert len(keys) == 6


def test_whole_numbers_are_even_and_within_their_bounds() -> None:
    drawn = whole_numbers(key_of(3), 60_000, 5, 10)
    counts = np.bincount(drawn)
    assert counts[:5].sum() == 0
    assert counts.size == 11
    assert abs(counts[5:] - 10_000).max() < 4 * 92  # four standard deviations


def test_a_choice_follows_its_weights() -> None:
    stream = Stream(key_of(4))
    chosen = np.bincount([stream.choose([0, 3, 4]) for _ in range(40_000)], minlength=3)
    assert chosen[0] == 0
    assert abs(chosen[1] - 30_000) < 4 * 87
    assert not any(Stream(key).happens(0) for key in range(50))
    assert all(Stream(key).happens(PPM) for key in range(50))

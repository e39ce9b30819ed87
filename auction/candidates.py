"""The page's candidates, read from the request's own bytes, before the rest of it is decoded.

A list of candidates in the form sites send goes straight into the market's memory; a number stands in its place for
the decoder. Whatever is not exactly that, right or wrong, is decoded as usual.
"""

import secrets

import msgspec
import numpy as np

from auction.kernel import WORD_PADDING, read_candidates_nb
from auction.market import PLACEMENT_COUNT_MAX, Market
from auction.request import CANDIDATE_COUNT_MAX, ReadSlotRequest, SlotRequest

FIRST_NUMBER = secrets.randbits(52) | 1 << 52  # nobody who writes a request can know what will stand for a list
BODY_BYTES_MAX = 1 << 24
_KEY = b'"candidates"'
_SPACE = b" \t\r\n"
_PADDING = bytes(WORD_PADDING)

_decode_read = msgspec.json.Decoder(ReadSlotRequest).decode
_decode_all = msgspec.json.Decoder(SlotRequest).decode


def read_request(body: bytes, market: Market) -> SlotRequest:
    """Return the request of a body; usual lists of candidates are in the market's scratch, by number.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: the body is no such request.
    """
    rest, count = take_out(body, market)
    if count:
        try:
            request = _decode_read(rest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _decode_all(body)  # which says what is wrong with it, if anything is
        numbers = [placement.candidates for placement in request.placements if placement.candidates is not None]
        if numbers == list(range(FIRST_NUMBER, FIRST_NUMBER + count)):
            return request
    return _decode_all(body)


def take_out(body: bytes, market: Market) -> tuple[bytes, int]:
    """Return the body with a number for each list of candidates that was read, and how many were."""
    at = body.find(_KEY)
    if at < 0 or len(body) > BODY_BYTES_MAX:
        return body, 0
    columns, scratch = market.snapshot.columns, market.scratch
    raw = np.frombuffer(body + _PADDING, np.uint8)
    parts: list[bytes] = []
    count = done = 0
    while at >= 0 and count < PLACEMENT_COUNT_MAX:
        begins_at = _skip_space(body, at + len(_KEY))
        if body[begins_at : begins_at + 1] == b":":
            begins_at = _skip_space(body, begins_at + 1)
            room = min(CANDIDATE_COUNT_MAX, (len(body) - begins_at) // 3 + 1)  # `"",` is the least
            listed = scratch.listing(count, room)
            known = read_candidates_nb(
                raw,
                begins_at,
                columns.product_id_start,
                columns.product_id_letters,
                market.id_table,
                CANDIDATE_COUNT_MAX,
                listed,
                scratch.place,
            )
            if known >= 0:
                parts += [body[done:begins_at], b"%d" % (FIRST_NUMBER + count)]
                scratch.listed[count] = listed[:known]
                done = begins_at = int(scratch.place[0])
                count += 1
        at = body.find(_KEY, begins_at)
    return (b"".join([*parts, body[done:]]), count) if count else (body, 0)


def _skip_space(body: bytes, at: int) -> int:
    while body[at : at + 1] in _SPACE and at < len(body):
        at += 1
    return at

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.beacon import BeaconKeys
from ledger.errors import BeaconRefused
from ledger.money import BID_MICROS_MAX, Micros
from ledger.terms import NO_VISITOR, ChargeOn, ChargeTerms, new_id
from tests.ledger.world import KEY_TEXT, NOON_MS

DAY_MS = 86_400_000
OTHER_KEY_TEXT = "2:" + "B" * 43


def terms(**changed: object) -> ChargeTerms:
    given = {
        "auction_id": new_id("auc", NOON_MS, b"0123456789"),
        "placement_id": "category-top",
        "slot_position": 3,
        "product_id": "1082185",
        "is_sponsored": True,
        "advertiser_id": "adv-nestlé",
        "campaign_id": new_id("cmp", NOON_MS, b"abcdefghij"),
        "bid_id": new_id("bid", NOON_MS, b"ABCDEFGHIJ"),
        "charge_on": ChargeOn.CLICK,
        "price_micros": Micros(123_457),
        "quality_ppm": 31_415,
        "visitor_pseudonym": bytes(range(16)),
        "variant": "holdout",
        "issued_at_ms": NOON_MS,
    }
    return ChargeTerms(**(given | changed))  # type: ignore[arg-type]


ids = st.text(min_size=1, max_size=64)
maybe_packed = st.one_of(
    ids,
    st.builds(new_id, st.sampled_from(["auc", "adv"]), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    st.just("auc_" + "8" + "0" * 25),  # would not fit 16 bytes
    st.just("cmp_" + "O" * 26),  # not of the alphabet
    st.just("cmp_" + "\N{ARABIC-INDIC DIGIT ONE}" * 26),  # digits to int(), not to us
)  # fmt: skip
any_terms = st.builds(
    ChargeTerms,
    auction_id=maybe_packed,
    placement_id=ids,
    slot_position=st.integers(1, 50),
    product_id=ids,
    is_sponsored=st.booleans(),
    advertiser_id=st.none() | maybe_packed,
    campaign_id=st.none() | maybe_packed,
    bid_id=st.none() | maybe_packed,
    charge_on=st.none() | st.sampled_from(ChargeOn),
    price_micros=st.integers(0, BID_MICROS_MAX),
    quality_ppm=st.integers(0, 10**6),
    visitor_pseudonym=st.just(NO_VISITOR) | st.binary(min_size=16, max_size=16),
    variant=st.none() | ids,
    issued_at_ms=st.integers(NOON_MS - DAY_MS, NOON_MS),
)


@given(any_terms)
def test_what_is_redeemed_is_what_was_sealed(promised: ChargeTerms) -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    assert keys.redeem_beacon(keys.seal_beacon(promised), NOON_MS).terms == promised


def test_no_two_tokens_are_alike_and_each_has_its_own_name() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    tokens = [keys.seal_beacon(terms()) for _ in range(100)]
    assert len({keys.redeem_beacon(token, NOON_MS).token_id for token in tokens}) == 100


def test_every_flipped_bit_is_refused() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    token = keys.seal_beacon(terms())
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        changed = base64.urlsafe_b64encode(bytes(flipped)).rstrip(b"=").decode()
        with pytest.raises(BeaconRefused):
            keys.redeem_beacon(changed, NOON_MS)


def test_every_other_spelling_of_a_token_is_refused() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    for length in range(1, 4):  # each remainder, so that unused bits at the end are there in two of them
        token = keys.seal_beacon(terms(product_id="p" * length))
        spellings = {token + "=" * count for count in range(1, 4)}
        spellings |= {
            token.replace("-", "+"),
            token.replace("_", "/"),
            token + "\n",
            " " + token,
            token[:9] + "\r\n" + token[9:],
        }
        spellings |= {
            token[:-1] + other for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        }
        spellings |= {
            token + "A",
            token + "AA",
            token[:-1],
            token[:-4],
            token.upper(),
            "",
            "é" + token,
            token + "\0",
            "=",
            "A" * 9000,
        }
        for spelling in spellings - {token}:
            with pytest.raises(BeaconRefused):
                keys.redeem_beacon(spelling, NOON_MS)


def test_nothing_can_be_read_without_the_key() -> None:
    raw = base64.urlsafe_b64decode(BeaconKeys.parse(KEY_TEXT).seal_beacon(terms()) + "==")
    for told in (b"category-top", b"1082185", b"nestl", b"holdout", bytes(range(16)), (123_457).to_bytes(3, "big")):
        assert told not in raw


def test_a_foreign_key_is_refused_and_a_retired_one_still_taken() -> None:
    old, foreign = BeaconKeys.parse(KEY_TEXT), BeaconKeys.parse("1:" + "C" * 43)
    rotated = BeaconKeys.parse(OTHER_KEY_TEXT + "," + KEY_TEXT)
    token = old.seal_beacon(terms())
    assert rotated.redeem_beacon(token, NOON_MS).terms == terms()
    assert old.seal_beacon(terms())[:4] != rotated.seal_beacon(terms())[:4]
    for keys in (foreign, BeaconKeys.parse(OTHER_KEY_TEXT)):
        with pytest.raises(BeaconRefused):
            keys.redeem_beacon(token, NOON_MS)


def test_a_token_opens_on_its_day_and_the_two_after_and_not_before_it_was_made() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    token = keys.seal_beacon(terms())
    for days in range(3):
        assert keys.redeem_beacon(token, NOON_MS + days * DAY_MS).terms == terms()
    for at_ms, code in ((NOON_MS + 3 * DAY_MS, "expired"), (NOON_MS - 60_001, "from_the_future")):
        with pytest.raises(BeaconRefused) as refused:
            keys.redeem_beacon(token, at_ms)
        assert refused.value.code == code


def test_each_day_has_a_key_of_its_own() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    ciphers = {id(keys._cipher(1, day)) for day in range(3)}
    assert len(ciphers) == 3
    sealed = {keys._cipher(1, day).encrypt(bytes(12), b"same", b"") for day in range(3)}
    assert len(sealed) == 3


@pytest.mark.parametrize(
    "text", ["", "1", "x:" + "A" * 43, "256:" + "A" * 43, "1:AAAA", "1:" + "A" * 43 + ",1:" + "B" * 43, "1:!!"]
)
def test_malformed_keys_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        BeaconKeys.parse(text)
    assert "AAAA" not in str(refused.value)


def test_ids_of_our_own_form_make_short_tokens() -> None:
    keys = BeaconKeys.parse(KEY_TEXT)
    ours = keys.seal_beacon(terms(advertiser_id=new_id("adv", NOON_MS, b"0123456789"), variant=None))
    assert len(ours) <= 210

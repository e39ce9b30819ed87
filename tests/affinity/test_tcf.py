"""TC strings: read as IAB Europe's own library reads them, and refused where they are cut short or of another kind.

`cases/tc_strings.json` holds strings and what `@iabtcf/core` 1.5.6 (Node) decodes them to: 24 it encoded itself, of
random purposes, vendors and restrictions over a list of 1,200 vendors, and two printed in documents. Vendors are a
hexadecimal number whose bit n is vendor n.
"""

import contextlib
import random
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from affinity.consent import ConsentReader
from affinity.errors import ConsentUnreadable
from affinity.navigation import Consent
from affinity.settings import Settings
from affinity.tcf import Range, TcfUnreadable, is_in, read_tc_string

CASES: list[dict[str, Any]] = msgspec.json.decode((Path(__file__).parent / "cases/tc_strings.json").read_bytes())


def numbers(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def bits(hexadecimal: str) -> set[int]:
    whole = int(hexadecimal, 16)
    return {number for number in range(whole.bit_length()) if whole >> number & 1}


@pytest.mark.parametrize("case", CASES, ids=[case["text"][:16] for case in CASES])
def test_a_string_is_read_as_the_frameworks_own_library_reads_it(case: dict[str, Any]) -> None:
    core = read_tc_string(case["text"])
    assert core.purposes_consented == set(case["purposes_consented"])
    assert core.purposes_legitimate == set(case["purposes_legitimate"])
    assert core.is_purpose_one_untold == case["is_purpose_one_untold"]
    assert numbers(core.vendors_consented) == bits(case["vendors_consented"])
    assert numbers(core.vendors_legitimate) == bits(case["vendors_legitimate"])
    restrictions = [
        [one.purpose, one.restriction, vendor] for one in core.restrictions for vendor in numbers(one.vendors)
    ]
    assert sorted(restrictions) == case["restrictions"]
    assert all(is_in(vendor, core.vendors_consented) for vendor in bits(case["vendors_consented"]))


def test_the_cases_have_everything_that_can_be_written() -> None:
    cores = [read_tc_string(case["text"]) for case in CASES]
    assert any(last > first for core in cores for first, last in core.vendors_consented)  # by range
    assert any(len(core.vendors_consented) > 400 for core in cores)  # by bit
    assert {one.restriction for core in cores for one in core.restrictions} == {0, 1, 2}
    assert any("." in case["text"] for case in CASES)  # with a publisher's segment


@pytest.mark.parametrize("text", ["", "?", "CO", "é" * 40, "BO" + "A" * 100, "C" * 100, "COtybn4PA_zT4KjACBENAPCIAEB"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TcfUnreadable):
        read_tc_string(text)


@pytest.mark.parametrize("case", CASES[:24:6], ids=str)
def test_a_string_cut_short_or_scrambled_is_refused_or_read_but_never_more(case: dict[str, Any]) -> None:
    text = case["text"].partition(".")[0]
    for length in range(len(text) - 8):
        with pytest.raises(TcfUnreadable):
            read_tc_string(text[:length])
    chance = random.Random(text)
    for _ in range(200):
        raw = bytes([8 + chance.randrange(4)]) + chance.randbytes(chance.randrange(400))
        with contextlib.suppress(TcfUnreadable):
            read_tc_string(urlsafe_b64encode(raw).decode().rstrip("="))


def write(
    consented: set[int],
    legitimate: set[int] = frozenset(),  # type: ignore[assignment]
    *,
    vendors: set[int] = frozenset(),  # type: ignore[assignment]
    interested: set[int] = frozenset(),  # type: ignore[assignment]
    restriction: tuple[int, int, int, int] | None = None,
    is_one_untold: bool = False,
) -> str:
    """Return the TC string that says so; the restriction is (purpose, type, first and last vendor)."""

    def places(numbers: set[int], count: int) -> str:
        return "".join("01"[place in numbers] for place in range(1, count + 1))

    def section(numbers: set[int]) -> str:
        return f"{max(numbers, default=0):016b}0{places(numbers, max(numbers, default=0))}"

    field = f"{2:06b}" + "0" * 146 + places(consented, 24) + places(legitimate, 24) + "01"[is_one_untold] + "0" * 12
    field += section(vendors) + section(interested)
    if restriction is None:
        field += f"{0:012b}"
    else:
        purpose, kind, first, last = restriction
        field += f"{1:012b}{purpose:06b}{kind:02b}{1:012b}1{first:016b}{last:016b}"
    field += "0" * (-len(field) % 24)
    return urlsafe_b64encode(int(field, 2).to_bytes(len(field) // 8, "big")).decode()


VENDOR = 755
DECIDED = [
    ("all purposes", {}, write({1, 3, 4}), True),
    ("one is missing", {}, write({1, 3}), False),
    ("storage is missing", {}, write({3, 4}), False),
    ("storage need not be asked for there", {}, write({3, 4}, is_one_untold=True), True),
    ("interest is no basis for a profile", {}, write({1, 4}, {3}), False),
    ("no vendor is asked for", {}, write({1, 3, 4}, vendors={9}), True),
    ("the vendor too", {"tcf_vendor_id": VENDOR}, write({1, 3, 4}, vendors={9, VENDOR}), True),
    ("not the vendor", {"tcf_vendor_id": VENDOR}, write({1, 3, 4}, vendors={VENDOR - 1, VENDOR + 1}), False),
    ("the shop's own purposes", {"tcf_purposes": "1,2"}, write({1, 2}), True),
    ("interest is a basis for limited data", {"tcf_purposes": "1,2"}, write({1}, {2}), True),
    (
        "of the vendor",
        {"tcf_purposes": "2", "tcf_vendor_id": VENDOR},
        write(set(), {2}, interested={VENDOR}),
        True,
    ),
    (
        "objected to by the vendor's bit",
        {"tcf_purposes": "2", "tcf_vendor_id": VENDOR},
        write(set(), {2}, interested={VENDOR - 1}),
        False,
    ),
    (
        "the publisher forbids it to the vendor",
        {"tcf_vendor_id": VENDOR},
        write({1, 3, 4}, vendors={VENDOR}, restriction=(4, 0, 700, 800)),
        False,
    ),
    (
        "the publisher forbids it to others",
        {"tcf_vendor_id": VENDOR},
        write({1, 3, 4}, vendors={VENDOR}, restriction=(4, 0, 1, 700)),
        True,
    ),
    (
        "the publisher asks for consent",
        {"tcf_purposes": "2", "tcf_vendor_id": VENDOR},
        write(set(), {2}, interested={VENDOR}, restriction=(2, 1, VENDOR, VENDOR)),
        False,
    ),
    (
        "the publisher asks for interest",
        {"tcf_purposes": "2", "tcf_vendor_id": VENDOR},
        write({2}, vendors={VENDOR}, restriction=(2, 2, VENDOR, VENDOR)),
        False,
    ),
]


@pytest.mark.parametrize(("settings", "text", "allows"), [one[1:] for one in DECIDED], ids=[one[0] for one in DECIDED])
def test_personalisation_needs_every_purpose_on_a_basis_it_may_rest_on(
    settings: dict[str, Any], text: str, allows: bool
) -> None:
    reader = ConsentReader(Settings(**settings))
    assert reader.allows(text) is allows
    assert reader.allows(text) is allows  # and again, from memory


def test_an_object_says_it_itself_and_silence_is_no_consent() -> None:
    reader = ConsentReader(Settings())
    assert reader.allows(Consent(personalised=True))
    assert not reader.allows(Consent())
    assert not reader.allows(None)
    with pytest.raises(ConsentUnreadable) as refused:
        reader.allows("yes")
    assert refused.value.pointer == "/consent"

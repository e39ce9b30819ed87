"""Receipts of pages of the naive twin, decided by the kernel."""

import msgspec
import numpy as np

from auction.allocation import new_outcome
from auction.kernel import ENTRY, LOST, NOT_HEAPED, TERM_COUNT, TERM_HEAP_SIZE, PageArrays, fill_page_nb
from auction.market import Blocks
from auction.receipt import REACH, NameTable, Note, OfferName, PlaceNote, Receipt, open_note
from tests.auction import naive
from tests.auction.pages import PPM, to_arrays

NOTHING = np.zeros(0, np.int64)


def hold(receipt: Receipt) -> Receipt:
    """Return the receipt of the same page decided anew, after something in it was changed."""
    outcome = new_outcome(len(receipt.page.pinned_row))
    count = receipt.note.candidate_count
    fill_page_nb(receipt.candidates, count, receipt.page, NOTHING, NOTHING, NOTHING, NOTHING, outcome)
    return msgspec.structs.replace(receipt, outcome=outcome)


def receipt_of(page: naive.Page, pricing: str = "critical") -> Receipt:
    """Return the receipt of a page as one placement; ids are those of the ads, with a letter before them."""
    candidates, count, arrays, _ = to_arrays(page)
    ads = page.ads + list(page.pins.values())
    entry = np.zeros(count, ENTRY)
    entry["quality_ppm"] = np.minimum(candidates.weight_ppm[:count], PPM)
    entry["offer_row"] = [-1 if ad.advertiser is None or row >= len(page.ads) else row for row, ad in enumerate(ads)]
    term = np.zeros(TERM_COUNT, np.int64)
    term[TERM_HEAP_SIZE] = NOT_HEAPED
    blocks = Blocks(
        np.array(candidates[:4], np.int64),
        np.array(candidates[4:7], np.int32),
        candidates.charge_code,
        np.array(candidates[8:], np.uint64),
    )
    place = PlaceNote("top", 0, page.slot_count, pricing, [], None, term[REACH].tobytes(), b"")
    note = Note(
        auction_id="auc_" + "0" * 26,
        held_at_ms=1,
        snapshot_number=1,
        snapshot_version=1,
        model="neutral",
        currency="EUR",
        mode="sponsored",
        page_type="home",
        experiment_id=None,
        variant=None,
        is_partial=False,
        tie_seed=1,
        places=[place],
        candidate_count=count,
        lost_count=0,
        candidates=[block.tobytes() for block in blocks],
        entry=entry.tobytes(),
        lost=np.zeros(0, LOST).tobytes(),
        page=[array.tobytes() for array in _two_charges(arrays)],
        outcome=np.zeros((4 + page.slot_count, page.slot_count), np.int64).tobytes(),
    )
    names = NameTable()
    names.offers = {
        row: OfferName(f"bid_{ad.name}", f"cmp_{ad.name}", f"adv_{ad.advertiser}", f"prd_{ad.product}")
        for row, ad in enumerate(page.ads)
        if ad.advertiser is not None
    }
    names.products = {int(code): f"prd_{ad.product}" for code, ad in zip(candidates.product_code, ads, strict=True)}
    names.advertisers = {
        int(code): f"adv_{ad.advertiser}"
        for code, ad in zip(candidates.advertiser_code, ads, strict=True)
        if ad.advertiser is not None
    }
    return hold(open_note(note, names))


def _two_charges(page: PageArrays) -> PageArrays:
    attention = page.attention_permille
    return page if len(attention) == 2 else page._replace(attention_permille=np.concatenate([attention, attention]))

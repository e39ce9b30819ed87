"""What an operator may set about auctions, each with its default, its unit and a sentence."""

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of the auction.

    Attributes:
        body_bytes_max: largest body of `POST /v1/fills`, in bytes.
        candidates_per_slot: how many of the best candidates are ranked at first for each slot of a placement; more
            are fetched while they could still change the answer.
        clock_look_interval_us: about how many microseconds of looking at offers pass between two looks at the clock;
            how many offers that is, is measured on each snapshot.
        exact_steps_max: looks at a pair of candidate and slot that filling for the most worth may take; a page that
            needs more is filled greedily.
        exact_steps_per_us: such looks this machine makes in a µs; from them and the time left follows how many are
            begun.
        deadline_reserve_us: microseconds of `tmax_ms` kept for minting beacons and writing the answer.
        organic_click_value_micros: what a click on an organic product is worth to the merchant, in micros; times its
            quality it is the product's value on a merchandised page.
        organic_rank_value_micros: value of an impression, in micros, of the product ranked first by the caller or by
            the placement's `organic_source`; later ones get 20 / (19 + rank) of it.
        holdout_ppm: share of visitors, in parts per million, who see no paid fill; 0 turns the experiment off.
        experiment_id: name of that experiment, as fills and receipts carry it.
        pending_life_s: longest, in seconds, that the charge of a fill is waited for before its budget is used again.
        pending_z: how many standard deviations of not yet settled spend a budget must still have room for.
        pacing_interval_ms: milliseconds between two steps of the pacing multipliers.
        pacing_floor_ppm: lowest pacing multiplier, in parts per million.
        credit_window_s: seconds after a click within which an order of the product is credited to its campaign, for
            target-ROAS bidding.
        gate_interval_ms: milliseconds after which flights, funds and budgets are gone through again.
        quality_interval_s: seconds between two looks at the clicks counted since, which correct predicted clicks.
        receipt_bytes_max: bytes of disk receipts may take; segments of auctions without a paid fill go first, and of
            each kind the oldest.
        receipt_segment_bytes: size of one segment file of receipts, in bytes; two are being written.
        receipt_queue_max: receipts waiting to be written; more are dropped and counted, from half of it on those of
            auctions without a paid fill.
        receipt_rows_max: candidates that lost at the gate kept in one receipt; more are counted only.
        unbilled_receipt_ppm: share of auctions without a paid fill whose receipt is kept, in parts per million.
    """

    body_bytes_max: int = 2_000_000
    candidates_per_slot: int = 6
    clock_look_interval_us: int = 200
    exact_steps_max: int = 4_000_000
    exact_steps_per_us: int = 200
    deadline_reserve_us: int = 600
    organic_click_value_micros: int = 100_000
    organic_rank_value_micros: int = 20_000
    holdout_ppm: int = 0
    experiment_id: str = "ad-free-holdout"
    pending_life_s: int = 600
    pending_z: float = 2.0
    pacing_interval_ms: int = 1_000
    pacing_floor_ppm: int = 10_000
    credit_window_s: int = 604_800
    gate_interval_ms: int = 100
    quality_interval_s: int = 10
    receipt_bytes_max: int = 512_000_000
    receipt_segment_bytes: int = 16_000_000
    receipt_queue_max: int = 10_000
    receipt_rows_max: int = 2_000
    unbilled_receipt_ppm: int = 1_000_000

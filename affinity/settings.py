"""What an operator may set about visitors and their affinity, each with its default, its unit and a sentence."""

from typing import Annotated

from msgspec import Meta, Struct

from affinity.special import DEFAULT_TERMS

_PURPOSES = r"^([1-9]|1[0-9]|2[0-4])(,([1-9]|1[0-9]|2[0-4]))*(?![\s\S])"


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of navigation, visitors and models.

    Attributes:
        visitor_count_max: visitors whose state is kept in memory; the least recently seen goes first.
        visitor_bytes_max: memory, in bytes, that their state may take; the least recently seen goes first here too.
        visitor_record_bytes_max: packed bytes of one visitor's state; the older half of one that has more is dropped.
        visitor_ready_count_max: visitors whose state stands ready for a page, being used last; all others' is packed.
        visitor_event_count_max: most recent events kept of one visitor; patterns and ranking look no further back.
        visitor_pattern_size_max: events that all the navigation patterns one visitor is followed in may want together;
            beyond that, those begun longest ago are forgotten. At least 100, the most one pattern may want.
        pattern_target_count_max: different product targets that the navigation patterns of all bids may name together;
            each takes a bit of memory a product, and time whenever the catalogue changes.
        visitor_record_file_every_s: seconds between two writings of all visitors' state to a file, by which the next
            start need not read the whole navigation log.
        session_gap_s: seconds without an event after which a visitor's session is over.
        render_wait_s: seconds after a fill within which its impression must be reported; else the fill no longer counts
            in frequency caps and visitors' limits. As long as the ledger takes impressions.
        event_lateness_s: how late, in seconds, an event may be reported and still be put where it belongs.
        event_lead_s: how far in the future, in seconds, a reported event may be; further ones are refused.
        event_id_window: event ids remembered, so that an event sent twice counts once.
        navigation_body_bytes_max: largest body of `POST /v1/navigation`, in bytes.
        navigation_segment_bytes: size of one file of the navigation log, in bytes.
        interest_half_life_s: seconds after which an event counts half in category and brand affinities.
        audience_size_min: visitors an audience must match now before it can be targeted, and an audience or a pattern
            before a number is shown.
        audience_sample_size: visitors looked at to estimate how many match.
        retention_days: days after which navigation is deleted, in memory and on disk; 0 keeps it.
        tcf_purposes: purposes of IAB Europe's TCF, by number, that a TC string must all allow before anything is
            personalised: by default storage (1), an advertising profile (3) and its use (4).
        tcf_vendor_id: number of the vendor in the TCF's global list that must be allowed too; 0 asks for the purposes
            alone, as where the shop itself is the controller.
        special_category_terms: words that tell of a special category of personal data (GDPR, article 9), separated by
            commas, `*` for any ending: segments and attributes named by them are refused; empty refuses none.
        click_row_count_max: products, counted per placement, whose showings and clicks are kept apart; those shown
            least are counted together.
        click_half_life_days: days after which a counted showing or click counts half.
    """

    visitor_count_max: int = 200_000
    visitor_bytes_max: int = 800_000_000
    visitor_record_bytes_max: int = 32_768
    visitor_ready_count_max: Annotated[int, Meta(ge=1)] = 2_000
    visitor_event_count_max: int = 128
    visitor_pattern_size_max: int = 2_048
    pattern_target_count_max: Annotated[int, Meta(ge=1)] = 2_000
    visitor_record_file_every_s: Annotated[int, Meta(ge=1)] = 300
    session_gap_s: int = 1_800
    render_wait_s: int = 1_800
    event_lateness_s: int = 86_400
    event_lead_s: int = 300
    event_id_window: int = 400_000
    navigation_body_bytes_max: int = 512_000
    navigation_segment_bytes: int = 64_000_000
    interest_half_life_s: int = 1_209_600
    audience_size_min: int = 50
    audience_sample_size: int = 20_000
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    tcf_purposes: Annotated[str, Meta(pattern=_PURPOSES)] = "1,3,4"
    tcf_vendor_id: Annotated[int, Meta(ge=0, le=65_535)] = 0
    special_category_terms: str = DEFAULT_TERMS
    click_row_count_max: int = 100_000
    click_half_life_days: int = 30

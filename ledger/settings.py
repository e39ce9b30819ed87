"""What an operator may turn in the ledger. Each field has a default, a unit and a sentence."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ledger.attribution import ModelName
from ledger.traffic import parse_ranges

InvalidTraffic = Literal["declared", "on", "off"]


class Settings(Struct, frozen=True, kw_only=True):
    """The ledger's settings.

    Attributes:
        currency: ISO 4217 code of the deployment's one currency.
        time_zone: IANA name; days of daily budgets and months of periods are the retailer's.
        impression_life_ms: how long after the fill an impression or a view is still taken.
        click_life_ms: how long after the fill a click is still taken.
        invalid_traffic: what is recorded but not billed. `declared`: robots that say so in their user agent, and
            addresses of data centres. `on`: also a click whose impression was not recorded before it or together with
            it, one sooner than 300 ms after it, one the same visitor repeats, floods, and what is found before a month
            is closed. `off`: nothing. A click whose
            impression is late or was blocked is common, so the default bills it.
        data_centre_ranges: addresses no shopper has, such as `192.0.2.0/24, 2001:db8::/32`; known only where the
            retailer says `client.ip`.
        repeated_click_s: how soon a visitor's click on the same product for the same campaign is a repeated one.
        flood_window_s: how long events of a visitor, or of an address with a user agent, are counted together.
        flood_z_max: robust z-score of a source's count, on a logarithmic scale, above which its events are a flood:
            5.5 is some 30 times what most have.
        keeps_views: whether views of paid fills by visitors who consented are kept as touches beside clicks, for models
            that credit them; each costs a row.
        low_funds_micros: funds below which an advertiser that set no threshold of its own is told that they are low; 0
            tells nobody.
        commission_model: how orders are credited to campaigns where commission is agreed; what was posted stays.
        group_event_count_max: most events that wait for one another's commit (one larger request is not split).
        group_wait_ms: longest that the first of them waits for company.
        events_per_request_max: most events in one `POST /v1/events`.
        body_bytes_max: most bytes of one `POST /v1/events`.
        waiting_event_count_max: events waiting for a commit above which new ones are refused with 503.
        unwritable_s_max: how long events may be unwritable before no more paid fills should be shown.
    """

    currency: str = "EUR"
    time_zone: str = "UTC"
    impression_life_ms: int = 30 * 60_000
    click_life_ms: int = 24 * 3_600_000
    invalid_traffic: InvalidTraffic = "declared"
    data_centre_ranges: str = ""
    repeated_click_s: int = 30
    flood_window_s: int = 600
    flood_z_max: float = 5.5
    keeps_views: bool = False
    low_funds_micros: Annotated[int, Meta(ge=0, le=10**15)] = 50_000_000
    commission_model: ModelName = "default"
    group_event_count_max: int = 256
    group_wait_ms: int = 2
    events_per_request_max: int = 500
    body_bytes_max: int = 2_000_000
    waiting_event_count_max: int = 20_000
    unwritable_s_max: float = 5.0

    def __post_init__(self) -> None:
        """Refuse ranges that are none, and a window or a threshold that nothing is within.

        Raises:
            ValueError: one of them.
        """
        if self.flood_window_s <= 0 or not self.flood_z_max > 0:
            raise ValueError(
                "ENDCAP_FLOOD_WINDOW_S and ENDCAP_FLOOD_Z_MAX must be above 0, were "
                f"{self.flood_window_s} and {self.flood_z_max}"
            )
        try:
            parse_ranges(self.data_centre_ranges)
        except ValueError as refusal:
            raise ValueError(f"ENDCAP_DATA_CENTRE_RANGES must be ranges such as 192.0.2.0/24: {refusal}") from None

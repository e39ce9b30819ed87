"""Whether a visitor agreed to personalisation, however the page says it."""

from functools import lru_cache

from affinity.errors import ConsentUnreadable
from affinity.navigation import ConsentSignal
from affinity.settings import Settings
from affinity.tcf import Restriction, TcCore, TcfUnreadable, is_in, read_tc_string

MAY_REST_ON_INTEREST = frozenset({2, 7, 8, 9, 10, 11})  # the other purposes need consent, since TCF 2.2
KNOWN_TEXT_COUNT = 4_096


class ConsentReader:
    """Reads consent as it travels: a plain object, or a TC string of IAB Europe's framework.

    Args:
        settings: say which purposes personalisation needs, and of which vendor.
    """

    def __init__(self, settings: Settings) -> None:
        self._vendor_id = settings.tcf_vendor_id
        self._purposes = [int(purpose) for purpose in settings.tcf_purposes.split(",")]
        self._allows_text = lru_cache(KNOWN_TEXT_COUNT)(self._read)  # a visitor's is the same on every page

    def allows(self, signal: ConsentSignal | None) -> bool:
        """Say whether personalisation is agreed to; where nothing is said (None), it is not.

        Raises:
            ConsentUnreadable: the text is no TC string of version 2.
        """
        if isinstance(signal, str):
            return self._allows_text(signal)
        return signal is not None and signal.personalised

    def _read(self, text: str) -> bool:
        try:
            core = read_tc_string(text)
        except TcfUnreadable as refusal:
            raise ConsentUnreadable(str(refusal), "/consent") from None
        return all(self._has_basis(core, purpose) for purpose in self._purposes)

    def _has_basis(self, core: TcCore, purpose: int) -> bool:
        if purpose == 1 and core.is_purpose_one_untold:
            return True
        vendor_id = self._vendor_id
        restrictions = {
            one.restriction
            for one in core.restrictions
            if vendor_id and one.purpose == purpose and is_in(vendor_id, one.vendors)
        }
        if Restriction.NOT_ALLOWED in restrictions:
            return False
        has_consent = (
            purpose in core.purposes_consented
            and (not vendor_id or is_in(vendor_id, core.vendors_consented))
            and Restriction.REQUIRE_LEGITIMATE_INTEREST not in restrictions
        )
        has_interest = (
            purpose in MAY_REST_ON_INTEREST
            and purpose in core.purposes_legitimate
            and (not vendor_id or is_in(vendor_id, core.vendors_legitimate))
            and Restriction.REQUIRE_CONSENT not in restrictions
        )
        return has_consent or has_interest

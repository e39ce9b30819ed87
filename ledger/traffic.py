"""Invalid traffic one can tell when an event arrives. It is recorded with its reason, never charged.

Only robots that declare themselves are taken by their name: programs that speak HTTP for a shop's own server hold
sealed tokens honestly, and so does a headless browser in a shop's test.
"""

import re
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

ROBOT = "robot"
DATA_CENTRE = "data_centre"
CLICK_WITHOUT_IMPRESSION = "click_without_impression"
CLICK_TOO_FAST = "click_too_fast"
REPEATED_CLICK = "repeated_click"
FLOOD = "flood"
SWEPT_PAGE = "swept_page"
REGULAR_CLICKS = "regular_clicks"
CLICKS_WITHOUT_VIEW = "clicks_without_view"
PLACEMENT_PATTERN = "placement_pattern"

# Every rule with its version; one whose verdicts would change gets the next. The first are those of the intake, the
# others can only be told afterwards (see `inspection.py`), which also looks for floods and repeated clicks again.
RULES = {
    ROBOT: 2,
    DATA_CENTRE: 1,
    CLICK_WITHOUT_IMPRESSION: 1,
    CLICK_TOO_FAST: 1,
    REPEATED_CLICK: 2,
    FLOOD: 1,
    SWEPT_PAGE: 1,
    REGULAR_CLICKS: 1,
    CLICKS_WITHOUT_VIEW: 1,
    PLACEMENT_PATTERN: 1,
}
INVALID_CODES = frozenset(RULES)

CLICK_AFTER_MS_MIN = 300  # nobody sees a product, decides and presses any sooner
KNOWN_CLICK_COUNT_MAX = 200_000

# `bot` ending a word or before a version, not in "Cubot" (a maker of telephones); then what no browser says of itself:
# where to complain (an address, a domain), that it is compatible with one, and the words of the trade.
_ROBOT = re.compile(
    r"(?<!cu)bot(?![a-z])|https?:|www\.|\w@[a-z][\w.-]*\.[a-z]{2}|\w\.(?:com|io|net|org|ai|eu)\b|"
    r"\(compatible; (?!msie|konqueror)|"
    r"crawl|spider|slurp|archiv(?:e|ing)|scrap(?:e|y)|harvest|"
    r"preview|unfurl|favicon|externalhit|whatsapp/|"
    r"monitor|uptime|pingdom|lighthouse|synthetic|"
    r"validator|verif(?:y|ication)|check(?:er|link|host)?\b|scan(?:ner)?\b|audit|analy[sz]er|"
    r"fetch(?:er|or)?\b|retriever|feed(?!back)|\brss|proxy|webhook|index(?:er|ing)|search(?:engine)?\b|\bseo|"
    r"link ?(?:check|dex|lint)|mediapartners|google-(?:read|inspection|extended|safety|site)|screenshot|dataset|"
    r"[a-z]-?ai\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def declares_robot(user_agent: str) -> bool:
    """Say whether a user agent calls itself a robot."""
    return _ROBOT.search(user_agent) is not None


@lru_cache(maxsize=4)
def parse_ranges(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the address ranges of a text such as `192.0.2.0/24, 2001:db8::/32`.

    Raises:
        ValueError: one of them is no range.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


@lru_cache(maxsize=16_384)
def is_in_ranges(address: str, ranges: str) -> bool:
    """Say whether an address is in one of the ranges; what is no address is in none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in one for one in parse_ranges(ranges))


ClickKey = tuple[bytes, str, str]  # visitor, campaign, product


class RecentClicks:
    """When each visitor last clicked each product for each campaign.

    Of bounded size, and forgotten by a restart: then a repeated click may be charged once more.
    """

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._last_ms: OrderedDict[ClickKey, int] = OrderedDict()

    def repeats(self, key: ClickKey, at_ms: int, latest_ms: int | None) -> bool:
        """Say whether a click follows another charged one too closely; `latest_ms` is one not noted yet, or None."""
        last_ms = self._last_ms.get(key) if latest_ms is None else latest_ms
        return last_ms is not None and 0 <= at_ms - last_ms < self._window_ms

    def note(self, key: ClickKey, at_ms: int) -> None:
        """Take note of a click that was charged."""
        self._last_ms[key] = at_ms
        self._last_ms.move_to_end(key)
        if len(self._last_ms) > KNOWN_CLICK_COUNT_MAX:
            self._last_ms.popitem(last=False)

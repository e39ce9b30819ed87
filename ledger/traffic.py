"""Invalid traffic one can tell when an event arrives. It is recorded with its reason, never charged.

Only robots that declare themselves are taken by their name: programs that speak HTTP for a shop's own server hold
sealed tokens honestly, and so does a headless browser in a shop's test.
"""

import re
from functools import lru_cache

ROBOT = "robot"
CLICK_WITHOUT_IMPRESSION = "click_without_impression"

# `bot` as a word's end or before a version, not in "Cubot" (a maker of telephones); then words crawlers call
# themselves by, and the fetchers behind previews of shared links.
_ROBOT = re.compile(
    r"(?<!cu)bot(?![a-z])|crawl|spider|slurp|archiver|scrap(?:er|y)|mediapartners|facebookexternalhit|bingpreview|"
    r"lighthouse|pingdom|uptime|feedfetcher|favicon|google-(?:read|inspection|extended|safety)|whatsapp/|ahrefs|"
    r"preview\b|monitor(?:ing)?\b|validator",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def declares_robot(user_agent: str) -> bool:
    """Say whether a user agent calls itself a robot."""
    return _ROBOT.search(user_agent) is not None

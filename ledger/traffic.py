"""Invalid traffic one can tell when an event arrives. It is recorded with its reason, never charged.

Only robots that declare themselves are taken by their name: programs that speak HTTP for a shop's own server hold
sealed tokens honestly, and so does a headless browser in a shop's test.
"""

import re
from functools import lru_cache

ROBOT = "robot"
CLICK_WITHOUT_IMPRESSION = "click_without_impression"

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

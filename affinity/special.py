"""Special categories of personal data (GDPR, article 9): segments that tell of them are neither kept nor aimed at.

Names are compared with a list of terms: health, religion, politics, sexuality, ethnicity, union membership, genetics
and biometrics, in English and French. A list finds names that say what they are; it cannot find what a name hides.
"""

import re
import unicodedata
from functools import lru_cache

from affinity.errors import SpecialCategoryRefused
from affinity.profile import ProfileDraft

DEFAULT_TERMS = (
    "health*, sante, medical*, medica*, illness*, disease*, malad*, patient, patients, diagnos*, disabilit*, "
    "handicape*, diabet*, cancer*, oncolog*, asthma*, allerg*, hiv, aids, covid*, depress*, psychiatr*, "
    "psycholog*, mental, addiction*, alcoholi*, obes*, pregnan*, enceinte*, grossesse*, fertility, infertil*, "
    "menopaus*, incontinen*, chemotherap*, genetic*, genetique*, biometr*, religio*, faith, christian*, "
    "catholic*, catholique*, protestant*, orthodox*, muslim*, musulman*, islam*, jew, jews, jewish, juif*, "
    "juive*, judais*, hindu*, buddhis*, bouddhis*, sikh*, atheis*, athee*, halal, kosher, casher, politic*, "
    "politique*, republican*, democrat*, socialist*, communist*, voter*, electeur*, election*, sexual*, sexuel*, "
    "sex life, gay, gays, lesbian*, lesbien*, bisexual*, bisexuel*, homosexu*, transgender*, transgenre*, lgbt*, "
    "queer*, ethni*, race, racial*, afro american*, hispanic*, latino*, latina*, arab, arabs, romani, migrant*, "
    "immigr*, union, unions, unionis*, syndica*, syndique*"
)


KNOWN_COUNT_MAX = 10_000  # names looked at that are remembered


class SpecialCategories:
    """The terms of one deployment.

    Args:
        terms: separated by commas; one or several words each, `*` at a word's end standing for any ending. Accents and
            case do not count. None are refused where it is empty.
    """

    def __init__(self, terms: str = DEFAULT_TERMS) -> None:
        patterns = [_pattern(term) for term in terms.split(",") if _words(term.replace("*", ""))]
        self._pattern = re.compile("|".join(f"(?: {one} )" for one in patterns)) if patterns else None
        self._known: dict[str, bool] = {}

    def is_special(self, name: str) -> bool:
        """Say whether a name tells of a special category: whether one of the terms is among its words."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= KNOWN_COUNT_MAX:
                self._known.clear()
            is_special = self._pattern is not None and self._pattern.search(f" {_words(name)} ") is not None
            known = self._known[name] = is_special
        return known

    def check(self, name: str, pointer: str | None) -> None:
        """Refuse a name of a segment or an attribute that tells of a special category.

        Raises:
            SpecialCategoryRefused: it does.
        """
        if self.is_special(name):
            raise SpecialCategoryRefused(
                f"{name!r} tells of a special category of personal data (health, religion, politics, sexuality, "
                "ethnicity, union membership …), which is neither kept nor aimed at; ENDCAP_SPECIAL_CATEGORY_TERMS "
                "lists the terms",
                pointer,
            )

    def check_profile(self, profile: ProfileDraft) -> None:
        """Refuse a profile whose segments, or names or whole values of attributes, tell of a special category.

        Raises:
            SpecialCategoryRefused: with the pointer of the first that does.
        """
        for row, segment_id in enumerate(profile.segments):
            self.check(segment_id, f"/segments/{row}")
        for name, value in profile.attributes.items():
            self.check(name, f"/attributes/{name}")
            if isinstance(value, str) and self.is_value(value):
                self.check(value, f"/attributes/{name}")

    def is_value(self, value: str) -> bool:
        """Say whether an attribute's value is one of the terms and nothing else: `catholic`, not `Christian Dior`."""
        return self._pattern is not None and self._pattern.fullmatch(f" {_words(value)} ") is not None


@lru_cache(maxsize=4)
def special_categories(terms: str) -> SpecialCategories:
    """Return the terms, compiled once."""
    return SpecialCategories(terms)


def _words(name: str) -> str:
    """Return a name's words, without case and accents, a blank between them; `tradeUnion` and `trade_union` are two."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    bare = "".join(one for one in unicodedata.normalize("NFKD", parted) if not unicodedata.combining(one))
    return " ".join(re.findall(r"[^\W_]+", bare.casefold()))


def _pattern(term: str) -> str:
    return " ".join(re.escape(_words(word)) + (r"[^ ]*" if word.endswith("*") else "") for word in term.split())

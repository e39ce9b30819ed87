"""The visitors one may be in the demo shop, told apart by what is known of them."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR
from affinity.profile import ProfileLine

PROMOTION_HIGH, PROMOTION_LOW = 60.0, 40.0  # promophile scores; 50 is the shop's usual


class TellingVisitor(Struct, frozen=True):
    """A household that differs from the others in a way anybody sees.

    Attributes:
        categories: the two categories it buys more of than others do.
    """

    visitor_id: str
    categories: list[str]


class Known(Struct, frozen=True):
    """What the engine computed of a visitor from what they bought."""

    rfm: str | None
    promophile: float | None


class Who(Struct, frozen=True, kw_only=True):
    """A visitor in words; no visitor id is the stranger."""

    visitor_id: str | None
    name: str
    label: str
    facts: list[str]


class Visitors:
    """The choices of "Who am I?".

    Args:
        telling: the households one may be, in the order they are offered.
        profiles: profile of each.
        known: what the engine knows of a visitor now.
    """

    def __init__(
        self,
        telling: Sequence[TellingVisitor],
        profiles: Mapping[str, ProfileLine],
        known: Callable[[str], Known],
    ) -> None:
        self._telling = {visitor.visitor_id: visitor for visitor in telling}
        self._profiles = profiles
        self._known = known
        self._default = telling[0].visitor_id if telling else None

    def chosen(self, cookie: str | None) -> str | None:
        """Return the visitor a cookie stands for; the first one for a newcomer, None for the stranger."""
        if cookie in self._telling:
            return cookie
        return None if cookie == "stranger" else self._default

    def describe(self, visitor_id: str | None, words: Mapping[str, str]) -> Who:
        """Return a visitor in words."""
        if visitor_id is None:
            return Who(visitor_id=None, name=words["stranger"], label=words["stranger"], facts=[])
        name = f"{words['household']} {visitor_id.rpartition('-')[2]}"
        known = self._known(visitor_id)
        categories = self._telling[visitor_id].categories
        facts = [category.rpartition(CATEGORY_SEPARATOR)[2].lower() for category in categories]
        told = facts[:1]
        if known.rfm is not None:
            facts.append(words["rfm_" + known.rfm])
            told.append(facts[-1])
        if known.promophile is not None:
            facts.append(_promotion_words(known.promophile, words))
            if not PROMOTION_LOW < known.promophile < PROMOTION_HIGH:
                told.append(facts[-1])
        profile = self._profiles.get(visitor_id)
        if profile is not None:
            age, kids = profile.attributes.get("age"), profile.attributes.get("kids_count")
            if age:
                facts.append(f"{age} {words['years']}")
            if kids and kids != "0":
                facts.append(f"{kids} {words['kid' if kids == '1' else 'kids']}")
        return Who(visitor_id=visitor_id, name=name, label=f"{name}: {', '.join(told)}", facts=facts)

    def everybody(self, words: Mapping[str, str]) -> list[Who]:
        """Return every choice in words, the stranger last."""
        return [self.describe(visitor_id, words) for visitor_id in [*self._telling, None]]


def _promotion_words(promophile: float, words: Mapping[str, str]) -> str:
    if promophile >= PROMOTION_HIGH:
        return words["promo_high"]
    return words["promo_low"] if promophile <= PROMOTION_LOW else words["promo_mid"]

"""Special categories of personal data: names that tell of them are found, names that only sound like them are not."""

import pytest

from affinity.errors import SpecialCategoryRefused
from affinity.profile import ProfileDraft
from affinity.special import SpecialCategories

SPECIAL = SpecialCategories()


@pytest.mark.parametrize(
    "name",
    [
        "health", "Diabetics", "allergy-sufferers", "crm:pregnant", "isPregnant", "HIV_positive", "en_situation: santé",
        "religion", "Catholics", "muslim customers", "judaïsme", "halal", "political_left", "likely-voters", "gay",
        "LGBTQ+", "sexual orientation", "sex life", "ethnicity", "trade_union", "tradeUnionMember", "syndiqués",
        "DISEASED",
    ],
)  # fmt: skip
def test_what_a_name_says_is_found_however_it_is_written(name: str) -> None:
    assert SPECIAL.is_special(name)


@pytest.mark.parametrize(
    "name",
    [
        "vip", "rfm-champion", "baby", "organic", "fertiliser buyers", "golf_handicap", "shoe addicts",
        "arabica lovers",
        "selection", "Essex", "sextant", "reunion", "notifications_disabled", "trace", "jewellery", "",
    ],
)  # fmt: skip
def test_what_only_sounds_like_it_is_not(name: str) -> None:
    assert not SPECIAL.is_special(name)


def test_the_terms_are_the_operators() -> None:
    own = SpecialCategories("Pêche à la ligne, golf*, ,")
    assert own.is_special("club: peche a LA ligne")
    assert own.is_special("golfers")
    assert not own.is_special("ligne")
    assert not own.is_special("health")
    assert not SpecialCategories("").is_special("health")
    assert not SpecialCategories(" , *").is_special("health")


def test_of_a_profile_names_count_and_values_where_they_are_nothing_else() -> None:
    SPECIAL.check_profile(ProfileDraft(segments=["vip"], attributes={"brand": "Christian Dior", "age": 4}))
    for profile, pointer in (
        (ProfileDraft(segments=["vip", "diabetics"]), "/segments/1"),
        (ProfileDraft(attributes={"religion": 1}), "/attributes/religion"),
        (ProfileDraft(attributes={"interest": " Christian "}), "/attributes/interest"),
    ):
        with pytest.raises(SpecialCategoryRefused) as refused:
            SPECIAL.check_profile(profile)
        assert refused.value.pointer == pointer

"""What is kept of a customer beside their navigation: segments, attributes and computed scores."""

from typing import Annotated

from msgspec import Meta, Struct

from affinity.catalog import Attribute, AttributeName
from affinity.navigation import VisitorId

SegmentId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]


class ProfileDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/profiles/{visitor_id}`: the whole profile, replaced."""

    segments: Annotated[list[SegmentId], Meta(max_length=200)] = []
    attributes: Annotated[dict[AttributeName, Attribute], Meta(max_length=100)] = {}


class ProfileLine(ProfileDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `endcap profiles import`."""

    visitor_id: VisitorId

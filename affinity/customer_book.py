"""What the database holds of customers beside their CRM profiles, in memory: computed profiles and segment entries.

A visitor's record rests on it: what was computed, and what the visitor bought since.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec
from msgspec import Struct

from affinity.computed import CustomerScale
from affinity.customers import ComputedProfile, SegmentEntry
from affinity.record import ProductFacts, VisitorRecord

Entered = Mapping[tuple[str, str], int]

ENTRY_COUNT_MAX = 256  # of one visitor, the latest
NOWHERE: Entered = MappingProxyType({})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ComputedProfile).decode


class _Computed(Struct):
    """A computed profile's moment alone, which is read each time a record is made ready."""

    through_ms: int


_decode_moment = msgspec.json.Decoder(_Computed).decode


class CustomerBook:
    """Computed profiles and segment entries, by pseudonym.

    Attributes:
        computed: what was computed of each visitor, as JSON: it is read once a night, and takes a third of the room.
        scale: how the shop's customers compare, as computed last; None before the first time.
    """

    def __init__(self) -> None:
        self.scale: CustomerScale | None = None
        self.computed: dict[bytes, bytes] = {}
        self._entered: dict[bytes, dict[tuple[str, str], int]] = {}
        self._steps: dict[tuple[str, str], tuple[str, str]] = {}  # each once, however many visitors took it

    def __contains__(self, pseudonym: bytes) -> bool:
        """Say whether anything was computed of the visitor."""
        return pseudonym in self.computed

    def put(self, pseudonym: bytes, computed: ComputedProfile) -> None:
        """Take over what was computed of a visitor."""
        self.computed[pseudonym] = _encode(computed)

    def enter(self, entries: Iterable[SegmentEntry]) -> set[bytes]:
        """Take over entries into segments; return whose they were."""
        touched = set()
        for pseudonym, segment_id, origin, at_ms in entries:
            entered = self._entered.setdefault(pseudonym, {})
            step = self._steps.setdefault((segment_id, origin), (segment_id, origin))
            entered[step] = max(at_ms, entered.get(step, 0))
            if len(entered) > ENTRY_COUNT_MAX:
                del entered[min(entered, key=entered.__getitem__)]
            touched.add(pseudonym)
        return touched

    def entered(self, pseudonyms: Iterable[bytes]) -> Entered:
        """Return when somebody known under any of the pseudonyms entered each segment last, and from where."""
        found = [self._entered[one] for one in pseudonyms if one in self._entered]
        if len(found) < 2:
            return found[0] if found else NOWHERE
        latest: dict[tuple[str, str], int] = {}
        for entered in found:
            for key, at_ms in entered.items():
                latest[key] = max(at_ms, latest.get(key, 0))
        return latest

    def support(self, record: VisitorRecord, facts: Mapping[str, ProductFacts]) -> None:
        """Let a visitor's own record rest on what was computed of them, where it does not yet."""
        kept = self.computed.get(record.pseudonym)
        if kept is not None and record.purchases.through_ms != _decode_moment(kept).through_ms:
            computed = _decode(kept)
            record.rest_on(computed.purchases, computed.bought, computed.through_ms, facts)

    def forget(self, pseudonyms: Iterable[bytes]) -> None:
        """Drop everything kept under the pseudonyms."""
        for pseudonym in pseudonyms:
            self.computed.pop(pseudonym, None)
            self._entered.pop(pseudonym, None)

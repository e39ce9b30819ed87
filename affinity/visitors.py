"""Every visitor's state, in memory and bounded, behind a dict look-up; fed by the navigation log.

One process, one thread changes it. Devices of one customer keep records of their own beside the customer's, which is
their sum: so a link can be undone, and erasing a customer finds every device.
"""

import gc
import random
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from affinity.audience import Audience
from affinity.audience_size import AudienceSizes, count_members
from affinity.computed import DAY_MS, CustomerScale, Purchases, measure_customers
from affinity.consent import ConsentReader
from affinity.customer_book import CustomerBook
from affinity.customers import ComputedProfile, SegmentEntry
from affinity.errors import EventInFuture, EventTooOld, LinkRefused, RecordFileRefused
from affinity.ga4 import name_purchase
from affinity.held import HeldOrder
from affinity.matching import Happening, holding_rows
from affinity.model import BoundModel
from affinity.navigation import Action, ConsentSignal, NavigationBatch, NavigationEvent
from affinity.navigation_log import CLICKED, FILL_ACTIONS, RENDERED, SERVED, WITHDRAWN, LogLine, NavigationLog, line_of
from affinity.orders import Source, ToldPurchases
from affinity.packing import Names
from affinity.pattern import NavigationPattern
from affinity.product_sets import NO_SETS, ProductSets
from affinity.profile import ProfileDraft
from affinity.pseudonym import NO_VISITOR, Pseudonymizer
from affinity.record import ProductFacts, VisitorRecord
from affinity.record_file import Header, Keeping, Part, draft_of, read_record_file, settled
from affinity.records import Packed, VisitorRecords
from affinity.retention import forget_before
from affinity.settings import Settings
from affinity.targets import Targets, compile_targets
from affinity.view import VisitorView, anonymous_view, view_visitor

ANYBODY = Audience(counter="order_count", at_least=0)
_ACTIONS = {action.value: action for action in Action}
REFUSED_COUNT_MAX = 50_000
UNSURE_COUNT_MAX = 10_000
DROP_COUNT = 500  # records looked at between two requests


class Recorded(Struct, frozen=True, omit_defaults=True):
    """What became of a batch of events; `ignored` are those of GA4's that tell of nothing we keep."""

    recorded: int
    duplicates: int
    ignored: int = 0


class VisitorStore:
    """The visitors of one deployment.

    Attributes:
        records: everybody's.
        customers: what was computed of customers, and which segments visitors entered.
        forgotten_count: how often somebody was forgotten.
        given_back_count: fills taken back from frequency caps and visitors' limits because they never rendered.
        also_forget: who else keeps something under pseudonyms, told which are forgotten.
        withdrawn: who withdrew consent and is not out of the log and the database yet.
        unsure: what became of fills of visitors this process does not hold.
        unkept_count: changes since the record file was written last.
        wrote: told whose lines are in the log, or will be with the next `flush`; None where nobody shares visitors.
        shared_count: how many visitors there are where several processes share them; 0 where they do not.
        record_file_refusal: why `load` could not use the record file; None where it did, or where there was none.

    Args:
        settings: this package's.
        pseudonymizer: turns raw ids into what visitors are kept under.
        log: where events are appended before they count; None keeps nothing on disk (simulation).
        facts: what navigation needs to know of each product (`record.read_facts`).
        record_path: where `begin_keeping` writes all records, for the next start to read; None: nowhere.
    """

    def __init__(
        self,
        settings: Settings,
        pseudonymizer: Pseudonymizer,
        log: NavigationLog | None = None,
        facts: Mapping[str, ProductFacts] | None = None,
        record_path: Path | None = None,
    ) -> None:
        self.settings = settings
        self.pseudonymizer = pseudonymizer
        self.log = log
        self.facts: Mapping[str, ProductFacts] = {} if facts is None else facts  # may be filled later
        self.scale = CustomerScale()
        self.profile_seq = -1
        self.records = VisitorRecords(settings, self._complete)
        self._customers: OrderedDict[bytes, VisitorRecord] = OrderedDict()
        self._customer_of: dict[bytes, bytes] = {}
        self._devices: dict[bytes, list[bytes]] = {}
        self._profiles: dict[bytes, ProfileDraft] = {}
        self._events_seen: tuple[set[int], set[int]] = (set(), set())
        self._event_numbers = (array("q"), array("q"))  # the same, as the record file has them
        self._served_lines: list[LogLine] = []
        self.customers = CustomerBook()
        self.forgotten_count = 0
        self._sizes = AudienceSizes(settings.audience_size_min, lambda: map(self._known, self._pseudonyms()))
        self.given_back_count = 0
        self.also_forget: list[Callable[[set[bytes]], None]] = []
        self._read_segments: set[str] = set()
        self._reading: Iterator[LogLine] | None = None
        self.withdrawn: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._told = ToldPurchases()
        self._consents = ConsentReader(settings)
        self._forgotten: set[bytes] = set()  # while a file is read that may still hold them
        self._record_path = record_path
        self._keeping: Keeping | None = None
        self._is_loading = False
        self.unkept_count = 0
        self.record_file_refusal: str | None = None
        self.wrote: Callable[[Iterable[bytes]], None] | None = None
        self.shared_count = 0
        self.unsure: list[LogLine] = []

    def __len__(self) -> int:
        """Return how many visitors' state is kept."""
        return len(self.records)

    # --- events --------------------------------------------------------------------------------------------------

    def post(
        self, batch: NavigationBatch, now_ms: int, *, is_trusted: bool = True, places: Sequence[int] | None = None
    ) -> Recorded:
        """Take a batch of events in: all of it is in the log when this returns, or nothing is.

        Where consent is refused nothing is kept, and what was known of these visitors is dropped. Events are checked
        in their order, each for its time.

        Args:
            batch: consent left out is given.
            now_ms: UTC, milliseconds since 1970.
            is_trusted: whether who sends it may speak for customers; see `withdraw`.
            places: of each event, its place among those that were sent, for refusals; None where they are the same.

        Raises:
            ConsentUnreadable: the consent cannot be read.
            EventInFuture: an event lies further in the future than clocks differ.
            EventTooOld: an event is later than late events may be.
            LogUnwritable: the log cannot be written.
        """
        lateness_ms = self.settings.event_lateness_s * 1000
        times: list[int] = []
        for index, event in enumerate(batch.events):
            at_ms = int(event.occurred_at.timestamp() * 1000)
            place = index if places is None else places[index]
            self._check_not_ahead(event, now_ms, f"/events/{place}/occurred_at")
            if at_ms < now_ms - lateness_ms:
                raise EventTooOld(
                    f"occurred_at may be at most {self.settings.event_lateness_s} s ago, "
                    f"was {(now_ms - at_ms) // 1000} s; import what is older",
                    f"/events/{place}/occurred_at",
                )
            times.append(at_ms)
        if batch.consent is not None and not self._consents.allows(batch.consent):
            self._hear_refusal({event.visitor_id for event in batch.events}, now_ms, is_trusted)
            return Recorded(0, 0)
        lines: list[LogLine] = []
        fresh: set[int] = set()
        for event, at_ms in zip(batch.events, times, strict=True):
            line = self.line_of(event, at_ms)
            if line.pseudonym in self._refused:
                self._begin_anew(line.pseudonym, now_ms)
            if line.event:
                if line.event in fresh or self._has_seen(line.event):
                    continue
                fresh.add(line.event)
            if event.action is Action.PURCHASE and not self._is_news(Source.NAVIGATION, line):
                continue
            lines.append(line)
        if self.log is not None:
            self.log.append([*self._served_lines, *lines], now_ms)
            self._served_lines.clear()
        for number in fresh:
            self._remember(number)
        for line in lines:
            self._apply(line, now_ms)
        self.unkept_count += len(lines)
        if self.wrote is not None:
            self.wrote(line.pseudonym for line in lines)
        return Recorded(len(lines), len(batch.events) - len(lines))

    def refuses(self, consent: ConsentSignal | None) -> bool:
        """Say whether a batch with this consent would be refused: what is said is not yes.

        Raises:
            ConsentUnreadable: the consent cannot be read.
        """
        return consent is not None and not self._consents.allows(consent)

    def line_of(self, event: NavigationEvent, at_ms: int) -> LogLine:
        """Return the event as it is logged, its ids hashed."""
        return line_of(event, at_ms, self.pseudonymizer.of(event.visitor_id), self.pseudonymizer)

    def note_order(self, order: HeldOrder, visitor: bytes | None, customer: bytes | None, now_ms: int) -> int:
        """Take what an order bought into the profile of its customer, or else of its visitor, if they are known.

        Somebody nothing is known of has not agreed to be: their orders follow when they do, see `is_known`. A line
        counts once, however often its order is told of; one that the page reported as well does too. What came back
        is not taken out.

        Returns: how many lines were news; they are in the log.

        Raises:
            LogUnwritable: the log cannot be written; nothing was taken in.
        """
        pseudonym = next((one for one in (customer, visitor) if one is not None and self.is_known(one)), None)
        at_ms = min(int(order.occurred_at.timestamp() * 1000), now_ms)
        if pseudonym is None or at_ms < self.oldest_kept_ms(now_ms):
            return 0
        lines: list[LogLine] = []
        occurrences: Counter[str] = Counter()
        for bought in order.lines:
            if bought.quantity <= 0:
                continue
            occurrences[bought.product_id] += 1
            name = name_purchase(order.order_id, bought.product_id, occurrences[bought.product_id])
            line = LogLine(
                pseudonym,
                at_ms,
                Action.PURCHASE.value,
                self.pseudonymizer.of_event(name, NO_VISITOR),
                bought.product_id,
                None,
                bought.unit_price_micros,
                bought.quantity,
            )
            if not self._has_seen(line.event) and (order.channel == "store" or self._is_news(Source.ORDER, line)):
                lines.append(line)
        if self.log is not None:
            self.log.append(lines, now_ms)
        for line in lines:
            self._remember(line.event)
            self._apply(line, now_ms)
        if self.wrote is not None:
            self.wrote(line.pseudonym for line in lines)
        return len(lines)

    def note_served(
        self, pseudonym: bytes, bid_id: str, now_ms: int, placement_id: str = "", slot_position: int = 0
    ) -> None:
        """Count that a visitor was shown a bid; logged with the next events, or by `flush`.

        Args:
            pseudonym: whom.
            bid_id: a bid with a frequency cap, or "".
            now_ms: when.
            placement_id: where, or "".
            slot_position: in it.
        """
        self._note_fill(LogLine(pseudonym, now_ms, SERVED, 0, bid_id, placement_id, None, slot_position))

    def note_rendered(self, pseudonym: bytes, served_at_ms: int, placement_id: str, slot_position: int) -> None:
        """Note that what was served then was reported as rendered, so that it counts for good."""
        self._note_after_fill(LogLine(pseudonym, served_at_ms, RENDERED, 0, None, placement_id, None, slot_position))

    def note_clicked(self, pseudonym: bytes, placement_id: str, now_ms: int) -> None:
        """Note that a visitor clicked a sponsored product of a placement."""
        self._note_after_fill(LogLine(pseudonym, now_ms, CLICKED, 0, None, placement_id))

    def take_unsure(self) -> list[LogLine]:
        """Return what became of fills of visitors this process does not hold, who may have been erased since."""
        taken, self.unsure = self.unsure, []
        return taken

    def note_sure(self, lines: Iterable[LogLine]) -> None:
        """Take in what `take_unsure` returned, of visitors who are known."""
        for line in lines:
            self._note_fill(line)

    def _note_after_fill(self, line: LogLine) -> None:
        if line.pseudonym in self.records:  # not where the visitor was erased since
            self._note_fill(line)
        elif self.wrote is not None and len(self.unsure) < UNSURE_COUNT_MAX:
            self.unsure.append(line)
            self.wrote(())

    def _note_fill(self, line: LogLine) -> None:
        if line.pseudonym in self._refused:
            self._begin_anew(line.pseudonym, line.at_ms)
        _apply_fill(line, self._records_of(line.pseudonym, 0))
        self.unkept_count += 1
        if self.log is not None:
            self._served_lines.append(line)
        if self.wrote is not None:
            self.wrote((line.pseudonym,))

    def flush(self, now_ms: int) -> None:
        """Log what is not logged yet; to be called every second or so, and at the end.

        Raises:
            LogUnwritable: the log cannot be written; it is kept for the next time.
        """
        if self.log is not None and self._served_lines:
            self.log.append(self._served_lines, now_ms)
            self._served_lines.clear()

    def _is_news(self, source: Source, line: LogLine) -> bool:
        """Say whether a purchase was not told of already by the other one who tells of them."""
        return line.product_id is None or self._told.is_news(
            source, self.person(line.pseudonym), line.product_id, line.at_ms
        )

    # --- what is known of a visitor ------------------------------------------------------------------------------

    def pseudonym(self, visitor_id: str) -> bytes:
        """Return what a visitor is kept under."""
        return self.pseudonymizer.of(visitor_id)

    def is_known(self, pseudonym: bytes) -> bool:
        """Say whether anything is known of a visitor or customer: what they did, a profile, or a link."""
        return any(pseudonym in known for known in (self.records, self._profiles, self._customer_of, self._devices))

    def record(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return what is known of the visitor, or of the customer they are linked to; None where nothing is."""
        person = self._customer_of.get(pseudonym, pseudonym)
        if person in self._devices:
            return self._customer_record(person)
        record = self.records.get(pseudonym)
        if record is None and (pseudonym in self._profiles or pseudonym in self.customers):
            record = self.records.open(pseudonym, 0)
        return record

    def view(
        self,
        visitor_id: str | None,
        consent: ConsentSignal | None,
        targets: Targets,
        model: BoundModel,
        now_ms: int,
        navigation: Sequence[NavigationEvent] = (),
        *,
        recalls: bool = False,
    ) -> VisitorView:
        """Return what an auction now may know of a visitor.

        Args:
            visitor_id: as the request names them; without one, or without consent, the view is anonymous.
            consent: the request's; None where it says nothing.
            targets: those of the snapshot the auction reads.
            model: bound to the products of that snapshot.
            now_ms: moment of the auction.
            navigation: events the caller keeps itself and sends along: known for this auction only.
            recalls: also say what the visitor viewed last and has in the cart.

        Raises:
            ConsentUnreadable: the consent cannot be read.
            EventInFuture: one of them lies further in the future than clocks differ.
        """
        for index, event in enumerate(navigation):
            self._check_not_ahead(event, now_ms, f"/navigation/{index}/occurred_at")
        if not self._consents.allows(consent) or (visitor_id is None and not navigation):
            return anonymous_view(targets)
        pseudonym = bytes(16) if visitor_id is None else self.pseudonymizer.of(visitor_id)
        record = None if visitor_id is None else self.record(pseudonym)
        if record is not None and record.unrendered:
            self.records.touch(record.pseudonym)
            self.given_back_count += record.give_back(now_ms - self.settings.render_wait_s * 1000)
        if navigation:
            record = self._with(record, pseudonym, navigation)
        return view_visitor(
            record,
            targets,
            model,
            now_ms,
            pseudonym=pseudonym,
            settings=self.settings,
            scale=self.scale,
            targetable=self._sizes.of(targets),
            recalls=recalls,
        )

    def count_audiences(self, targets: Targets, s_max: float, now_ms: int) -> int:
        """Look at more persons for about so many seconds, to learn which audiences are large enough to be targeted.

        Returns:
            How many were looked at; 0 where there is nothing to do now.
        """
        self._sizes.of(targets)
        return self._sizes.count(s_max, self.scale, now_ms)

    def profile(self, pseudonym: bytes) -> ProfileDraft | None:
        """Return the visitor's profile: the linked customer's, if there is one."""
        person = self._customer_of.get(pseudonym, pseudonym)
        found = self._profiles.get(person)
        if found is None and person in self._devices:
            found = next((self._profiles[one] for one in self._devices[person] if one in self._profiles), None)
        return found

    def own_profile(self, pseudonym: bytes) -> ProfileDraft | None:
        """Return the profile that was set for this very visitor, whoever they are linked to."""
        return self._profiles.get(pseudonym)

    def person(self, pseudonym: bytes) -> bytes:
        """Return the pseudonym of the customer the visitor is linked to, the visitor's own where there is none."""
        return self._customer_of.get(pseudonym, pseudonym)

    def measure(self) -> None:
        """Measure how the shop's customers compare, where they were never computed; at start and every so often."""
        if self.customers.scale is not None:
            return
        self.scale = measure_customers(self._purchases())
        for record in [*self.records.ready(), *self._customers.values()]:
            if record.purchases.order_count:
                record.view = None

    def count_matching(
        self,
        audience: Audience | None,
        pattern: NavigationPattern | None,
        now_ms: int,
        sets: ProductSets = NO_SETS,
    ) -> int | None:
        """Return about how many visitors are in the audience and have the pattern now; None under the least shown.

        Counted over all visitors there are, or scaled up from a sample of them, and rounded down (`count_members`). May
        run beside the thread that changes them.

        Args:
            audience: None for everybody.
            pattern: None for none.
            now_ms: the moment asked about.
            sets: which products the pattern's product targets are about.
        """
        persons = list(self._pseudonyms())
        sample_size = self.settings.audience_sample_size
        sample = persons if len(persons) <= sample_size else random.Random(0).sample(persons, sample_size)
        records: Iterator[VisitorRecord] = map(self._known, sample)
        if pattern is not None:
            targets = compile_targets([], [pattern], sets=sets)
            records = (record for record in records if self._has_pattern(record, targets, now_ms))
        return count_members(
            audience or ANYBODY,
            records,
            self.scale,
            now_ms,
            self.settings.audience_size_min,
            max(len(persons), self.shared_count) / len(sample) if sample else 1.0,
        )

    # --- profiles, links, erasure --------------------------------------------------------------------------------

    def put_profile(self, pseudonym: bytes, profile: ProfileDraft) -> None:
        """Set the profile of a visitor, or of the customer they are linked to."""
        person = self._customer_of.get(pseudonym, pseudonym)
        self._profiles[person] = profile
        self._show_profile(person)

    def put_profiles(self, profiles: Iterable[tuple[bytes, ProfileDraft]]) -> None:
        """Set profiles as the database keeps them, but for those who withdrew consent and are not out of it yet."""
        for pseudonym, profile in profiles:
            if pseudonym in self.withdrawn:
                continue
            self._profiles[pseudonym] = profile
            self._show_profile(pseudonym)

    def drop_profiles(self, pseudonyms: Iterable[bytes]) -> None:
        """Take back profiles that are not in the database any more."""
        for pseudonym in pseudonyms:
            if self._profiles.pop(pseudonym, None) is not None:
                self._show_profile(pseudonym)

    def put_computed(self, computed: Iterable[tuple[bytes, ComputedProfile]]) -> None:
        """Take over what was computed of visitors, as the database keeps it."""
        for pseudonym, one in computed:
            self.customers.put(pseudonym, one)
            record = self.records.get_ready(pseudonym)
            if record is not None:  # others rest on it as soon as they are looked at
                self.records.touch(pseudonym)
                self.customers.support(record, self.facts)
            self._customers.pop(self.person(pseudonym), None)

    def put_entries(self, entries: Iterable[SegmentEntry]) -> None:
        """Take over which segments visitors entered, as the database keeps it."""
        for pseudonym in self.customers.enter(entries):
            self._show_profile(pseudonym)

    def put_scale(self, scale: CustomerScale | None) -> None:
        """Take over how customers compare, as it was computed; None before it ever was."""
        if scale is None or scale == self.customers.scale:
            return
        self.customers.scale = self.scale = scale
        for record in [*self.records.ready(), *self._customers.values()]:
            record.view = None

    def link(self, pseudonym: bytes, customer_pseudonym: bytes) -> None:
        """Join a visitor to a customer: from now on they are known together.

        Raises:
            LinkRefused: the visitor is the customer, has devices of its own, or is linked to another customer; or the
                customer is itself linked.
        """
        self.check_link(pseudonym, customer_pseudonym)
        if self._customer_of.get(pseudonym) == customer_pseudonym:
            return
        self._customer_of[pseudonym] = customer_pseudonym
        self._devices.setdefault(customer_pseudonym, []).append(pseudonym)
        self._customers.pop(customer_pseudonym, None)

    def check_link(self, pseudonym: bytes, customer_pseudonym: bytes) -> None:
        """Say whether `link` would be refused.

        Raises:
            LinkRefused: see `link`.
        """
        if pseudonym == customer_pseudonym:
            raise LinkRefused("a visitor cannot be linked to itself", "/customer_id")
        if self._customer_of.get(pseudonym, customer_pseudonym) != customer_pseudonym:
            raise LinkRefused(
                "the visitor is linked to another customer: unlink it first", code="link_exists", status=409
            )
        if customer_pseudonym in self._customer_of or pseudonym in self._devices:
            raise LinkRefused("links do not chain: a customer is linked to nobody", code="link_chained", status=409)

    def unlink(self, pseudonym: bytes) -> bool:
        """Part a visitor from its customer, each with what is its own; say whether they were joined."""
        customer = self._customer_of.pop(pseudonym, None)
        if customer is None:
            return False
        self._devices[customer].remove(pseudonym)
        if not self._devices[customer]:
            del self._devices[customer]
        self._customers.pop(customer, None)
        self._show_profile(pseudonym)
        return True

    def set_links(self, links: Mapping[bytes, bytes]) -> None:
        """Take over the links as the database keeps them."""
        self._customer_of = dict(links)
        self._devices = {}
        for pseudonym, customer in links.items():
            self._devices.setdefault(customer, []).append(pseudonym)
        self._customers.clear()

    def devices(self, pseudonym: bytes) -> list[bytes]:
        """Return every pseudonym of the same person: the visitor's, their customer's, and all its devices'."""
        person = self._customer_of.get(pseudonym, pseudonym)
        return list(dict.fromkeys([pseudonym, person, *self._devices.get(person, ())]))

    def withdraw(self, pseudonym: bytes, now_ms: int, *, is_trusted: bool = True) -> bool:
        """Forget a visitor who refuses consent, at once; say whether anything was known.

        The refusal is logged with the next events or by `flush`, so that a start finds it; see `take_withdrawn`. A
        device that withdraws leaves its customer; a customer who does takes all devices along.

        Args:
            pseudonym: whose refusal it is.
            now_ms: UTC, milliseconds since 1970.
            is_trusted: False where anybody could have said it: then profiles and customers, whose ids can be guessed,
                stay.
        """
        is_customer = pseudonym in self._devices
        if not self.is_known(pseudonym):
            if len(self.records) >= self.settings.visitor_count_max and len(self._refused) < REFUSED_COUNT_MAX:
                self._refused.add(pseudonym)  # the log may know more than memory
            return False
        if not is_trusted and (is_customer or pseudonym in self._profiles):
            return False
        gone = set(self.devices(pseudonym)) if is_customer else {pseudonym}
        self.forget(gone)
        self.withdrawn |= gone
        if self.log is not None:
            self._served_lines += [LogLine(one, now_ms, WITHDRAWN) for one in sorted(gone)]
        if self.wrote is not None:
            self.wrote(gone)
        return True

    def take_withdrawn(self) -> set[bytes]:
        """Return who withdrew consent since this was last asked, their refusals being in the log."""
        waiting = {line.pseudonym for line in self._served_lines}
        taken = self.withdrawn - waiting
        self.withdrawn -= taken
        return taken

    def take_refused(self) -> set[bytes]:
        """Return who refused consent while memory was too full to tell whether the log holds anything of them."""
        taken, self._refused = self._refused, set()
        return taken

    def keep_refused(self, pseudonyms: Iterable[bytes]) -> None:
        """Take back what `take_refused` returned and could not be acted upon."""
        self._refused.update(one for one in pseudonyms if not self.is_known(one))

    def _begin_anew(self, pseudonym: bytes, now_ms: int) -> None:
        """Part what a visitor who refused and now agrees does from what the log may hold of them."""
        self._refused.discard(pseudonym)
        self.withdrawn.add(pseudonym)
        self._served_lines.append(LogLine(pseudonym, now_ms, WITHDRAWN))

    def forget(self, pseudonyms: Iterable[bytes]) -> None:
        """Drop everything kept in memory under the pseudonyms, and the record file, which is written anew later.

        The log's and the database's part is not done here.
        """
        gone = set(pseudonyms)
        self._drop_record_file()
        self.forgotten_count += 1
        self.customers.forget(gone)
        for pseudonym in gone:
            self.unlink(pseudonym)
            for device in self._devices.pop(pseudonym, ()):
                self._customer_of.pop(device, None)
            self.records.pop(pseudonym)
            self._customers.pop(pseudonym, None)
            self._profiles.pop(pseudonym, None)
            self._told.forget(pseudonym)
        self._served_lines = [line for line in self._served_lines if line.pseudonym not in gone]
        if self._reading is not None:
            self._forgotten |= gone
        for forget in self.also_forget:
            forget(gone)

    def drop_before(self, cutoff_ms: int) -> Iterator[None]:
        """Forget navigation from before a moment, visitor by visitor; yields now and then, so that others get a turn.

        The log's part is not done here. The record file goes, also one that was written meanwhile.
        """
        self._drop_record_file()
        for number, pseudonym in enumerate(self.records, 1):
            record = self.records.get(pseudonym)
            if record is not None:
                self.records.touch(pseudonym)
                if forget_before(record, cutoff_ms, self.settings):
                    self.records.pop(pseudonym)
            if number % DROP_COUNT == 0:
                yield
        self._customers.clear()  # sums of records: made anew when they are asked for
        self._drop_record_file()

    def oldest_kept_ms(self, now_ms: int) -> int:
        """Return from when on navigation is kept; what happened before is not taken in."""
        days = self.settings.retention_days
        return now_ms - days * DAY_MS if days else 0

    # --- visitors that several processes share -------------------------------------------------------------------

    def begin_sharing(self, wrote: Callable[[Iterable[bytes]], None]) -> None:
        """Take memory for copies of what is shared from now on: nothing of it is kept in a file.

        Args:
            wrote: told whose lines are in the log, or will be with the next `flush`, and count in memory already.
        """
        self.wrote = wrote
        self._drop_record_file()
        self._record_path = None

    def put_copy(self, record: VisitorRecord) -> None:
        """Take over a visitor's record as it is shared, in place of what is in memory."""
        for happening in record.events:
            if happening.product_id is not None:
                self.records.names.mention(happening.product_id, self.facts.get(happening.product_id))
        self.records.put(record)
        self._customers.pop(self.person(record.pseudonym), None)

    def drop_copy(self, pseudonym: bytes) -> None:
        """Let go of a record in memory that is not shared any more, or no longer as it is here."""
        self.records.pop(pseudonym)
        self._customers.pop(self.person(pseudonym), None)

    def take_in(self, lines: Iterable[LogLine], now_ms: int) -> None:
        """Take lines in that other processes wrote, into the copies in memory."""
        for line in lines:
            self.know_event(line.event)
            self._apply(line, now_ms)

    def add_up(self, record: VisitorRecord, lines: Iterable[LogLine]) -> None:
        """Take lines into a record that is nobody's here."""
        for line in lines:
            if line.action in FILL_ACTIONS:
                _apply_fill(line, [record])
            elif line.action in _ACTIONS:
                facts = self.facts.get(line.product_id) if line.product_id is not None else None
                record.note(_happening(line, facts), facts, self.settings)

    def know_event(self, number: int) -> None:
        """Remember an event id that somebody else took in, so that the event is not taken in again."""
        if number and not self._has_seen(number):
            self._remember(number)

    # --- the record file -----------------------------------------------------------------------------------------

    def begin_keeping(self, now_ms: int) -> Keeping | None:
        """Begin to write the record file: all records as they are now. None where there is no telling yet.

        The caller takes `step` after `step`, between requests, then `sync` in a thread, then `finish`.

        Raises:
            LogUnwritable: the log cannot be written.
            OSError: the draft cannot be written.
        """
        if self._record_path is None or self.log is None or self._is_loading or self._reading is not None:
            return None
        self.flush(now_ms)  # records hold fills that are not logged yet, and would take them in again
        if self._keeping is not None:
            self._keeping.abandon()
        position = self.log.position()
        read = {*self._read_segments, *self.log.own_segments}
        header = Header(
            settled(self.settings),
            [name for name in self.log.segments() if name in read and (position is None or name != position.name)],
            position,
        )
        self.unkept_count = 0
        newer, older = self._event_numbers
        self._keeping = Keeping(self.records, self._record_path, header, (newer.tobytes(), older.tobytes()))
        return self._keeping

    def keep(self, now_ms: int) -> bool:
        """Write the record file at once; say whether it was written.

        Raises:
            LogUnwritable, OSError: see `begin_keeping`.
        """
        keeping = self.begin_keeping(now_ms)
        if keeping is None:
            return False
        try:
            while keeping.step():
                pass
            keeping.sync()
            return keeping.finish()
        finally:
            keeping.abandon()

    def has_record_file(self) -> bool:
        """Say whether there is a record file; after somebody was forgotten there is none."""
        return self._record_path is not None and self._record_path.exists()

    def _drop_record_file(self) -> None:
        if self._keeping is not None:
            self._keeping.abandon()
        if self._record_path is not None:
            draft_of(self._record_path).unlink(missing_ok=True)
            self._record_path.unlink(missing_ok=True)
        self.unkept_count += 1

    def _read_record_file(self) -> None:
        if self._record_path is None or self.log is None or not self.has_record_file():
            return
        try:
            header, parts = read_record_file(self._record_path, self.settings)
            position, names, numbers = header.position, Names(), (array("q"), array("q"))
            if position is not None and not self.log.is_at(position):
                raise RecordFileRefused(f"{position.name} was rewritten")
            self.records.load(self._records_in(parts, names, numbers), names)
        except RecordFileRefused as refusal:
            self.record_file_refusal = str(refusal)
            return
        self._event_numbers, self._events_seen = numbers, (set(numbers[0]), set(numbers[1]))
        self._read_segments = set(header.segments)
        if position is not None:
            self._read_segments.add(position.name)
            self._reading = self.log.read(position.name, position.offset)

    def _records_in(
        self, parts: Iterator[Part], names: Names, numbers: "tuple[array[int], array[int]]"
    ) -> Iterator[list[Packed]]:
        """Yield the records of a file's parts, having taken over what else is in them."""
        for part in parts:
            which, some = part.events_seen
            numbers[which].frombytes(some)
            names.add(part.names)
            names.products.update(part.products)
            names.unknown.update(part.unknown)
            yield part.records
        if not names.fits(self.facts):
            raise RecordFileRefused("the catalogue says otherwise of products that events mention")

    # --- start-up, and what other processes imported -------------------------------------------------------------

    def load(self, now_ms: int) -> int:
        """Read the record file and what the log has beyond it, and measure the customers.

        Returns:
            How many events were read from the log: all of it where the record file is not there or does not fit.
        """
        self._is_loading = True
        try:
            with _without_collecting():
                if not self._read_segments:
                    self._read_record_file()
                count = 0
                while more := self.follow(100_000, now_ms):
                    count += more
            self.measure()
        finally:
            self._is_loading = False
        return count

    def follow(self, count_max: int, now_ms: int) -> int:
        """Read up to so many events from files of the log not read yet; return how many were.

        Imported files appear whole, so a running server reads them bit by bit between requests.
        """
        if self.log is None:
            return 0
        count, oldest_kept_ms = 0, self.oldest_kept_ms(now_ms)
        while count < count_max:
            if self._reading is None:
                name = next((one for one in self.log.segments() if self._is_unread(one)), None)
                if name is None:
                    break
                self._read_segments.add(name)
                self._reading = self.log.read(name)
            line = next(self._reading, None)
            if line is None:
                self._reading = None
                self._forgotten.clear()
                continue
            count += 1
            self.unkept_count += 1
            if line.pseudonym in self._forgotten or line.at_ms < oldest_kept_ms:
                continue
            if line.event:
                if self._has_seen(line.event):
                    continue
                self._remember(line.event)
            if line.action == WITHDRAWN:
                self.forget({line.pseudonym})
                self._forgotten.discard(line.pseudonym)  # what follows came after they agreed again
                self.withdrawn.add(line.pseudonym)
            elif line.action in FILL_ACTIONS or line.action in _ACTIONS:
                self._apply(line, now_ms)
        return count

    def _is_unread(self, name: str) -> bool:
        assert self.log is not None
        return name not in self._read_segments and name not in self.log.own_segments

    # --- inside --------------------------------------------------------------------------------------------------

    def _apply(self, line: LogLine, now_ms: int) -> None:
        if line.action in FILL_ACTIONS:
            _apply_fill(line, self._records_of(line.pseudonym, now_ms))
            return
        facts = self.facts.get(line.product_id) if line.product_id is not None else None
        happening = _happening(line, facts)
        self.records.note(line.pseudonym, happening, facts, now_ms)
        if self._customers:
            customer = self._customers.get(self.person(line.pseudonym))
            if customer is not None:
                customer.note(happening, facts, self.settings)

    def _records_of(self, pseudonym: bytes, now_ms: int) -> list[VisitorRecord]:
        """Return the records an event of the visitor counts in: their own and, if linked, their customer's."""
        own = self.records.open(pseudonym, now_ms)
        customer = self._customers.get(self.person(pseudonym))
        return [own] if customer is None else [own, customer]

    def _complete(self, record: VisitorRecord) -> None:
        """Set what a visitor's own record has from the database."""
        record.profile = self.profile(record.pseudonym)
        record.entered = self.customers.entered([record.pseudonym])
        self.customers.support(record, self.facts)

    def _customer_record(self, customer: bytes) -> VisitorRecord:
        record = self._customers.get(customer)
        if record is None:
            record = self._customers[customer] = self._sum_of(customer)
            if len(self._customers) > self.settings.visitor_ready_count_max:
                self._customers.popitem(last=False)
        else:
            self._customers.move_to_end(customer)
        return record

    def _sum_of(self, person: bytes) -> VisitorRecord:
        """Return a record of all that is known of a person: their own and their devices' together."""
        record = VisitorRecord(person)
        for pseudonym in self._own_pseudonyms(person):
            own = self.records.peek(pseudonym)
            if own is None and pseudonym in self.customers:
                own = VisitorRecord(pseudonym)
                self._complete(own)
            if own is not None:
                record.take_in(own, self.settings)
        record.profile = self.profile(person)
        record.entered = self.customers.entered(self._own_pseudonyms(person))
        return record

    def _show_profile(self, pseudonym: bytes) -> None:
        for record in (self.records.get_ready(pseudonym), self._customers.get(self.person(pseudonym))):
            if record is not None:
                record.profile = self.profile(record.pseudonym)
                record.entered = self.customers.entered(self._own_pseudonyms(record.pseudonym))
                record.version += 1
                record.view = None

    def _check_not_ahead(self, event: NavigationEvent, now_ms: int, pointer: str) -> None:
        at_ms = int(event.occurred_at.timestamp() * 1000)
        if at_ms > now_ms + self.settings.event_lead_s * 1000:
            raise EventInFuture(
                f"occurred_at may be at most {self.settings.event_lead_s} s in the future, "
                f"was {(at_ms - now_ms) // 1000} s",
                pointer,
            )

    def _with(
        self, record: VisitorRecord | None, pseudonym: bytes, navigation: Sequence[NavigationEvent]
    ) -> VisitorRecord:
        """Return a passing record: what is known, and events sent along that are not."""
        passing = VisitorRecord(pseudonym) if record is None else record.copy(self.settings)
        known = set(passing.events)
        for event in navigation:
            facts = self.facts.get(event.product_id) if event.product_id is not None else None
            happening = _happening(self.line_of(event, int(event.occurred_at.timestamp() * 1000)), facts)
            if happening not in known:
                passing.note(happening, facts, self.settings)
        return passing

    def _purchases(self) -> Iterator[Purchases]:
        """Yield what each person bought, on all devices."""
        of_customer: dict[bytes, Purchases] = {}
        for pseudonym, purchases in self.records.purchases():
            person = self.person(pseudonym)
            if person in self._devices:
                of_customer.setdefault(person, Purchases()).add(purchases)
            else:
                yield purchases
        yield from of_customer.values()

    def _own_pseudonyms(self, pseudonym: bytes) -> list[bytes]:
        """Return the pseudonyms a record of theirs adds up: a customer's and all devices', else the visitor's alone."""
        return [pseudonym, *self._devices.get(pseudonym, ())]

    def _pseudonyms(self) -> Iterator[bytes]:
        """Yield everybody there is, once: customers with their devices, and visitors linked to nobody."""
        yield from list(self._devices)
        seen: list[VisitorRecords | Mapping[bytes, object]] = [self._devices, self._customer_of]
        for those in (self.records, self._profiles, self.customers.computed):
            for pseudonym in list(those):
                if not any(pseudonym in others for others in seen):
                    yield pseudonym
            seen.append(those)

    def _known(self, person: bytes) -> VisitorRecord:
        """Return everything known of a person; kept nowhere where it was not."""
        record = self._customers.get(person) if person in self._devices else self.records.peek(person)
        return self._sum_of(person) if record is None else record

    def _has_pattern(self, record: VisitorRecord, targets: Targets, now_ms: int) -> bool:
        return bool(holding_rows(targets.pattern_index, list(record.events), self.settings, now_ms))

    def _hear_refusal(self, visitor_ids: Iterable[str], now_ms: int, is_trusted: bool) -> None:
        were_known = [self.withdraw(self.pseudonym(one), now_ms, is_trusted=is_trusted) for one in visitor_ids]
        if any(were_known):
            self.flush(now_ms)

    def _has_seen(self, number: int) -> bool:
        return number in self._events_seen[0] or number in self._events_seen[1]

    def _remember(self, number: int) -> None:
        newer, older = self._events_seen
        newer.add(number)
        self._event_numbers[0].append(number)
        if len(newer) * 2 >= self.settings.event_id_window:
            older.clear()
            self._events_seen = (older, newer)
            self._event_numbers = (array("q"), self._event_numbers[0])


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Spare the garbage collector what is read in bulk: a third of the time would be spent looking for cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _apply_fill(line: LogLine, records: Sequence[VisitorRecord]) -> None:
    placement_id, slot_position = line.category_id or "", line.quantity or 0
    for record in records:
        if line.action == SERVED:
            record.note_served(line.product_id or "", line.at_ms, placement_id, slot_position)
        elif line.action == RENDERED:
            record.note_rendered(line.at_ms, placement_id, slot_position)
        else:
            record.note_clicked(placement_id, line.at_ms)


def _happening(line: LogLine, facts: ProductFacts | None) -> Happening:
    category_id, price_micros, brand = line.category_id, line.price_micros, None
    if facts is not None:
        category_id = category_id or facts.category_id
        price_micros = facts.price_micros if price_micros is None else price_micros
        brand = facts.brand
    return Happening(
        line.at_ms,
        _ACTIONS[line.action],
        line.product_id,
        category_id,
        brand,
        price_micros,
        1 if line.quantity is None else line.quantity,
        None if line.query is None else line.query.casefold(),
        None if line.traffic_source is None else line.traffic_source.casefold(),
    )

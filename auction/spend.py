"""What changes from second to second about money: spent, funds, what shown impressions may yet cost, and pacing.

A view for serving only: it decides who may still be shown, never what is billed (the ledger's own checks do, inside
its commit). Fed by the ledger's writer; an advertiser whose funds are not known is not served.

What a fill is expected to cost is *pending* from the fill on, and less so the older it gets: as much as, by the delays
seen so far, is still on its way, and nothing after `pending_life_s`. A charge takes nothing from it: that a visitor
clicked says nothing about the others.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import inf, sqrt
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.delay import AGE_COUNT, ChargeDelays
from auction.kernel import PendingArrays, PendingBook, add_pending_nb, bind_pending_nb
from auction.loss import LossReason
from auction.pacing import Pacing, Remembered
from auction.settings import Settings
from auction.snapshot import Snapshot
from auction.traffic import QUARTER_MS, TrafficCurve

PPM = 1_000_000
DAY_MS = 86_400_000
CERTAIN, UNCERTAIN = (
    0,
    1,
)  # kinds of fill: paid for being shown, and for a click that may not come; as the kernel has it
OPEN_MS = 1 << 61  # a flight that ends later has no end

Int16s = NDArray[np.int16]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


class _Spent(Struct):
    day: str
    day_micros: int
    total_micros: int


class PacingMemory(Struct, frozen=True):
    """What was learnt, to be kept until the next start: the traffic curve, delays of charges, campaigns by id."""

    auction_counts: list[float] = []
    delay_counts: list[list[float]] = []
    campaigns: dict[str, Remembered] = {}


class SpendView:
    """Per campaign of the bound snapshot: may it be served now, and at what part of its bid.

    Attributes:
        campaign_reason: (K,) 0, or the loss reason all its offers share now.
        pacing_ppm: (K,) factor on its bids, at most 1,000,000.
        auction_count: auctions in the current quarter of an hour, counted by who holds them.
    """

    def __init__(self, settings: Settings, snapshot: Snapshot) -> None:
        self._settings = settings
        self._spent: dict[str, _Spent] = {}
        self._funds: dict[str, int] = {}
        self._snapshot = snapshot
        self._zone = ZoneInfo(snapshot.time_zone)
        self._day, self._day_starts_ms, self._day_ends_ms = "", 0, 0
        self._now_ms = 0
        self._paced_at_ms = 0
        self._aged_at_ms = 0
        self._age = 0
        life_ms = settings.pending_life_s * 1000
        self._delays = [ChargeDelays(life_ms), ChargeDelays(life_ms)]
        self._traffic = TrafficCurve()
        self._quarter: int | None = None  # None while the current one was not watched from its beginning
        self._quarter_ends_ms = 0
        self.auction_count = 0
        self.refresh_at_ms = 0
        self.campaign_reason: Int16s
        self.pacing_ppm: Int64s
        self._advertiser_row: dict[str, int]
        self._advertiser_funds: Int64s
        self._campaign_advertiser: Int32s
        self._spent_day: Int64s
        self._spent_total: Int64s
        self._pending: Float64s
        self._pending_price: Float64s
        self._pending_advertiser: Float64s
        self._campaign_slack: Float64s
        self._advertiser_slack: Float64s
        self._advertiser_of: list[int]
        self._campaigns_of: list[list[int]]
        self._recent: Float64s
        self._book: PendingBook
        self._pacing: Pacing
        self._set_rows(snapshot)

    @property
    def day_starts_ms(self) -> int:
        """Return when the retailer's day began, as of the last refresh."""
        return self._day_starts_ms

    @property
    def paced_count(self) -> int:
        """Count the campaigns whose bids are lowered now."""
        return int((self.pacing_ppm < PPM).sum())

    # --- what arrives ------------------------------------------------------------------------------------------------

    def bind(self, snapshot: Snapshot) -> None:
        """Go over to a new snapshot, keeping what is known of campaigns and advertisers that stay."""
        old, old_row = self._snapshot, self._snapshot.campaign_row
        kept = [(row, old_row[name]) for name, row in snapshot.campaign_row.items() if name in old_row]
        pending, price, recent, pacing = self._pending, self._pending_price, self._recent, self._pacing
        self._snapshot = snapshot
        if old.time_zone != snapshot.time_zone:
            self._zone, self._day_ends_ms = ZoneInfo(snapshot.time_zone), 0
        self._set_rows(snapshot)
        if kept:
            new_rows, old_rows = np.array(kept, np.int64).T
            self._pending[new_rows], self._pending_price[new_rows] = pending[old_rows], price[old_rows]
            self._recent[:, :, new_rows] = recent[:, :, old_rows]
            self._pacing.take_over(pacing, new_rows, old_rows)
            daily, total = snapshot.columns.campaign_daily_micros, snapshot.columns.campaign_total_micros
            has_changed = np.zeros(len(daily), bool)
            has_changed[new_rows] = (daily[new_rows] != old.columns.campaign_daily_micros[old_rows]) | (
                total[new_rows] != old.columns.campaign_total_micros[old_rows]
            )
            self._pacing.start_over(has_changed)
            self.pacing_ppm[:] = self._pacing.factor_ppm()
        self.refresh(self._now_ms)

    def forget(self) -> None:
        """Forget what was settled and every advertiser's funds: the full state follows."""
        self._spent.clear()
        self._funds.clear()
        self._spent_total[:] = 0
        self._spent_day[:] = 0
        self._advertiser_funds[:] = 0
        self._judge_all()

    def apply_campaign(self, campaign_id: str, day: str, spent_day_micros: int, spent_total_micros: int) -> None:
        """Take over what the ledger settled for a campaign: on `day` (ISO, the retailer's), and in all."""
        known = self._spent.get(campaign_id)
        if known is not None and known.day > day:  # a late event of yesterday tells nothing about today
            day, spent_day_micros = known.day, known.day_micros
        self._spent[campaign_id] = _Spent(day, spent_day_micros, spent_total_micros)
        row = self._snapshot.campaign_row.get(campaign_id)
        if row is not None:
            settled = max(0, spent_total_micros - int(self._spent_total[row]))
            before_micros = int(self._spent_day[row])
            self._spent_total[row] = spent_total_micros
            self._spent_day[row] = spent_day_micros if day == self._day else 0
            if known is None:  # spent before anybody told us: no step is made for it
                self._pacing.used_micros[row] += int(self._spent_day[row]) - before_micros
            else:
                self._pacing.add_value(row, 0.0, settled)
            self._judge(row)

    def note_delay(self, is_click: bool, delay_ms: int) -> None:
        """Take in how long after its fill a charge came."""
        self._delays[UNCERTAIN if is_click else CERTAIN].note(delay_ms)

    def apply_value(self, campaign_id: str, sales_micros: int) -> None:
        """Take over sales newly credited to a campaign, less what came back; see `Pacing.step_roas`."""
        row = self._snapshot.campaign_row.get(campaign_id)
        if row is not None:
            target_ppm = int(self._snapshot.columns.campaign_roas_ppm[row])
            if target_ppm > 0:
                self._pacing.add_value(row, sales_micros * PPM / target_ppm, 0.0)

    def apply_funds(self, advertiser_id: str, funds_micros: int) -> None:
        """Take over what an advertiser can still pay: its wallet and the room in its credit line."""
        self._funds[advertiser_id] = funds_micros
        row = self._advertiser_row.get(advertiser_id)
        if row is not None:
            self._advertiser_funds[row] = funds_micros
            self._judge_advertiser(row)

    def add_pending(self, fills: Sequence[tuple[int, float, int]]) -> None:
        """Count fills just given: of each its campaign's row, and what it will cost on average and at most, in micros.

        On the slot path: whether a campaign may still be served is worked out anew only when that is in doubt.
        """
        in_doubt = add_pending_nb(self._book, np.array(fills, np.float64), self._age, self._settings.pending_z)
        if in_doubt:
            for place, (campaign_row, _, _) in enumerate(fills):
                if in_doubt >> place & 1:
                    self._judge_advertiser(self._advertiser_of[campaign_row])

    # --- what is judged ----------------------------------------------------------------------------------------------

    def refresh(self, now_ms: int) -> None:
        """Bring everything to the time: flights, the day, what is no longer expected, and the pacing step."""
        elapsed_ms = max(0, now_ms - self._now_ms) if self._now_ms else 0
        self._now_ms = now_ms
        if not self._day_starts_ms <= now_ms < self._day_ends_ms:
            self._turn_day(now_ms)
        self.refresh_at_ms = min(now_ms + self._settings.gate_interval_ms, self._day_ends_ms)
        self._watch_traffic(now_ms)
        if now_ms - self._paced_at_ms >= self._settings.pacing_interval_ms:
            self._age_pending(now_ms)
        self._pending_price *= 0.5 ** (elapsed_ms / (self._settings.pending_life_s * 1000))
        self._pending_advertiser[:] = np.bincount(
            self._campaign_advertiser, self._pending, len(self._snapshot.advertiser_id)
        )
        if now_ms - self._paced_at_ms >= self._settings.pacing_interval_ms:
            self._step_pacing(now_ms)
        self._judge_all()

    def _judge(self, campaign_row: int) -> None:
        """Do for one campaign what `_judge_all` does for all, without arrays: this may be on the slot path."""
        columns, now_ms, z = self._snapshot.columns, self._now_ms, self._settings.pending_z
        advertiser = self._advertiser_of[campaign_row]
        pending, price = float(self._pending[campaign_row]), float(self._pending_price[campaign_row])
        advertiser_pending = max(0.0, float(self._pending_advertiser[advertiser]))
        room = pending + z * sqrt(pending * price)
        advertiser_room = advertiser_pending + z * sqrt(advertiser_pending * price)
        total, daily = (
            int(columns.campaign_total_micros[campaign_row]),
            int(columns.campaign_daily_micros[campaign_row]),
        )
        total_slack = total - int(self._spent_total[campaign_row]) - room if total >= 0 else inf
        daily_slack = daily - int(self._spent_day[campaign_row]) - room if daily >= 0 else inf
        funds_slack = int(self._advertiser_funds[advertiser]) - advertiser_room
        self._campaign_slack[campaign_row] = min(total_slack, daily_slack)
        self._advertiser_slack[advertiser] = min(funds_slack, self._advertiser_slack[advertiser])
        reason = 0
        if not columns.campaign_is_active[campaign_row]:
            reason = int(LossReason.CAMPAIGN_PAUSED)
        elif not columns.campaign_starts_ms[campaign_row] <= now_ms < columns.campaign_ends_ms[campaign_row]:
            reason = int(LossReason.OUT_OF_FLIGHT)
        elif funds_slack <= 0:
            reason = int(LossReason.NO_FUNDS)
        elif total_slack <= 0:
            reason = int(LossReason.TOTAL_BUDGET_SPENT)
        elif daily_slack <= 0:
            reason = int(LossReason.DAILY_BUDGET_SPENT)
        self.campaign_reason[campaign_row] = reason

    def _judge_advertiser(self, advertiser_row: int) -> None:
        self._advertiser_slack[advertiser_row] = inf
        for campaign_row in self._campaigns_of[advertiser_row]:
            self._judge(campaign_row)

    def _judge_all(self) -> None:
        """Say of every campaign whether it may be served, and how far it and its advertiser are from the end."""
        columns, z = self._snapshot.columns, self._settings.pending_z
        room = self._pending + z * np.sqrt(self._pending * self._pending_price)
        advertiser = self._campaign_advertiser
        pending = np.maximum(self._pending_advertiser[advertiser], 0.0)
        funds_slack = self._advertiser_funds[advertiser] - pending - z * np.sqrt(pending * self._pending_price)
        total, daily = columns.campaign_total_micros, columns.campaign_daily_micros
        total_slack = np.where(total >= 0, total - self._spent_total - room, np.inf)
        daily_slack = np.where(daily >= 0, daily - self._spent_day - room, np.inf)
        is_in_flight = (columns.campaign_starts_ms <= self._now_ms) & (self._now_ms < columns.campaign_ends_ms)
        self._campaign_slack[:] = np.minimum(total_slack, daily_slack)
        self._advertiser_slack[:] = np.inf
        np.minimum.at(self._advertiser_slack, advertiser, funds_slack)
        self.campaign_reason[:] = np.select(
            [columns.campaign_is_active == 0, ~is_in_flight, funds_slack <= 0, total_slack <= 0, daily_slack <= 0],
            [
                int(LossReason.CAMPAIGN_PAUSED),
                int(LossReason.OUT_OF_FLIGHT),
                int(LossReason.NO_FUNDS),
                int(LossReason.TOTAL_BUDGET_SPENT),
                int(LossReason.DAILY_BUDGET_SPENT),
            ],
            0,
        )

    def _age_pending(self, now_ms: int) -> None:
        """Count as pending what is still on its way at the age it has now."""
        part_ms = self._settings.pending_life_s * 1000 / AGE_COUNT
        parts = min(AGE_COUNT, int((now_ms - self._aged_at_ms) / part_ms)) if self._aged_at_ms else AGE_COUNT
        if parts > 0:
            self._aged_at_ms = now_ms if parts == AGE_COUNT else round(self._aged_at_ms + parts * part_ms)
        for _ in range(parts):
            self._age = (self._age + 1) % AGE_COUNT
            self._recent[:, self._age] = 0.0
        by_age = (self._age - np.arange(AGE_COUNT)) % AGE_COUNT
        self._pending[:] = sum(
            delays.still_to_come()[by_age] @ recent for delays, recent in zip(self._delays, self._recent, strict=True)
        )

    def _watch_traffic(self, now_ms: int) -> None:
        """Tell the traffic curve of quarters of an hour that were watched whole."""
        if now_ms < self._quarter_ends_ms:
            return
        quarter = (now_ms - self._day_starts_ms) // QUARTER_MS
        if self._quarter is not None:
            self._traffic.learn(self._quarter, self.auction_count)
            for silent in range(self._quarter + 1, quarter):
                self._traffic.learn(silent, 0)
        self._quarter = quarter if self._quarter_ends_ms else None  # what one comes into was not watched whole
        self._quarter_ends_ms = self._day_starts_ms + (quarter + 1) * QUARTER_MS
        self.auction_count = 0

    def _step_pacing(self, now_ms: int) -> None:
        """Move the multipliers by what was spent since the last step, against the traffic of that time."""
        columns, pacing, before_ms = self._snapshot.columns, self._pacing, self._paced_at_ms
        used = self._spent_day + self._pending
        self._paced_at_ms = now_ms
        if not before_ms:
            pacing.used_micros[:] = used
            return
        plan = self._plan_of_today()
        ends_ms = np.minimum(columns.campaign_ends_ms, self._day_ends_ms).astype(np.float64)
        was, now = self._traffic.gone(np.array([before_ms, now_ms], np.float64))
        is_paced = (columns.campaign_is_even == 1) & np.isfinite(plan) & (self.campaign_reason == 0)
        left = np.maximum(self._traffic.gone(ends_ms) - was, 0.0)
        pacing.step(is_paced, used, plan, np.full(len(used), now - was), left)
        pacing.step_roas(columns.campaign_roas_ppm > 0, self._pending_price, now - was)
        self.pacing_ppm[:] = pacing.factor_ppm()

    def _plan_of_today(self) -> Float64s:
        """Return what each campaign is to spend today: its daily budget, or today's part of what is left of its flight.

        Infinite where nothing limits it to a part of what it has.
        """
        columns = self._snapshot.columns
        daily, total = columns.campaign_daily_micros, columns.campaign_total_micros
        left = np.maximum(total - self._spent_total + self._spent_day, 0)
        ends = columns.campaign_ends_ms
        begins = np.maximum(columns.campaign_starts_ms, self._day_starts_ms)
        today_ms = np.minimum(ends, self._day_ends_ms) - begins
        part = np.clip(today_ms / np.maximum(ends - begins, 1), 0.0, 1.0)
        without_daily = np.where((total >= 0) & (ends < OPEN_MS), left * part, np.inf)
        with_daily = np.where(total >= 0, np.minimum(daily, left), daily)
        return np.asarray(np.where(daily >= 0, with_daily, without_daily), np.float64)

    def _turn_day(self, now_ms: int) -> None:
        local = datetime.fromtimestamp(now_ms / 1000, self._zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        tomorrow = (midnight + timedelta(days=1)).replace(hour=0)
        self._day = local.date().isoformat()
        self._day_starts_ms = int(midnight.timestamp() * 1000)
        self._day_ends_ms = int(tomorrow.timestamp() * 1000)
        for campaign_id, row in self._snapshot.campaign_row.items():
            spent = self._spent.get(campaign_id)
            self._spent_day[row] = spent.day_micros if spent is not None and spent.day == self._day else 0
        self._pacing.begin_day(self._spent_day + self._pending)
        self._traffic.begin_day(self._day_starts_ms, self._day_ends_ms)

    # --- between two starts ------------------------------------------------------------------------------------------

    def memory(self) -> PacingMemory:
        """Return what pacing has learnt."""
        names, rows = self._snapshot.campaign_id, self._pacing.experienced_rows().tolist()
        campaigns = {names[row]: self._pacing.remember(row) for row in rows}
        return PacingMemory(self._traffic.auction_counts, [one.counts for one in self._delays], campaigns)

    def recall(self, memory: PacingMemory) -> None:
        """Go on from what another view had learnt."""
        self._traffic = TrafficCurve(memory.auction_counts)
        self._traffic.begin_day(self._day_starts_ms, self._day_ends_ms)
        life_ms = self._settings.pending_life_s * 1000
        if len(memory.delay_counts) == len(self._delays):
            self._delays = [ChargeDelays(life_ms, counts) for counts in memory.delay_counts]
        for name, kept in memory.campaigns.items():
            row = self._snapshot.campaign_row.get(name)
            if row is not None:
                self._pacing.recall(row, kept)
        self.pacing_ppm[:] = self._pacing.factor_ppm()

    def hour_of_day(self, now_ms: int) -> int:
        """Return the hour, 0 to 23, in the retailer's time zone."""
        if self._day_starts_ms <= now_ms < self._day_ends_ms and self._day_ends_ms - self._day_starts_ms == DAY_MS:
            return (now_ms - self._day_starts_ms) // 3_600_000
        return datetime.fromtimestamp(now_ms / 1000, self._zone).hour

    def _set_rows(self, snapshot: Snapshot) -> None:
        count = len(snapshot.campaign_id)
        self._campaign_advertiser = snapshot.columns.campaign_advertiser
        self._advertiser_of = self._campaign_advertiser.tolist()
        self._campaigns_of = [[] for _ in snapshot.advertiser_id]
        for row, advertiser in enumerate(self._advertiser_of):
            self._campaigns_of[advertiser].append(row)
        self._advertiser_row = {name: row for row, name in enumerate(snapshot.advertiser_id)}
        self._advertiser_funds = np.array([self._funds.get(name, 0) for name in snapshot.advertiser_id], np.int64)
        spent = [self._spent.get(name) for name in snapshot.campaign_id]
        self._spent_total = np.array([0 if one is None else one.total_micros for one in spent], np.int64)
        self._spent_day = np.array(
            [0 if one is None or one.day != self._day else one.day_micros for one in spent], np.int64
        )
        self._pending = np.zeros(count)
        self._campaign_slack = np.zeros(count)
        self._advertiser_slack = np.zeros(len(snapshot.advertiser_id))
        self._pending_price = np.zeros(count)
        self._pending_advertiser = np.zeros(len(snapshot.advertiser_id))
        self._recent = np.zeros((2, AGE_COUNT, count))
        self._book = bind_pending_nb(
            PendingArrays(
                self._campaign_advertiser,
                self._pending,
                self._recent,
                self._pending_price,
                self._pending_advertiser,
                self._campaign_slack,
                self._advertiser_slack,
            )
        )
        self._pacing = Pacing(count, self._settings.pacing_floor_ppm)
        self.campaign_reason = np.zeros(count, np.int16)
        self.pacing_ppm = np.full(count, PPM, np.int64)

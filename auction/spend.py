"""What changes from second to second about money: spent, funds, what shown impressions may yet cost, and pacing.

A view for serving only: it decides who may still be shown, never what is billed (the ledger's own checks do, inside
its commit). Fed by the ledger's writer; an advertiser whose funds are not known is not served.
"""

from datetime import datetime, timedelta
from math import inf, sqrt
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.loss import LossReason
from auction.settings import Settings
from auction.snapshot import Snapshot

PPM = 1_000_000
DAY_MS = 86_400_000

Int16s = NDArray[np.int16]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


class _Spent(Struct):
    day: str
    day_micros: int
    total_micros: int


class SpendView:
    """Per campaign of the bound snapshot: may it be served now, and at what part of its bid.

    Attributes:
        campaign_reason: (K,) 0, or the loss reason all its offers share now.
        pacing_ppm: (K,) factor on its bids, at most 1,000,000.
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
        self._log_pacing: Float64s
        self._spent_at_step: Float64s
        self._set_rows(snapshot)

    # --- what arrives ------------------------------------------------------------------------------------------------

    def bind(self, snapshot: Snapshot) -> None:
        """Go over to a new snapshot, keeping what is known of campaigns and advertisers that stay."""
        old, old_row = self._snapshot, self._snapshot.campaign_row
        kept = [(row, old_row[name]) for name, row in snapshot.campaign_row.items() if name in old_row]
        before = (self._pending, self._pending_price, self._log_pacing, self._spent_at_step)
        self._snapshot = snapshot
        if old.time_zone != snapshot.time_zone:
            self._zone, self._day_ends_ms = ZoneInfo(snapshot.time_zone), 0
        self._set_rows(snapshot)
        after = (self._pending, self._pending_price, self._log_pacing, self._spent_at_step)
        if kept:
            new_rows, old_rows = np.array(kept, np.int64).T
            for now, then in zip(after, before, strict=True):
                now[new_rows] = then[old_rows]
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
            self._spent_total[row] = spent_total_micros
            self._spent_day[row] = spent_day_micros if day == self._day else 0
            self.settle(row, settled)

    def apply_funds(self, advertiser_id: str, funds_micros: int) -> None:
        """Take over what an advertiser can still pay: its wallet and the room in its credit line."""
        self._funds[advertiser_id] = funds_micros
        row = self._advertiser_row.get(advertiser_id)
        if row is not None:
            self._advertiser_funds[row] = funds_micros
            self._judge_advertiser(row)

    def add_pending(self, campaign_row: int, expected_micros: float, price_micros: int) -> None:
        """Count a fill just given: what it will cost on average, and what at most.

        On the slot path: whether the campaign may still be served is worked out anew only when that is in doubt.
        """
        advertiser, z = self._advertiser_of[campaign_row], self._settings.pending_z
        price = float(self._pending_price[campaign_row])
        # The room kept free grows by no more than this, since sqrt(a + b) is at most sqrt(a) + sqrt(b).
        own = expected_micros + z * sqrt(expected_micros * max(price, price_micros))
        shared = own
        if price_micros > price:
            self._pending_price[campaign_row] = price_micros
            risen = z * (sqrt(price_micros) - sqrt(price))
            own += risen * sqrt(max(0.0, float(self._pending[campaign_row])))
            shared += risen * sqrt(max(0.0, float(self._pending_advertiser[advertiser])))
        self._pending[campaign_row] += expected_micros
        self._pending_advertiser[advertiser] += expected_micros
        self._campaign_slack[campaign_row] -= own
        self._advertiser_slack[advertiser] -= shared
        if self._campaign_slack[campaign_row] <= 0 or self._advertiser_slack[advertiser] <= 0:
            self._judge_advertiser(advertiser)

    def settle(self, campaign_row: int, settled_micros: int) -> None:
        """Take from what was expected what has now been charged."""
        taken = min(float(settled_micros), float(self._pending[campaign_row]))
        self._pending[campaign_row] -= taken
        self._pending_advertiser[self._advertiser_of[campaign_row]] -= taken
        self._judge(campaign_row)

    # --- what is judged ----------------------------------------------------------------------------------------------

    def refresh(self, now_ms: int) -> None:
        """Bring everything to the time: flights, the day, what is no longer expected, and the pacing step."""
        elapsed_ms = max(0, now_ms - self._now_ms) if self._now_ms else 0
        self._now_ms = now_ms
        self.refresh_at_ms = now_ms + self._settings.gate_interval_ms
        if not self._day_starts_ms <= now_ms < self._day_ends_ms:
            self._turn_day(now_ms)
        kept = 0.5 ** (elapsed_ms / (self._settings.pending_life_s * 1000))
        self._pending *= kept
        self._pending_price *= kept
        self._pending_advertiser = np.bincount(
            self._campaign_advertiser, self._pending, len(self._snapshot.advertiser_id)
        ).astype(np.float64)
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

    def _step_pacing(self, now_ms: int) -> None:
        """Move each even campaign's multiplier towards the rate that uses its day's budget just by midnight.

        Source: adaptive pacing, Balseiro and Gur, "Learning in Repeated Auctions with Budgets", 2019.
        """
        elapsed_ms = min(now_ms - self._paced_at_ms, 10 * self._settings.pacing_interval_ms)
        used = self._spent_day + self._pending
        daily = self._snapshot.columns.campaign_daily_micros
        if self._paced_at_ms:
            left_ms = max(self._day_ends_ms - now_ms, 1)
            target = np.maximum(daily - used, 0) * (elapsed_ms / left_ms)
            # A tenth of the day's budget in one step counts as no more than that: one dear click must not end the day.
            ratio = (used - self._spent_at_step) / np.maximum(target, 1.0)
            step = (
                self._settings.pacing_step
                * np.clip(1.0 - ratio, -4.0, 1.0)
                * (elapsed_ms / self._settings.pacing_interval_ms)
            )
            least = np.log(self._settings.pacing_floor_ppm / PPM)
            self._log_pacing = np.clip(self._log_pacing + step, least, 0.0)
        is_even = (self._snapshot.columns.campaign_is_even == 1) & (daily >= 0)
        self._log_pacing[~is_even] = 0.0
        self._spent_at_step = used.astype(np.float64)
        self._paced_at_ms = now_ms
        self.pacing_ppm[:] = np.rint(np.exp(self._log_pacing) * PPM).astype(np.int64)

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
        self._spent_at_step = (self._spent_day + self._pending).astype(np.float64)

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
        self._log_pacing = np.zeros(count)
        self._spent_at_step = self._spent_day.astype(np.float64)
        self.campaign_reason = np.zeros(count, np.int16)
        self.pacing_ppm = np.full(count, PPM, np.int64)

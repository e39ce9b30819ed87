"""What the books must say of one advertiser, as plain as a cash book."""

DAY_MS = 86_400_000
SKEW_MS = 60_000
KEPT_DAYS = 2  # how many days before today a token's key still opens
LIFE_MS = {"impression": 30 * 60_000, "view": 30 * 60_000, "click": DAY_MS}

Answer = tuple[str, str | None, int | None]  # result, code, micros


class CashBook:
    """An advertiser's money, its campaigns' budgets, and what became of each event."""

    def __init__(self) -> None:
        self.promo = self.wallet = self.line = self.owed = 0
        self.limits: dict[str, tuple[int | None, int | None]] = {}
        self.spent: dict[tuple[str, int], int] = {}
        self.charged: dict[tuple[str, str], tuple[str | None, int]] = {}  # by token and type: code and micros
        self.named: dict[str, tuple[str, str]] = {}  # by event id: token and type
        self.parts: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.undone: set[tuple[str, str]] = set()

    def report(
        self,
        event_id: str,
        token: str,
        kind: str,
        campaign: str,
        basis: str,
        price: int,
        issued: int,
        at: int,
        now: int,
    ) -> Answer:
        """Say what becomes of an event that is told of `now` and happened `at`, all in milliseconds."""
        if issued // DAY_MS < now // DAY_MS - KEPT_DAYS:
            return "rejected", "expired", None
        if issued > now + SKEW_MS:
            return "rejected", "from_the_future", None
        if self.named.get(event_id, (token, kind)) != (token, kind):
            return "conflict", "event_id_in_use", None
        if (token, kind) in self.charged:
            return "duplicate", *self.charged[token, kind]
        if now > issued + LIFE_MS[kind]:
            return "rejected", "expired", None
        result, code, micros = self._charge(token, kind, campaign, price, at // DAY_MS) if kind == basis else (
            "accepted", None, 0
        )  # fmt: skip
        self.charged[token, kind] = code, micros
        self.named[event_id] = token, kind
        return result, code, micros

    def _charge(self, token: str, kind: str, campaign: str, price: int, day: int) -> tuple[str, str | None, int]:
        daily, total = self.limits[campaign]
        room = {"funds": self.promo + self.wallet + max(self.line - self.owed, 0)}
        if daily is not None:
            room["daily_budget"] = daily - self.spent.get((campaign, day), 0)
        if total is not None:
            room["total_budget"] = total - sum(m for (name, _), m in self.spent.items() if name == campaign)
        tightest = min(room, key=lambda name: room[name])  # the first of equals, in this order
        micros = min(price, room[tightest])
        if micros <= 0:
            return "unbilled", tightest, 0
        promo = min(self.promo, micros)
        wallet = min(self.wallet, micros - promo)
        credit = micros - promo - wallet
        self._move(-promo, -wallet, credit)
        self.parts[token, kind] = promo, wallet, credit
        self.spent[campaign, day] = self.spent.get((campaign, day), 0) + micros
        return "accepted", None if micros == price else "partial", micros

    def undo(self, token: str, kind: str) -> bool:
        """Undo a charge, once; say whether it was."""
        if (token, kind) in self.undone:
            return False
        self.undone.add((token, kind))
        promo, wallet, credit = self.parts[token, kind]
        self._move(promo, wallet, -credit)
        return True

    def _move(self, promo: int, wallet: int, owed: int) -> None:
        self.promo += promo
        self.wallet += wallet
        self.owed += owed

    @property
    def funds(self) -> tuple[int, int, int, int]:
        """Return promotional credit, wallet, credit line and what is owed on it."""
        return self.promo, self.wallet, self.line, self.owed


class Months:
    """Which months are closed, the same for all advertisers."""

    def __init__(self) -> None:
        self.stages: dict[str, str] = {}

    def close(self, month: str, stage: str, is_over: bool, is_past_grace: bool) -> str | None:
        """Close a month; return why it cannot be, None where it is."""
        known = self.stages.get(month)
        if known == stage:
            return None
        if stage == "soft" and known == "sealed":
            return "period_sealed"
        if stage == "sealed" and known is None:
            return "period_not_soft"
        if not (is_over if stage == "soft" else is_past_grace):
            return "period_open"
        self.stages[month] = stage
        return None

"""The console's routes: who may come in, what is shown, and forms. Start reading here.

Everything shown and changed goes through `asking.py`, that is through the API's own operations.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import structlog
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from auction.campaign import Campaign
from bidder_api.access import Role
from bidder_api.console.asking import Ask, Asking, quoted
from bidder_api.console.attempts import TooManyAttempts
from bidder_api.console.campaigns import (
    METRICS,
    Figures,
    by_campaign,
    make_points,
    make_rows,
    make_tiles,
    make_wallet,
    show,
    sum_lines,
)
from bidder_api.console.finance import FinancePages
from bidder_api.console.pages import Pages, Visit, send_file
from bidder_api.console.period import PRESETS, choose_period, day_share
from bidder_api.console.sessions import SESSION_S, Sessions, SignInRefused
from bidder_api.console.words import LANGUAGES, choose_language
from bidder_api.errors import NotFound
from bidder_api.problems import Problem, problem_of
from ledger.performance import PerformanceReport
from ledger.reports import CampaignBudget, FundsPage

SESSION_COOKIE, DOOR_COOKIE = "console_session", "console_door"
LANGUAGE_COOKIE, THEME_COOKIE = "console_language", "console_theme"
THEMES = ("auto", "light", "dark")
FORM_BYTES_MAX = 8_192
LIST_PAGE_COUNT_MAX = 5  # of 200
BRANDS_OF_ADMIN = 5
_PREFERENCE_AGE_S = 365 * 86_400
_BACK = re.compile(r"/console(?:/[A-Za-z0-9_./-]*)?(?:\?[A-Za-z0-9_.~%&=+:-]*)?")
_KEPT_IN_LINKS = ("advertiser_id", "period", "first", "last", "compare", "a", "b", "q")
_log = structlog.get_logger("console")

Handler = Callable[[Request, Visit], Awaitable[Response]]


class FormRefused(Exception):
    """A form without its token, from elsewhere, or too large."""


class Parts(Struct, frozen=True, kw_only=True):
    """What the console is made of.

    Attributes:
        ask: carries out an operation of the API for a caller.
        now_ms: UTC, milliseconds since 1970.
    """

    sessions: Sessions
    ask: Ask
    currency: str
    time_zone: str
    now_ms: Callable[[], int]


def routes(parts: Parts) -> list[Route]:
    """Return the console's routes."""
    console = _Console(parts)
    finance = FinancePages(console.asking, console.render)
    page, open_page = console.for_somebody, console.for_anybody
    return [
        Route("/console", page(console.start)),
        Route("/console/sign-in", open_page(console.show_sign_in), methods=["GET"]),
        Route("/console/sign-in", open_page(console.sign_in), methods=["POST"]),
        Route("/console/sign-out", page(console.sign_out), methods=["POST"]),
        Route("/console/preferences", open_page(console.prefer), methods=["POST"]),
        Route("/console/campaigns", page(console.show_campaigns)),
        Route("/console/campaigns.csv", page(console.send_csv)),
        Route("/console/campaigns/{campaign_id}", page(console.change_campaign), methods=["POST"]),
        Route("/console/finance", page(finance.show_trial_balance)),
        Route("/console/finance/transactions", page(finance.list_transactions)),
        Route("/console/finance/transactions/{transaction_id}", page(finance.show_transaction)),
        Route("/console/finance/statements", page(finance.show_statement)),
        Route("/console/finance/invoices", page(finance.list_invoices)),
        Route("/console/static/{name}", send_file),
    ]


class _Console:
    def __init__(self, parts: Parts) -> None:
        self._sessions = parts.sessions
        self._ask = parts.ask
        self._time_zone = parts.time_zone
        self._now_ms = parts.now_ms
        self._pages = Pages(parts.currency, parts.time_zone)

    # --- who comes in

    def for_anybody(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a page that needs no session."""

        async def endpoint(request: Request) -> Response:
            visit = await self._visit(request)
            return await self._answer(handler, request, visit)

        return endpoint

    def for_somebody(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a page for somebody who is signed in; others are sent to the door."""

        async def endpoint(request: Request) -> Response:
            visit = await self._visit(request)
            if visit.session is not None:
                return await self._answer(handler, request, visit)
            back = visit.back if request.method == "GET" else "/console"
            door = "/console/sign-in" + ("" if back == "/console" else "?" + urlencode({"back": back}))
            if visit.is_partial:
                return Response(status_code=401, headers={"HX-Redirect": door, "Cache-Control": "no-store"})
            return _see(door)

        return endpoint

    async def _visit(self, request: Request) -> Visit:
        cookies, headers = request.cookies, request.headers
        session = await self._sessions.find(cookies.get(SESSION_COOKIE))
        language, theme = cookies.get(LANGUAGE_COOKIE), cookies.get(THEME_COOKIE)
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return Visit(
            language=language if language in LANGUAGES else choose_language(headers.get("accept-language", "")),
            theme=theme if theme in THEMES else THEMES[0],
            session=session,
            cookie=cookies.get(DOOR_COOKIE) if session is None else session.cookie,
            back=target if request.method == "GET" and _BACK.fullmatch(target) else "/console",
            origin=f"{request.url.scheme}://{request.url.netloc}",
            is_partial=headers.get("hx-request") == "true",
            takes_gzip="gzip" in headers.get("accept-encoding", ""),
        )

    async def _answer(self, handler: Handler, request: Request, visit: Visit) -> Response:
        """Return a page; what is refused is told on one too."""
        try:
            return await handler(request, visit)
        except FormRefused:
            return await self._tell(visit, "form_refused", 403)
        except Exception as failure:
            problem = problem_of(failure)
            if problem is None:
                _log.error("page_failed", path=request.url.path, exc_info=failure)
                return await self._tell(visit, "went_wrong", 500)
            is_hidden = problem.status in (403, 404)
            return await self._tell(
                visit, "not_found" if is_hidden else "went_wrong", 404 if is_hidden else problem.status
            )

    async def _tell(self, visit: Visit, word: str, status: int) -> Response:
        return await self.render("message.html", visit, status=status, title=self._words(visit)[word])

    # --- the door

    async def show_sign_in(self, request: Request, visit: Visit) -> Response:
        """Show the forms to sign in with."""
        if visit.session is not None:
            return _see("/console")
        said = "signed_out" if "out" in request.query_params else None
        return await self._door(request, visit, _back(request.query_params.get("back")), said=said)

    async def sign_in(self, request: Request, visit: Visit) -> Response:
        """Open a session, and go where one wanted to."""
        form = await self._form(request, visit)
        address = "" if request.client is None else request.client.host
        back = _back(form.get("back"))
        try:
            if "key" in form:
                cookie = await self._sessions.sign_in_with_key(form["key"], address)
            else:
                cookie = await self._sessions.sign_in_with_password(
                    form.get("name", ""), form.get("password", ""), address
                )
        except SignInRefused:
            way = "key" if "key" in form else "password"
            return await self._door(request, visit, back, status=401, refusal="sign_in_refused", way=way)
        except TooManyAttempts as refused:
            minutes = -(-refused.retry_after_s // 60)
            return await self._door(
                request, visit, back, status=429, refusal="too_many_attempts", minutes=minutes,
                headers={"Retry-After": str(refused.retry_after_s)},
            )  # fmt: skip
        response = _see(back)
        is_secure = request.headers.get("origin", "").startswith("https:")
        _set_cookie(response, SESSION_COOKIE, cookie, SESSION_S, is_secure=is_secure, samesite="strict")
        response.delete_cookie(DOOR_COOKIE, path="/console")
        return response

    async def sign_out(self, request: Request, visit: Visit) -> Response:
        """End the session."""
        await self._form(request, visit)
        assert visit.session is not None
        await self._sessions.sign_out(visit.session)
        response = _see("/console/sign-in?out=1")
        response.delete_cookie(SESSION_COOKIE, path="/console")
        return response

    async def prefer(self, request: Request, visit: Visit) -> Response:
        """Keep which language and appearance pages are to have."""
        form = await self._form(request, visit)
        response = _see(_back(form.get("back")))
        for name, cookie, known in (("language", LANGUAGE_COOKIE, LANGUAGES), ("theme", THEME_COOKIE, THEMES)):
            if form.get(name) in known:
                _set_cookie(response, cookie, form[name], _PREFERENCE_AGE_S, is_secure=False, samesite="lax")
        return response

    async def _door(
        self,
        request: Request,
        visit: Visit,
        back: str,
        *,
        status: int = 200,
        said: str | None = None,
        refusal: str | None = None,
        way: str = "password",
        minutes: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        kept = visit.cookie
        cookie = kept if kept is not None and self._sessions.is_signed(kept) else self._sessions.new_cookie()
        words = self._words(visit)
        response = await self._pages.render(
            "sign_in.html", visit, self._sessions.form_token(cookie), status=status, headers=headers,
            title=words["sign_in"], said=said and words[said], way=way, back=back, nav=None,
            refusal=refusal and words[refusal].format(minutes=minutes),
        )  # fmt: skip
        if cookie != kept:
            is_secure = request.url.scheme == "https"
            _set_cookie(response, DOOR_COOKIE, cookie, SESSION_S, is_secure=is_secure, samesite="strict")
        return response

    # --- pages

    async def start(self, request: Request, visit: Visit) -> Response:
        """Show the first page of a role."""
        assert visit.session is not None
        role = visit.session.caller.role
        if role in (Role.ADVERTISER, Role.AGENCY, Role.ADMIN):
            return _see("/console/campaigns")
        if role in (Role.FINANCE, Role.AUDITOR):
            return _see("/console/finance")
        words = self._words(visit)
        lead = words["no_pages_lead"].format(role=words[f"role_{role}"])
        return await self.render("message.html", visit, title=words["no_pages"], lead=lead)

    async def show_campaigns(self, request: Request, visit: Visit) -> Response:
        """Show a brand's campaigns."""
        asking = self.asking(visit)
        brand = await self._brand(request, visit, asking)
        if brand is None:
            return await self._choose_brand(visit, asking)
        shown = await self._look(request, visit, asking, brand)
        return await self.render("campaigns.html", visit, commands=asking.commands, **shown)

    async def send_csv(self, request: Request, visit: Visit) -> Response:
        """Send the period's report of campaigns as the API writes it."""
        asking = self.asking(visit)
        brand = await self._brand(request, visit, asking)
        if brand is None:
            raise NotFound("advertiser", "")
        period = choose_period(request.query_params, self._now(), self._time_zone).period
        query = {"from": period.begins_at.isoformat(), "to": period.ends_at.isoformat(), "advertiser_id": brand}
        response = await asking.raw("/v1/reports/campaigns", query, accept="text/csv")
        name = f"campaigns-{period.first}-{period.last}.csv"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def change_campaign(self, request: Request, visit: Visit) -> Response:
        """Change a campaign's daily budget, pause or resume it; show its row as it then stands."""
        form = await self._form(request, visit)
        asking = self.asking(visit)
        brand = await self._brand(request, visit, asking)
        if brand is None:
            raise NotFound("advertiser", "")
        campaign_id, words, formats = request.path_params["campaign_id"], self._words(visit), self._formats(visit)
        refusal: str | None = None
        try:
            if "daily_budget" in form:
                body: dict[str, object] = {"daily_budget_micros": formats.parse_money(form["daily_budget"])}
            else:
                body = {"status": form.get("status", "")}
            await asking.patch(f"/v1/campaigns/{quoted(campaign_id)}", body, form.get("etag", ""))
        except ValueError as unreadable:
            code = unreadable.args[0] if unreadable.args else ""
            problem = problem_of(unreadable)
            if problem is None and code not in ("amount_unreadable", "amount_too_fine"):
                raise
            refusal = (
                _refusal_words(problem, words)
                if problem
                else words[code].format(example=formats.typed_money(25_500_000))
            )
        except Exception as failure:
            problem = problem_of(failure)
            if problem is None or problem.status in (401, 403, 404) or problem.status >= 500:
                raise
            refusal = _refusal_words(problem, words)
            if problem.status == 412:
                form.pop("daily_budget", None)  # what stands there now is shown, not what was typed
        if refusal is None and not visit.is_partial:
            return _see("/console/campaigns?" + _kept(request.query_params) + f"#{campaign_id}")
        shown = await self._look(request, visit, self.asking(visit), brand)
        row = next((row for row in shown["rows"] if row.campaign_id == campaign_id), None)
        if row is None:
            raise NotFound("campaign", campaign_id)
        told: dict[str, Any] = {"of": campaign_id, "refusal": refusal, "typed": form.get("daily_budget"), "said": None}
        if refusal is None:
            amount = row.daily_budget_micros
            said = "budget_saved" if "daily_budget" in form else "was_paused" if row.is_paused else "was_resumed"
            told["said"] = words[said].format(
                name=row.name, amount=words["no_limit"] if amount is None else formats.money(amount)
            )
        status = 200 if refusal is None else 422
        shown["told"] = told
        if visit.is_partial:
            return await self.render("row.html", visit, status=status, row=row, **shown)
        return await self.render("campaigns.html", visit, status=status, commands=asking.commands, **shown)

    async def _look(self, request: Request, visit: Visit, asking: Asking, brand: str) -> dict[str, Any]:
        """Return everything the campaigns' page shows."""
        now, formats, query = self._now(), self._formats(visit), request.query_params
        choice = choose_period(query, now, self._time_zone)
        period = choice.period
        whose = {"advertiser_id": brand}
        campaigns = await asking.list("/v1/campaigns", Campaign, whose, LIST_PAGE_COUNT_MAX)
        budgets = await asking.list("/v1/ledger/budgets", CampaignBudget, whose, LIST_PAGE_COUNT_MAX)
        funds = await asking.get("/v1/ledger/credit-lines", FundsPage, whose)
        span = {"from": period.begins_at.isoformat(), "to": period.ends_at.isoformat()}
        by = "hour" if period.day_count == 1 else "day"
        report = await asking.get("/v1/reports/campaigns", PerformanceReport, {**span, "by": by, **whose})
        before: Figures | None = None
        if choice.compares:
            begins, ends = period.before(now)
            span = {"from": begins.isoformat(), "to": ends.isoformat()}
            earlier = await asking.get("/v1/reports/campaigns", PerformanceReport, {**span, **whose})
            before = sum_lines(earlier.items)
        funds_micros = sum(one.funds_micros for one in funds.items)
        total, figures = sum_lines(report.items), by_campaign(report.items)
        rows = make_rows(campaigns, {one.campaign_id: one for one in budgets}, figures, funds_micros, now, formats)
        there = {campaign.campaign_id for campaign in campaigns}
        sought = query.get("q", "").strip()
        gone_s, day_s = day_share(now, self._time_zone)
        words = self._words(visit)
        a, b = (query.get(name, "") for name in ("a", "b"))
        return {
            "title": words["campaigns_of"].format(brand=brand),
            "nav": "campaigns",
            "brand": brand,
            "choice": choice,
            "presets": PRESETS,
            "tiles": make_tiles(total, before, formats),
            "wallet": make_wallet(funds_micros, total.spend_micros, period, now),
            "metrics": METRICS,
            "chosen": (a if a in METRICS else "spend", b if b in METRICS else "sales"),
            "points": make_points(report.items, period, now, formats),
            "has_campaigns": bool(campaigns),
            "is_cut": len(campaigns) >= LIST_PAGE_COUNT_MAX * 200,
            "rows": [row for row in rows if sought.casefold() in row.name.casefold()],
            "sought": sought,
            "total": total,
            "archived": sum_lines(line for line in report.items if line.name not in there),
            "show": lambda figures, metric: show(figures, metric, formats),
            "day_permille": gone_s * 1000 // day_s,
            "day_gone": formats.percent(gone_s, day_s, digits=0),
            "query": _kept(query, brand=brand),
            "hidden": [(name, value) for name, value in _kept_pairs(query, brand)],
            "told": {"of": None, "refusal": None, "typed": None, "said": None},
        }

    # --- whose

    async def _brand(self, request: Request, visit: Visit, asking: Asking) -> str | None:
        """Return the advertiser a page is about, None where one is to be chosen.

        Raises:
            NotFound: none that the role acts for; as for one that does not exist.
        """
        assert visit.session is not None
        caller, named = visit.session.caller, request.query_params.get("advertiser_id")
        if caller.role == Role.ADMIN:
            return named or None
        if caller.role not in (Role.ADVERTISER, Role.AGENCY) or named not in (None, *caller.advertiser_ids):
            raise NotFound("advertiser", named or "")
        return named or caller.advertiser_id

    async def _choose_brand(self, visit: Visit, asking: Asking) -> Response:
        assert visit.session is not None
        caller = visit.session.caller
        brands = sorted(caller.advertiser_ids)
        if caller.role == Role.ADMIN:
            funds = await asking.list("/v1/ledger/credit-lines", dict[str, Any], {}, BRANDS_OF_ADMIN)
            brands = [one["advertiser_id"] for one in funds]
        title = self._words(visit)["choose_brand"]
        return await self.render("brands.html", visit, title=title, brands=brands, commands=asking.commands)

    # --- what every page needs

    def asking(self, visit: Visit) -> Asking:
        """Return the way to what whoever is signed in may see."""
        assert visit.session is not None
        return Asking(self._ask, visit.session.caller, visit.origin)

    async def _form(self, request: Request, visit: Visit) -> dict[str, str]:
        """Return a form's fields.

        Raises:
            FormRefused: it came from another origin, or without the token it was shown with, or is no form of ours.
        """
        origin = urlsplit(request.headers.get("origin", ""))
        if not origin.netloc or origin.netloc != request.headers.get("host"):
            raise FormRefused
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES_MAX:
                raise FormRefused
        try:
            form = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=16))
        except ValueError:
            raise FormRefused from None
        if not self._sessions.is_form_token(form.get("form_token", ""), visit.cookie):
            raise FormRefused
        return form

    async def render(self, template: str, visit: Visit, *, status: int = 200, **shown: Any) -> Response:
        """Return a page, with what every page needs."""
        token = "" if visit.cookie is None else self._sessions.form_token(visit.cookie)
        return await self._pages.render(template, visit, token, status=status, **{"nav": None, **shown})

    def _words(self, visit: Visit) -> dict[str, str]:
        return self._pages.words[visit.language]

    def _formats(self, visit: Visit) -> Any:
        return self._pages.formats[visit.language]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)


def _refusal_words(problem: Problem, words: Mapping[str, str]) -> str:
    """Return a refusal in the reader's language where there are words for it, else as the API says it."""
    return words.get(problem.code, problem.detail)


def _back(wanted: str | None) -> str:
    return wanted if wanted is not None and _BACK.fullmatch(wanted) else "/console"


def _kept_pairs(query: Mapping[str, str], brand: str | None = None) -> list[tuple[str, str]]:
    pairs = {name: query[name] for name in _KEPT_IN_LINKS if query.get(name)}
    return list((pairs | ({} if brand is None else {"advertiser_id": brand})).items())


def _kept(query: Mapping[str, str], brand: str | None = None) -> str:
    """Return the part of a page's query that its links and forms keep."""
    return urlencode(_kept_pairs(query, brand))


def _see(path: str) -> Response:
    return RedirectResponse(path, status_code=303, headers={"Cache-Control": "no-store"})


def _set_cookie(response: Response, name: str, value: str, age_s: int, *, is_secure: bool, samesite: Any) -> None:
    response.set_cookie(name, value, max_age=age_s, path="/console", httponly=True, secure=is_secure, samesite=samesite)

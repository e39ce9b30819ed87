"""The shop's routes: pages rendered on the server, with nothing on them that comes from elsewhere."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns, time_ns
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from affinity.navigation import Consent
from auction.request import Page, RequestPlacement, SlotRequest, SlotResponse
from bidder_api.shop.catalogue import Category, ShopCatalogue
from bidder_api.shop.page import DecidedPage, Explanation, Fact, lay_out, prices
from bidder_api.shop.pictures import draw
from bidder_api.shop.shelves import (
    CATEGORY_SHELF,
    GENERATIONS,
    HOME_END_CAP,
    HOME_MORE,
    PRODUCT_MORE,
    PRODUCT_VIEWED,
    ShelfPlan,
)
from bidder_api.shop.visitors import Visitors
from bidder_api.shop.words import Formats, choose_language, words_for

_HERE = Path(__file__).parent
_STATIC_TYPES = {"shop.css": "text/css; charset=utf-8", "shop.js": "text/javascript; charset=utf-8"}
_FORM_BYTES_MAX = 4_096
_COOKIE_AGE_S = 30 * 86_400
_TMAX_MS = 100
_BACK = re.compile(r"/(?:[a-z0-9-]+/?)*")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language, Cookie",
}


class Shop(Struct, frozen=True, kw_only=True):
    """What the shop's pages are made from.

    Attributes:
        fill: fills a page's slots; the milliseconds are when the request arrived, since 1970.
        explain: what the receipt of an answer says, None where there is none.
        site_keys: publishable keys the pages send navigation with, by the origin each is bound to.
    """

    fill: Callable[[SlotRequest, int], SlotResponse]
    explain: Callable[[SlotRequest, SlotResponse], Explanation | None]
    catalogue: ShopCatalogue
    visitors: Visitors
    site_keys: Mapping[str, str]
    currency: str


def routes(shop: Shop) -> list[Route]:
    """Return the shop's routes."""
    pages = _Pages(shop)
    return [
        Route("/", pages.home),
        Route("/c/{path:path}", pages.category),
        Route("/p/{product_id}", pages.product),
        Route("/shop/visitor", pages.switch_visitor, methods=["POST"]),
        Route("/shop/picture/{file_name}", _picture),
        Route("/shop/static/{file_name}", _static),
    ]


class _Pages:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._words = {language: words_for(language) for language in ("en", "fr")}
        self._formats = {language: Formats(language, shop.currency) for language in ("en", "fr")}
        digest = hashlib.sha256(b"".join((_HERE / "static" / name).read_bytes() for name in _STATIC_TYPES))
        self._static_version = digest.hexdigest()[:12]

    async def home(self, request: Request) -> Response:
        visit = _Visit(self._shop, request)
        page = self._decide(visit, Page(type="home"), (HOME_END_CAP, HOME_MORE))
        words = self._words[visit.language]
        return self._render(
            "page.html", visit, page=page, page_type="home", category_id=None, crumbs=[], subcategories=[],
            heading=words["shop"], current_aisle=None,
        )  # fmt: skip

    async def category(self, request: Request) -> Response:
        visit = _Visit(self._shop, request)
        category = self._shop.catalogue.category_of_url.get("/c/" + request.path_params["path"])
        if category is None:
            return self._render("missing.html", visit, status=404, current_aisle=None)
        page = self._decide(visit, Page(type="category", category_id=category.category_id), (CATEGORY_SHELF,))
        crumbs = self._shop.catalogue.path_to(category.category_id)
        return self._render(
            "page.html", visit, page=page, page_type="category", category_id=category.category_id, crumbs=crumbs,
            subcategories=category.children, heading=category.name, current_aisle=crumbs[0].name,
        )  # fmt: skip

    async def product(self, request: Request) -> Response:
        visit = _Visit(self._shop, request)
        product_id = request.path_params["product_id"]
        product = self._shop.catalogue.products.get(product_id)
        if product is None:
            return self._render("missing.html", visit, status=404, current_aisle=None)
        crumbs = self._shop.catalogue.path_to(product.product.product_type or "")
        asked = Page(type="product", product_id=product_id, category_id=product.product.product_type)
        page = self._decide(visit, asked, (PRODUCT_MORE, PRODUCT_VIEWED), exclude=[product_id])
        words, formats = self._words[visit.language], self._formats[visit.language]
        price, old_price = prices(product, formats)
        attributes = product.product.attributes
        facts = [Fact(words["brand"], product.product.brand)]
        if "lines_sold" in attributes:
            facts.append(Fact(words["lines_sold"], formats.number(float(attributes["lines_sold"]))))
        if "promotion_share" in attributes:
            facts.append(Fact(words["promotion_share"], formats.percent(float(attributes["promotion_share"]))))
        if "end_cap_weeks" in attributes:
            facts.append(Fact(words["on_end_cap"], formats.number(float(attributes["end_cap_weeks"]))))
        shown = {
            "product_id": product_id, "name": product.name, "size": product.size, "brand": product.product.brand,
            "picture": product.picture, "price": price, "old_price": old_price,
            "is_available": product.product.is_available, "facts": facts,
        }  # fmt: skip
        return self._render(
            "product.html", visit, page=page, product=shown, crumbs=crumbs,
            current_aisle=crumbs[0].name if crumbs else None,
        )  # fmt: skip

    async def switch_visitor(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_BYTES_MAX:
                return Response("form too large", status_code=413, headers=SECURITY_HEADERS)
        form = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        wanted, back = form.get("visitor", [""])[0], form.get("back", ["/"])[0]
        chosen = self._shop.visitors.chosen(wanted)
        response = RedirectResponse(
            back if _BACK.fullmatch(back) else "/", status_code=303, headers={"Cache-Control": "no-store"}
        )
        _set_cookie(response, "visitor", chosen or "stranger")
        return response

    def _decide(
        self, visit: "_Visit", page: Page, plans: Sequence[ShelfPlan], exclude: Sequence[str] = ()
    ) -> DecidedPage:
        """Ask the engine for a page; a generation is its placements and whether the visitor is told of."""
        visitor_id = None if visit.generation == "pinned" else visit.visitor_id
        request = SlotRequest(
            page=page,
            placements=[RequestPlacement(placement_id=plan.placement_id(visit.generation)) for plan in plans],
            visitor_id=visitor_id,
            consent=Consent(personalised=visitor_id is not None),
            exclude_product_ids=list(exclude),
            tmax_ms=_TMAX_MS,
            mode="merchandised",
        )
        began = perf_counter_ns()
        response = self._shop.fill(request, time_ns() // 1_000_000)
        duration_us = (perf_counter_ns() - began) // 1_000
        explanation = self._shop.explain(request, response)
        words, formats = self._words[visit.language], self._formats[visit.language]
        return lay_out(response, plans, explanation, duration_us, self._shop.catalogue, words, formats)

    def _render(
        self, template: str, visit: "_Visit", *, status: int = 200, current_aisle: str | None, **shown: Any
    ) -> Response:
        words = self._words[visit.language]
        text = self._templates.get_template(template).render(
            words=words,
            language=visit.language,
            static_version=self._static_version,
            site_key=visit.site_key,
            who=self._shop.visitors.describe(visit.visitor_id, words),
            choices=self._shop.visitors.everybody(words),
            aisles=self._shop.catalogue.aisles,
            current_aisle=current_aisle,
            tabs=[{"name": name, "number": f"{place}.0"} for place, name in enumerate(GENERATIONS, 1)],
            current_tab=visit.generation,
            path=visit.path,
            **shown,
        )
        response = HTMLResponse(
            text, status_code=status, headers={**SECURITY_HEADERS, "Content-Language": visit.language}
        )
        if visit.is_tab_new:
            _set_cookie(response, "tab", visit.generation)
        return response


class _Visit:
    """Who asks for a page, in which language, and which generation they look at."""

    def __init__(self, shop: Shop, request: Request) -> None:
        self.path = request.url.path
        self.language = choose_language(request.headers.get("accept-language", ""))
        origin = f"{request.url.scheme}://{request.url.netloc}"
        self.site_key = shop.site_keys.get(origin, "")
        self.visitor_id = shop.visitors.chosen(request.cookies.get("visitor"))
        asked = request.query_params.get("tab")
        self.is_tab_new = asked in GENERATIONS
        kept = request.cookies.get("tab")
        self.generation = asked if asked in GENERATIONS else kept if kept in GENERATIONS else GENERATIONS[-1]


async def _picture(request: Request) -> Response:
    svg = draw(request.path_params["file_name"])
    if svg is None:
        return Response(status_code=404)
    return Response(svg, media_type="image/svg+xml", headers=_cached_for_good())


async def _static(request: Request) -> Response:
    name = request.path_params["file_name"]
    if name not in _STATIC_TYPES:
        return Response(status_code=404)
    return Response(
        (_HERE / "static" / name).read_bytes(),
        headers={**_cached_for_good(), "Content-Type": _STATIC_TYPES[name]},
    )


def _cached_for_good() -> dict[str, str]:
    return {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


def _set_cookie(response: Response, name: str, value: str) -> None:
    response.set_cookie(name, value, max_age=_COOKIE_AGE_S, httponly=True, samesite="lax", path="/")


__all__ = ["Category", "Shop", "routes"]

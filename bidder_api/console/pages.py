"""How the console's pages leave: rendered and compressed in a thread, under a policy that runs our files only."""

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from bidder_api.console.formats import Formats
from bidder_api.console.sessions import Session
from bidder_api.console.words import LANGUAGES, words_for

_HERE = Path(__file__).parent
_VENDORED = _HERE.parent / "static"
_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
FILES: Mapping[str, tuple[Path, str]] = {
    "tabler.css": (_VENDORED / "tabler" / "tabler.min.css", _CSS),
    "htmx.js": (_VENDORED / "htmx" / "htmx.min.js", _JS),
    "chart.js": (_VENDORED / "chartjs" / "chart.umd.min.js", _JS),
    "console.css": (_HERE / "static" / "console.css", _CSS),
    "console.js": (_HERE / "static" / "console.js", _JS),
    "theme.js": (_HERE / "static" / "theme.js", _JS),
}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language, Accept-Encoding, Cookie",
}
RENDER_THREAD_COUNT = 2
_PAGE_COMPRESSION = 4


class Visit(Struct, frozen=True, kw_only=True):
    """Who looks at a page, and how they want it.

    Attributes:
        cookie: of the session, or of the form to sign in; None before either.
        back: the page to come back to from a form that is on every page.
    """

    language: str
    theme: str
    session: Session | None
    cookie: str | None
    back: str
    origin: str
    is_partial: bool
    takes_gzip: bool


class Pages:
    """Renders templates, in both languages.

    Args:
        currency, time_zone: the deployment's.
    """

    def __init__(self, currency: str, time_zone: str) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.words = {language: words_for(language) for language in LANGUAGES}
        self.formats = {language: Formats(language, currency, time_zone) for language in LANGUAGES}
        self._currency = currency
        self._time_zone = time_zone
        self._threads: anyio.CapacityLimiter | None = None

    async def render(
        self,
        template: str,
        visit: Visit,
        form_token: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **shown: Any,
    ) -> Response:
        """Return a page, or the part of one that was asked for."""

        def write() -> bytes:
            text = self._templates.get_template(template).render(
                words=self.words[visit.language],
                formats=self.formats[visit.language],
                visit=visit,
                form_token=form_token,
                currency=self._currency,
                time_zone=self._time_zone,
                version=static_version(),
                **shown,
            )
            encoded = text.encode()
            return gzip.compress(encoded, _PAGE_COMPRESSION, mtime=0) if visit.takes_gzip else encoded

        if self._threads is None:
            self._threads = anyio.CapacityLimiter(RENDER_THREAD_COUNT)
        body = await anyio.to_thread.run_sync(write, limiter=self._threads)
        encoding = {"Content-Encoding": "gzip"} if visit.takes_gzip else {}
        named = {**SECURITY_HEADERS, "Content-Language": visit.language, **encoding, **(headers or {})}
        return Response(body, status_code=status, headers=named, media_type="text/html; charset=utf-8")


async def send_file(request: Request) -> Response:
    """Return one of the console's files; its address changes with its content."""
    name = request.path_params["name"]
    if name not in FILES:
        return Response(status_code=404)
    is_compressed = "gzip" in request.headers.get("accept-encoding", "")
    body = await anyio.to_thread.run_sync(lambda: _file(name, is_compressed))
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
        "Content-Type": FILES[name][1],
    }
    return Response(body, headers=headers | ({"Content-Encoding": "gzip"} if is_compressed else {}))


@cache
def static_version() -> str:
    """Return a word that changes whenever one of the files does."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path, _ in FILES.values()))
    return digest.hexdigest()[:12]


@cache
def _file(name: str, is_compressed: bool) -> bytes:
    raw = FILES[name][0].read_bytes()
    return gzip.compress(raw, 9, mtime=0) if is_compressed else raw

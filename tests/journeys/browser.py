"""A real browser for journeys: what it complained about, what it asked elsewhere for, and pictures as artefacts."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo_process import DemoProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

ARTEFACTS = Path(__file__).parents[1] / "artefacts"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("a Chromium is required when CI is set, none was found")
        pytest.skip("no Chromium was found: its pages were NOT tested in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


class Visit:
    """A page, what it complained about, and what it reported to the server."""

    def __init__(self, browser: "Browser", demo: DemoProcess, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page: Page = self.context.new_page()
        self.demo = demo
        self.complaints: list[str] = []
        self.expected: list[str] = []  # how complaints begin that are no fault, such as of an answer that was to be 422
        self.foreign: list[str] = []
        self.results: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda failure: self.complaints.append(str(failure)))
        self.page.on("request", self._watch)
        self.page.on("requestfinished", self._read)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(text.startswith(one) for one in self.expected):
            self.complaints.append(text)

    def _watch(self, request: "Request") -> None:
        if not request.url.startswith(self.demo.url):
            self.foreign.append(request.url)

    def _read(self, request: "Request") -> None:
        if not request.url.endswith("/v1/events"):
            return
        events = json.loads(request.post_data or "{}").get("events", [])
        response = request.response()
        try:
            results = json.loads(response.text())["results"] if response else [None] * len(events)
        except Exception:  # a beacon sent while leaving has no body left to read
            results = [None] * len(events)
        self.results += list(zip(events, results, strict=True))

    def open(self, path: str) -> "Page":
        self.page.goto(self.demo.url + path)
        return self.page

    def reported(self, kind: str) -> list[dict[str, Any] | None]:
        return [result for event, result in self.results if event["type"] == kind]

    def picture(self, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")

    def close(self) -> None:
        self.context.close()
        assert self.complaints == [], self.complaints
        assert self.foreign == []

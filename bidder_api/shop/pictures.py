"""Product pictures as SVG: the data has none, so each product gets a simple drawing of what it is.

A picture is one drawing in one hue; the same few hundred serve the whole catalogue and are cached for good. The
drawings themselves, and which product gets which, are in `drawings.toml`.
"""

import re
import tomllib
from pathlib import Path
from zlib import crc32

from msgspec import Struct, convert

HUE_STEP = 12


class Drawings(Struct, frozen=True):
    """What `drawings.toml` holds."""

    drawing: dict[str, str]
    by_name: dict[str, str]
    by_category: dict[str, str]
    aisle: dict[str, tuple[str, int]]
    own_hue: dict[str, int]


DRAWINGS = convert(tomllib.loads((Path(__file__).parent / "drawings.toml").read_text(encoding="utf-8")), Drawings)
_WORDS = [
    (re.compile(rf"(?<![a-z]){re.escape(word)}(?:s|es)?(?![a-z])"), drawing)
    for word, drawing in DRAWINGS.by_name.items()
]
_UNKNOWN_AISLE = ("box", 204)


def picture_of(product_id: str, name: str, category_id: str) -> str:
    """Return the file name of a product's picture; two products of one kind differ a little in colour."""
    drawing = _drawing_of(name.lower(), category_id)
    own_hue = DRAWINGS.own_hue.get(drawing)
    _, aisle_hue = DRAWINGS.aisle.get(category_id.partition(" > ")[0], _UNKNOWN_AISLE)
    hue, spread = (aisle_hue, 4) if own_hue is None else (own_hue, 1)
    hue += HUE_STEP * (crc32(product_id.encode()) % (2 * spread + 1) - spread)
    return f"{drawing}-{hue % 360}.svg"


def picture_of_aisle(aisle: str) -> str:
    """Return the file name of an aisle's picture."""
    drawing, hue = DRAWINGS.aisle.get(aisle, _UNKNOWN_AISLE)
    return f"{drawing}-{hue}.svg"


def _drawing_of(name: str, category_id: str) -> str:
    for word, drawing in _WORDS:
        if word.search(name):
            return drawing
    while category_id:
        if category_id in DRAWINGS.by_category:
            return DRAWINGS.by_category[category_id]
        category_id = category_id.rpartition(" > ")[0]
    return "box"


def draw(file_name: str) -> str | None:
    """Return the SVG of a picture's file name, or None where there is no such picture."""
    drawing, _, hue_text = file_name.removesuffix(".svg").partition("-")
    if drawing not in DRAWINGS.drawing or not hue_text.isascii() or not hue_text.isdigit() or len(hue_text) > 3:
        return None
    hue = int(hue_text)
    if hue >= 360 or hue % HUE_STEP:
        return None
    shapes = DRAWINGS.drawing[drawing].format(
        m=f"hsl({hue} 58% 52%)", d=f"hsl({hue} 55% 34%)", l=f"hsl({(hue + 18) % 360} 70% 72%)", w=f"hsl({hue} 60% 96%)"
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 120">'
        f'<defs><linearGradient id="g" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="hsl({hue} 55% 95%)"/>'
        f'<stop offset="1" stop-color="hsl({hue} 45% 88%)"/></linearGradient></defs>'
        '<rect width="120" height="120" fill="url(#g)"/>'
        f'<rect y="98" width="120" height="22" fill="hsl({hue} 30% 80%)"/>'
        f'<ellipse cx="60" cy="101" rx="40" ry="5" fill="hsl({hue} 35% 66%)"/>{shapes}</svg>'
    )

"""How many decimals a currency has: ISO 4217, list one, as of 2024. All others have two."""

_WITHOUT = frozenset(
    [
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ]
)
_WITH_THREE = frozenset(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"])

MICROS = 1_000_000


def decimals_of(currency: str) -> int:
    """Return the digits after the point of amounts that can be paid."""
    if currency in _WITHOUT:
        return 0
    return 3 if currency in _WITH_THREE else 2


def minor_micros(currency: str) -> int:
    """Return the micros of the least amount that can be paid."""
    return int(MICROS // 10 ** decimals_of(currency))


def round_to_minor(micros: int, currency: str) -> int:
    """Return the nearest amount that can be paid, in micros; a half goes away from 0."""
    unit = minor_micros(currency)
    whole, rest = divmod(abs(micros), unit)
    rounded = (whole + (2 * rest >= unit)) * unit
    return -rounded if micros < 0 else rounded


def share_out(parts: list[int], total: int, currency: str) -> list[int]:
    """Return parts rounded to amounts that can be paid and that add up to `total`, each less than a unit off.

    Args:
        parts: micros.
        total: what they must add up to: the sum of the parts, rounded.
    """
    unit = minor_micros(currency)
    down = [part // unit * unit for part in parts]
    missing = (total - sum(down)) // unit
    largest_rest_first = sorted(range(len(parts)), key=lambda place: (down[place] - parts[place], place))
    for place in largest_rest_first[:missing]:
        down[place] += unit
    return down


def amount_text(micros: int, currency: str) -> str:
    """Return an amount that can be paid in digits, such as `1234.50`."""
    decimals = decimals_of(currency)
    whole, part = divmod(abs(micros) // minor_micros(currency), 10**decimals)
    text = f"{whole}.{part:0{decimals}d}" if decimals else str(whole)
    return f"-{text}" if micros < 0 else text

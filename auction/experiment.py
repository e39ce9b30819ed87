"""Who sees no paid fill, so that what advertising does can be measured: drawn once per visitor by a keyed hash."""

from hashlib import blake2b

from auction.settings import Settings

PPM = 1_000_000
ADS = "ads"
HOLDOUT = "holdout"


class Experiment:
    """The ad-free holdout. Without a share set aside there is no experiment, and nobody has a variant.

    Args:
        settings: share and name.
        key: 16 to 64 secret bytes; another key draws anew.
    """

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._holdout_ppm = settings.holdout_ppm
        self._hash = blake2b(settings.experiment_id.encode(), digest_size=8, key=key, person=b"endcap holdout")
        self.experiment_id = settings.experiment_id if settings.holdout_ppm else None

    def variant_of(self, unit: bytes) -> str | None:
        """Return the variant of a visitor's pseudonym (of the auction's id without consent), None if there is none."""
        if not self._holdout_ppm:
            return None
        drawn = self._hash.copy()
        drawn.update(unit)
        place = int.from_bytes(drawn.digest(), "big") * PPM >> 64
        return HOLDOUT if place < self._holdout_ppm else ADS

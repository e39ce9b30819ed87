"""How a delivery proves where it comes from: the symmetric scheme of the Standard Webhooks specification.

The secret of a webhook is derived from the deployment's own and kept nowhere, so that no copy of the database holds it;
a rotation derives the next one.

Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers"
(standard-webhooks/standard-webhooks: spec/standard-webhooks.md).
"""

import base64
import hmac
from collections.abc import Sequence

from bidder_api.access import derive_secret

SECRET_PREFIX = "whsec_"  # noqa: S105  # the mark that the specification puts before every secret


def secret_of(master: bytes, webhook_id: str, generation: int) -> bytes:
    """Return a webhook's secret, 32 bytes, another one after each rotation."""
    return derive_secret(master, f"webhook {webhook_id} {generation}")


def show_secret(secret: bytes) -> str:
    """Return a secret as its owner gets it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(secrets: Sequence[bytes], notice_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that sign a delivery with every live secret.

    Args:
        secrets: of which the receiver knows one.
        notice_id: the same on every attempt.
        at_s: when this attempt is made, seconds since 1970.
        body: exactly as it is sent.
    """
    signed = f"{notice_id}.{at_s}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets]
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }

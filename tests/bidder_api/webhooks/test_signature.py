"""Signatures are those of the published specification: its own library accepts them."""

import json
import re
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from bidder_api.webhooks.signature import secret_of, show_secret, sign

MASTER = bytes(range(32))
BODY = '{"type":"funds.low","timestamp":"2026-11-24T12:00:00Z","data":{"advertiser_id":"brio · é"}}'.encode()
DOCS = Path(__file__).parents[3] / "docs" / "webhooks.md"


def test_the_published_library_accepts_a_delivery() -> None:
    secret = secret_of(MASTER, "whk_1", 1)
    headers = sign([secret], "ntc_1", int(time.time()), BODY)
    assert Webhook(show_secret(secret)).verify(BODY, headers) == json.loads(BODY)
    signed = Webhook(show_secret(secret))
    assert set(headers) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    for changed in (
        (BODY + b" ", headers),
        (BODY, headers | {"webhook-id": "ntc_2"}),
        (BODY, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            signed.verify(*changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(show_secret(secret_of(MASTER, "whk_2", 1))).verify(BODY, headers)


def test_while_two_secrets_live_either_verifies() -> None:
    old, new = (secret_of(MASTER, "whk_1", generation) for generation in (1, 2))
    headers = sign([new, old], "ntc_1", int(time.time()), BODY)
    for secret in (old, new):
        Webhook(show_secret(secret)).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(show_secret(secret_of(MASTER, "whk_1", 3))).verify(BODY, headers)


def test_a_secret_is_long_enough_and_another_for_each_webhook_rotation_and_deployment() -> None:
    secrets = {
        secret_of(master, webhook_id, generation)
        for master in (MASTER, bytes(32))
        for webhook_id in ("whk_1", "whk_2")
        for generation in (1, 2)
    }
    assert len(secrets) == 8
    assert {len(secret) for secret in secrets} == {32}


def test_the_example_in_the_docs_tells_true_from_false() -> None:
    """The very text of the page is run."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    page: dict[str, object] = {}
    exec(compile(example, str(DOCS), "exec"), page)
    verify = page["verify"]
    assert callable(verify)
    secrets = [secret_of(MASTER, "whk_1", generation) for generation in (2, 1)]
    headers = sign(secrets, "ntc_1", int(time.time()), BODY)
    assert verify(show_secret(secrets[1]), headers, BODY) == json.loads(BODY)
    stale = sign(secrets, "ntc_1", int(time.time()) - 301, BODY)
    for secret, sent, body in (
        (secrets[0], headers, BODY + b" "),
        (secrets[0], stale, BODY),
        (bytes(32), headers, BODY),
        (secrets[0], headers | {"webhook-signature": "v1,"}, BODY),
    ):
        with pytest.raises(ValueError):
            verify(show_secret(secret), sent, body)

"""A key says who calls; nothing kept of it gives it back."""

import asyncio

import pytest

from bidder_api.access import Role, derive_secret, hash_secret, mint_key, parse_key
from bidder_api.errors import Unauthenticated
from bidder_api.store import get_key, revoke_key
from tests.bidder_api.world import HASH_KEY, NOW_MS, ORIGIN, RETAILER, World


def test_a_key_says_its_id_and_any_slip_of_the_hand_is_noticed() -> None:
    minted = mint_key(Role.ADMIN, HASH_KEY, NOW_MS)
    assert minted.text.startswith("ec_sk_")
    parsed = parse_key(minted.text)
    assert parsed is not None
    assert parsed[0] == minted.key_id
    assert hash_secret(HASH_KEY, parsed[1]) == minted.secret_hash
    for place in range(len(minted.text)):
        wrong = minted.text[:place] + ("x" if minted.text[place] != "x" else "y") + minted.text[place + 1 :]
        assert parse_key(wrong) is None


def test_a_site_key_can_be_told_from_a_secret_one() -> None:
    assert mint_key(Role.SITE, HASH_KEY, NOW_MS).text.startswith("ec_pk_")


def test_secrets_for_different_purposes_have_nothing_in_common() -> None:
    assert derive_secret(b"m" * 32, "a") != derive_secret(b"m" * 32, "b")


def test_the_database_holds_no_secret(world: World) -> None:
    text = world.key("finance")
    parsed = parse_key(text)
    assert parsed is not None
    record = world.read(lambda connection: get_key(connection, RETAILER, parsed[0]))
    assert parsed[1].encode() not in record.secret_hash
    assert parsed[1] not in str(record)


def authorization(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer ec_sk_a_b_c", "Bearer \xff"])
def test_what_is_no_key_is_refused(world: World, header: str) -> None:
    answer = world.client.get("/v1/campaigns", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] in ("key_missing", "key_invalid")


def test_another_ones_secret_with_ones_own_id_is_refused(world: World) -> None:
    own, other = world.key("admin"), world.key("admin")
    forged_stem = "_".join([*own.split("_")[:3], other.split("_")[3]])
    assert world.client.get("/v1/keys", headers=authorization(own)).status_code == 200
    from bidder_api.access import _checksum

    forged = f"{forged_stem}_{_checksum(forged_stem)}"
    assert world.client.get("/v1/keys", headers=authorization(forged)).status_code == 401


def test_a_key_made_by_another_process_works_at_once(world: World) -> None:
    world.client.get("/v1/keys", headers=authorization(world.key("admin")))
    text = world.key("admin")
    assert world.client.get("/v1/keys", headers=authorization(text)).status_code == 200


def test_a_revoked_key_stops_with_the_next_look_at_the_keys(world: World) -> None:
    text = world.key("admin")
    assert world.client.get("/v1/keys", headers=authorization(text)).status_code == 200
    parsed = parse_key(text)
    assert parsed is not None
    world.database.transact(lambda connection: revoke_key(connection, RETAILER, parsed[0], NOW_MS))
    world.keyring.refresh_now()
    assert world.client.get("/v1/keys", headers=authorization(text)).status_code == 401


def test_a_key_revoked_here_stops_at_once(world: World) -> None:
    text = world.key("finance")
    parsed = parse_key(text)
    assert parsed is not None
    assert world.call("DELETE", f"/v1/keys/{parsed[0]}", role="admin").status_code == 204
    assert world.client.get("/v1/changes", headers=authorization(text)).status_code == 401


def test_a_key_expires(world: World) -> None:
    from datetime import UTC, datetime

    text = world.key("admin", expires_at=datetime.fromtimestamp(NOW_MS / 1000 + 60, UTC))
    assert world.client.get("/v1/keys", headers=authorization(text)).status_code == 200
    world.clock.now_ms += 60_001
    assert world.client.get("/v1/keys", headers=authorization(text)).status_code == 401


def test_a_known_key_is_found_without_waiting(world: World) -> None:
    text = world.key("admin")
    header = f"Bearer {text}".encode()
    assert world.keyring.known_caller(header) is None
    caller = asyncio.run(world.keyring.identify(header))
    assert world.keyring.known_caller(header) == caller
    with pytest.raises(Unauthenticated):
        asyncio.run(world.keyring.identify(header + b"x"))


def test_a_site_key_is_bound_to_its_origin_and_to_two_operations(world: World) -> None:
    answer = world.call("GET", "/v1/campaigns", role="site")
    assert answer.json()["code"] == "role_not_allowed"
    assert ORIGIN in world.headers("site").values()

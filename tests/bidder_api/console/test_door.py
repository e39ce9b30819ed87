"""Who is let in, for how long, and what a form must carry."""

import subprocess
import sys
import time

import pytest

from bidder_api.access import Role, parse_key
from bidder_api.console.attempts import PER_ADDRESS, PER_NAME, WINDOW_MS, Attempts, TooManyAttempts
from bidder_api.console.sessions import SESSION_S
from bidder_api.errors import Conflict, Invalid
from bidder_api.store import disable_user, list_changes, revoke_key
from bidder_api.users import UserDraft, hash_password, is_password, make_user
from tests.bidder_api.console.visitor import Visitor, make_campaign
from tests.bidder_api.world import NOW_MS, RETAILER, World

PASSWORD = "correct horse battery"


def make(world: World, name: str = "ana", role: Role = Role.ADVERTISER, *advertiser_ids: str) -> str:
    draft = UserDraft(name=name, role=role, advertiser_ids=list(advertiser_ids) or ["acme"])
    return world.database.transact(lambda c: make_user(c, RETAILER, draft, PASSWORD, NOW_MS)).user_id


def sign_in_by_name(visitor: Visitor, name: str, password: str) -> int:
    visitor.get("/console/sign-in")
    return int(visitor.send("/console/sign-in", {"name": name, "password": password}).status_code)


def is_in(visitor: Visitor) -> bool:
    return int(visitor.get("/console/campaigns").status_code) == 200


def test_a_stranger_is_shown_the_door_and_comes_back_to_where_it_went(world: World) -> None:
    visitor = Visitor(world)
    answer = visitor.get("/console/campaigns?period=today")
    assert (answer.status_code, answer.headers["location"]) == (
        303, "/console/sign-in?back=%2Fconsole%2Fcampaigns%3Fperiod%3Dtoday",
    )  # fmt: skip
    visitor.get(answer.headers["location"])
    form = {"key": world.key("advertiser", "acme"), "back": "/console/campaigns?period=today"}
    assert visitor.send("/console/sign-in", form).headers["location"] == "/console/campaigns?period=today"
    assert is_in(visitor)


@pytest.mark.parametrize(
    "back", ["//evil.example/console", "https://evil.example", "/console/../x:y", "/consoleX", "/\\evil"]
)
def test_nobody_is_sent_elsewhere_after_signing_in(world: World, back: str) -> None:
    visitor = Visitor(world)
    visitor.get("/console/sign-in")
    form = {"key": world.key("advertiser", "acme"), "back": back}
    assert visitor.send("/console/sign-in", form).headers["location"] == "/console"


def test_the_cookie_is_for_the_server_alone(world: World) -> None:
    visitor = Visitor(world)
    cookie = visitor.sign_in(world.key("advertiser", "acme")).headers["set-cookie"].lower()
    for word in ("httponly", "samesite=strict", "path=/console", f"max-age={SESSION_S}"):
        assert word in cookie
    assert "secure" not in cookie.partition(";")[2].partition(",")[0]
    over_tls = Visitor(world)
    over_tls.get("/console/sign-in")
    form = {"key": world.key("advertiser", "acme")}
    answer = over_tls.send("/console/sign-in", form, origin="https://endcap.test")
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_a_made_up_or_bent_cookie_is_nobodys(world: World) -> None:
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    cookie = visitor.client.cookies["console_session"]
    for bent in ("", "x", "x.y", cookie[:-1] + ("a" if cookie[-1] != "a" else "b"), "é" + cookie[1:]):
        visitor.client.cookies.clear()
        answer = visitor.get("/console/campaigns", Cookie=f"console_session={bent}".encode("latin-1"))
        assert answer.status_code == 303, bent
    visitor.client.cookies.clear()
    assert visitor.get("/console/campaigns", Cookie=f"console_session={cookie}").status_code == 200


def test_the_cookie_of_the_sign_in_form_opens_nothing(world: World) -> None:
    visitor = Visitor(world)
    visitor.get("/console/sign-in")
    door = visitor.client.cookies["console_door"]
    assert visitor.get("/console/campaigns", Cookie=f"console_session={door}").status_code == 303


def test_signing_out_ends_the_session_even_for_who_kept_the_cookie(world: World) -> None:
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    cookie = visitor.client.cookies["console_session"]
    visitor.campaigns()
    assert visitor.send("/console/sign-out", {}).status_code == 303
    assert not is_in(visitor)
    assert visitor.get("/console/campaigns", Cookie=f"console_session={cookie}").status_code == 303


def test_a_session_ends_after_half_a_day(world: World) -> None:
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    world.clock.now_ms += SESSION_S * 1000 - 1
    assert is_in(visitor)
    world.clock.now_ms += 1
    assert not is_in(visitor)


def test_a_session_ends_with_its_key_within_a_second(world: World) -> None:
    text = world.key("advertiser", "acme")
    visitor = Visitor(world)
    visitor.sign_in(text)
    assert is_in(visitor)
    parsed = parse_key(text)
    assert parsed
    world.database.transact(lambda c: revoke_key(c, RETAILER, parsed[0], NOW_MS))  # as another process would
    ends = time.monotonic() + 1
    while is_in(visitor):
        assert time.monotonic() < ends


def test_a_session_ends_when_its_key_expires(world: World) -> None:
    from datetime import UTC, datetime

    text = world.key("advertiser", "acme", expires_at=datetime.fromtimestamp(NOW_MS / 1000 + 60, UTC))
    visitor = Visitor(world)
    visitor.sign_in(text)
    assert is_in(visitor)
    world.clock.now_ms += 60_000
    assert not is_in(visitor)


def test_a_user_signs_in_and_is_out_within_a_second_of_being_disabled(world: World) -> None:
    user_id = make(world)
    visitor = Visitor(world)
    assert sign_in_by_name(visitor, " ANA ", PASSWORD) == 303
    assert is_in(visitor)
    world.database.transact(lambda c: disable_user(c, RETAILER, user_id, NOW_MS))
    ends = time.monotonic() + 1
    while is_in(visitor):
        assert time.monotonic() < ends
    assert sign_in_by_name(visitor, "ana", PASSWORD) == 401


def test_what_a_user_changes_is_logged_under_its_id(world: World) -> None:
    user_id = make(world)
    campaign_id = make_campaign(world)
    visitor = Visitor(world)
    sign_in_by_name(visitor, "ana", PASSWORD)
    visitor.campaigns()
    visitor.send(f"/console/campaigns/{campaign_id}", {"status": "paused", "etag": visitor.etag(campaign_id)})
    last = world.read(lambda c: list_changes(c, RETAILER, 0, 100))[-1]
    assert (last.key_id, last.action, last.resource_id) == (user_id, "update", campaign_id)


def test_nothing_tells_an_unknown_name_from_a_wrong_password(world: World) -> None:
    make(world)
    pages = []
    for name in ("ana", "nobody"):
        visitor = Visitor(world)
        assert sign_in_by_name(visitor, name, "wrong password") == 401
        pages.append(visitor.page.replace(visitor.token(), ""))
    assert pages[0] == pages[1]


def test_an_unknown_name_takes_the_work_of_a_known_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from bidder_api.console import sessions

    make(world)
    looked_at: list[str] = []
    monkeypatch.setattr(sessions, "is_password", lambda password, kept: bool(looked_at.append(kept)))
    for name in ("ana", "nobody"):
        sign_in_by_name(Visitor(world), name, "wrong password")
    assert [kept.split("$")[:4] for kept in looked_at] == [["scrypt", "15", "8", "3"]] * 2


def test_a_sites_key_which_anybody_may_read_opens_nothing(world: World) -> None:
    assert Visitor(world).sign_in(world.key("site")).status_code == 401


def test_guessing_is_stopped_by_address_and_the_right_word_is_not_counted(world: World) -> None:
    text = world.key("advertiser", "acme")
    visitor = Visitor(world)
    for _ in range(PER_ADDRESS - 1):
        assert visitor.sign_in("ec_sk_wrong").status_code == 401
    for _ in range(3):
        assert visitor.sign_in(text).status_code == 303
        visitor.client.cookies.clear()
    assert visitor.sign_in("ec_sk_wrong").status_code == 401
    refused = visitor.sign_in(text)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == str(WINDOW_MS // 1000)
    world.clock.now_ms += WINDOW_MS
    assert visitor.sign_in(text).status_code == 303


def test_many_attempts_at_once_are_counted_before_any_is_answered() -> None:
    now = [0]
    attempts = Attempts(lambda: now[0])
    for number in range(PER_NAME):
        attempts.begin(f"address {number}", "ana")
    with pytest.raises(TooManyAttempts) as refused:
        attempts.begin("another", "ana")
    assert refused.value.retry_after_s == WINDOW_MS // 1000
    attempts.begin("another", "bob")
    now[0] = WINDOW_MS
    attempts.begin("another", "ana")


FORMS = {
    "/console/sign-in": {"key": "x"},
    "/console/sign-out": {},
    "/console/preferences": {"language": "fr"},
    "/console/campaigns/ID": {"status": "paused", "etag": "*"},
}


def test_these_are_all_the_forms_there_are(world: World) -> None:
    from bidder_api.console.endpoint import Parts, routes

    parts = Parts(sessions=None, ask=None, currency="EUR", time_zone="UTC", now_ms=lambda: 0)  # type: ignore[arg-type]
    posts = {route.path.replace("{campaign_id}", "ID") for route in routes(parts) if "POST" in (route.methods or ())}
    assert posts == set(FORMS)


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "fault", ["no token", "another's token", "no origin", "other origin", "null origin", "too large"]
)
def test_a_form_that_is_not_ours_changes_nothing(world: World, path: str, fault: str) -> None:
    campaign_id = make_campaign(world)
    visitor, other = Visitor(world), Visitor(world).sign_in_as("advertiser", "acme")
    other.campaigns()
    if path == "/console/sign-in":
        visitor.get("/console/sign-in")
    else:
        visitor.sign_in_as("advertiser", "acme").campaigns()
    faults = {
        "no token": {"token": None},
        "another's token": {"token": other.token()},
        "no origin": {"origin": None},
        "other origin": {"origin": "http://evil.example"},
        "null origin": {"origin": "null"},
    }
    form = FORMS[path] | ({"x": "x" * 9_000} if fault == "too large" else {})
    answer = visitor.send(path.replace("ID", campaign_id), form, **faults.get(fault, {}))  # type: ignore[arg-type]
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert world.call("GET", f"/v1/campaigns/{campaign_id}").json()["status"] == "active"
    assert "set-cookie" not in answer.headers
    if path != "/console/sign-in":
        assert is_in(visitor)


def test_every_form_on_every_page_carries_the_token(world: World) -> None:
    make_campaign(world)
    visitor = Visitor(world)
    pages = [visitor.get("/console/sign-in").text]
    visitor.sign_in_as("advertiser", "acme")
    pages += [
        visitor.campaigns(),
        visitor.get("/console/nothing").text,
        visitor.get("/console/campaigns?advertiser_id=x").text,
    ]
    count = 0
    for page in pages:
        for form in page.split("<form")[1:]:
            if 'method="post"' in form.partition(">")[0]:
                count += 1
                assert 'name="form_token" value="' in form.partition("</form>")[0]
    assert count >= 9


def test_passwords_are_kept_as_scrypt_and_salted() -> None:
    kept = hash_password(PASSWORD)
    assert PASSWORD not in kept
    assert kept != hash_password(PASSWORD)
    assert is_password(PASSWORD, kept)
    assert not is_password(PASSWORD + "x", kept)


def test_users_that_make_no_sense_are_refused(world: World) -> None:
    make(world)
    with pytest.raises(Conflict):
        make(world)
    for role, advertiser_ids, password in (
        (Role.SITE, [], PASSWORD),
        (Role.ADVERTISER, [], PASSWORD),
        (Role.ADVERTISER, ["acme", "brio"], PASSWORD),
        (Role.FINANCE, ["acme"], PASSWORD),
        (Role.FINANCE, [], "short"),
        (Role.FINANCE, [], "x" * 257),
    ):
        draft = UserDraft(name="bob", role=role, advertiser_ids=advertiser_ids)
        with pytest.raises(Invalid):
            world.database.transact(lambda c, d=draft, p=password: make_user(c, RETAILER, d, p, NOW_MS))


def test_what_pages_are_made_with_is_not_imported_before_one_is_asked_for() -> None:
    program = (
        "import sys, bidder_api.serving\n"
        "print([name for name in sys.modules if name in ('jinja2', 'babel', 'bidder_api.console.endpoint')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

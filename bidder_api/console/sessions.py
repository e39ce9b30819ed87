"""Who is signed in: a random, signed cookie, whose hash is kept with the key or user it stands for.

A session ends when it is signed out or half a day old, and with its key or user: those are looked up in the keyring,
which follows the database, with every page.
"""

import base64
import hmac
import secrets
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from msgspec import Struct

from bidder_api.access import Caller, Keyring, Role
from bidder_api.console.attempts import Attempts
from bidder_api.database import Database
from bidder_api.errors import Unauthenticated
from bidder_api.store import delete_session, find_session, insert_session
from bidder_api.users import PASSWORD_LENGTH_MAX, hash_password, is_password

T = TypeVar("T")

SESSION_S = 12 * 3600
NAME_LENGTH_MAX = 64
_NOBODY = "nobody"


class SignInRefused(Exception):
    """Name and password, or the key, are not right; which of them, and why, is not told."""


class Session(Struct, frozen=True):
    """Somebody signed in."""

    cookie: str
    caller: Caller
    name: str


class Sessions:
    """Opens, finds and ends sessions.

    Args:
        database: where they are kept.
        retailer_id: whose.
        keyring: the keys and users there are.
        secret: what cookies and form tokens are signed with.
        clock_ms: UTC, milliseconds since 1970.
    """

    def __init__(
        self, database: Database, retailer_id: str, keyring: Keyring, secret: bytes, clock_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._retailer_id = retailer_id
        self._keyring = keyring
        self._secret = secret
        self._clock_ms = clock_ms
        self._attempts = Attempts(clock_ms)
        self._scrypt: anyio.CapacityLimiter | None = None  # one at a time: it is slow and large on purpose
        self._nobodys_hash = ""

    # --- signing in and out

    async def sign_in_with_key(self, text: str, address: str) -> str:
        """Open a session for whoever holds a key; return its cookie.

        Raises:
            SignInRefused: no such key, or a site's, which anybody may read.
            TooManyAttempts: from this address.
        """
        self._attempts.begin(address, None)
        try:
            caller = await self._keyring.identify(b"Bearer " + text.strip().encode("utf-8", "replace"))
        except Unauthenticated:
            raise SignInRefused from None
        if caller.role == Role.SITE:
            raise SignInRefused
        self._attempts.succeed(address, None)
        return await self._open(caller.key_id)

    async def sign_in_with_password(self, name: str, password: str, address: str) -> str:
        """Open a session for a user; return its cookie. Takes as long whether or not there is such a user.

        Raises:
            SignInRefused: no such user, or another password.
            TooManyAttempts: from this address, or for this name.
        """
        name = name.strip().lower()[:NAME_LENGTH_MAX]
        self._attempts.begin(address, name)
        await self._keyring.refresh()
        user = self._keyring.user_named(name)
        nobodys = await self._hash_of_nobody()
        kept = nobodys if user is None else user.password_hash
        is_right = await self._slowly(lambda: is_password(password, kept))
        if user is None or not is_right or len(password) > PASSWORD_LENGTH_MAX:
            raise SignInRefused
        self._attempts.succeed(address, name)
        return await self._open(user.user_id)

    async def sign_out(self, session: Session) -> None:
        """End a session here and everywhere."""
        kept = self._kept(session.cookie)
        await anyio.to_thread.run_sync(
            lambda: self._database.transact(lambda connection: delete_session(connection, self._retailer_id, kept))
        )

    # --- pages

    async def find(self, cookie: str | None) -> Session | None:
        """Return who a cookie says is signed in, None where nobody is, or no longer."""
        if cookie is None or not self.is_signed(cookie):
            return None
        kept, now_ms = self._kept(cookie), self._clock_ms()
        subject_id = await anyio.to_thread.run_sync(
            lambda: self._database.read(lambda connection: find_session(connection, self._retailer_id, kept, now_ms))
        )
        caller = None if subject_id is None else self._keyring.caller_known_as(subject_id)
        if subject_id is None or caller is None:
            return None
        return Session(cookie, caller, self._keyring.name_of(subject_id))

    def new_cookie(self) -> str:
        """Return 256 bits of chance, signed."""
        chance = secrets.token_urlsafe(32)
        return f"{chance}.{self._sign('cookie', chance)}"

    def form_token(self, cookie: str) -> str:
        """Return what a form must carry that was shown to the holder of a cookie."""
        return self._sign("form", cookie)

    def is_form_token(self, token: str, cookie: str | None) -> bool:
        """Say whether a form was ours, and shown to the holder of this cookie."""
        return (
            cookie is not None
            and self.is_signed(cookie)
            and hmac.compare_digest(token.encode("utf-8", "replace"), self.form_token(cookie).encode())
        )

    async def _open(self, subject_id: str) -> str:
        cookie, now_ms = self.new_cookie(), self._clock_ms()
        kept, expires_at_ms = self._kept(cookie), now_ms + SESSION_S * 1000
        await anyio.to_thread.run_sync(
            lambda: self._database.transact(
                lambda connection: insert_session(
                    connection, self._retailer_id, kept, subject_id, now_ms, expires_at_ms
                )
            )
        )
        return cookie

    async def _hash_of_nobody(self) -> str:
        if not self._nobodys_hash:
            self._nobodys_hash = await self._slowly(lambda: hash_password(_NOBODY))
        return self._nobodys_hash

    async def _slowly(self, work: Callable[[], T]) -> T:
        if self._scrypt is None:
            self._scrypt = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(work, limiter=self._scrypt)

    def _kept(self, cookie: str) -> bytes:
        return hmac.digest(self._secret, b"kept " + cookie.encode(), "sha256")

    def is_signed(self, cookie: str) -> bool:
        """Say whether a cookie is one of ours."""
        chance, _, signature = cookie.partition(".")
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign("cookie", chance).encode())

    def _sign(self, purpose: str, text: str) -> str:
        signed = hmac.digest(self._secret, f"{purpose} {text}".encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

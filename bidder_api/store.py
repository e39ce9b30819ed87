"""The tables of this package: the deployment, keys, users and their sessions, the change log, idempotent answers.

Every function takes an open connection and the retailer's id; who calls decides what one transaction is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

metadata = sa.MetaData()

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("key_version", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
)

access_keys = sa.Table(
    "access_keys",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("advertiser_ids", sa.Text, nullable=False),
    sa.Column("origin", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_at_ms", sa.BigInteger),
    sa.Column("revoked_at_ms", sa.BigInteger),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("advertiser_ids", sa.Text, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("disabled_at_ms", sa.BigInteger),
    sa.Index("uq_users_name", "retailer_id", "name", unique=True),
)

console_sessions = sa.Table(
    "console_sessions",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("session_hash", sa.LargeBinary, primary_key=True),
    sa.Column("subject_id", sa.Text, nullable=False),  # the key or the user it was opened with
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
)

change_log = sa.Table(
    "change_log",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("recorded_at_ms", sa.BigInteger, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
)

idempotent_answers = sa.Table(
    "idempotent_answers",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Index("idempotent_answers_by_age", "retailer_id", "created_at_ms"),
)

UNANSWERED = 0  # status of a row whose transaction has not finished; never visible to another one


class Deployment(Struct, frozen=True):
    """What is fixed when the database is made: whose it is, its one currency and its one time zone."""

    retailer_id: str
    currency: str
    time_zone: str
    created_at_ms: int


class KeyRecord(Struct, frozen=True, kw_only=True):
    """A key as it is kept: never its secret."""

    key_id: str
    secret_hash: bytes
    role: str
    advertiser_ids: list[str]
    origin: str | None
    name: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class UserRecord(Struct, frozen=True, kw_only=True):
    """Somebody who signs in to the console by name and password, as it is kept: never the password."""

    user_id: str
    name: str
    password_hash: str
    role: str
    advertiser_ids: list[str]
    created_at_ms: int
    disabled_at_ms: int | None


class ChangeRecord(Struct, frozen=True, kw_only=True):
    """One change of anything: who, what, before and after (JSON text, None where there was or is nothing)."""

    seq: int
    recorded_at_ms: int
    key_id: str
    role: str
    action: str
    kind: str
    resource_id: str
    before: str | None
    after: str | None


class IdempotentAnswer(Struct, frozen=True, kw_only=True):
    """What was answered to a key the first time."""

    fingerprint: bytes
    status: int
    headers: dict[str, str]
    body: bytes


def read_deployment(connection: Connection) -> Deployment | None:
    """Return the one deployment of this database, None before `endcap db upgrade` made it."""
    row = connection.execute(
        sa.select(
            deployment.c.retailer_id, deployment.c.currency, deployment.c.time_zone, deployment.c.created_at_ms
        ).limit(1)
    ).first()
    return Deployment(*row) if row else None


def insert_deployment(connection: Connection, made: Deployment) -> None:
    """Write the deployment's row; there is one per database."""
    connection.execute(
        deployment.insert().values(
            retailer_id=made.retailer_id,
            currency=made.currency,
            time_zone=made.time_zone,
            key_version=0,
            created_at_ms=made.created_at_ms,
        )
    )


def insert_key(connection: Connection, retailer_id: str, record: KeyRecord) -> None:
    """Keep a new key, and let every process know that keys changed."""
    values = msgspec.structs.asdict(record)
    values["advertiser_ids"] = _text(record.advertiser_ids)
    connection.execute(access_keys.insert().values(retailer_id=retailer_id, **values))
    _bump_key_version(connection, retailer_id)


def revoke_key(connection: Connection, retailer_id: str, key_id: str, now_ms: int) -> None:
    """Mark a key revoked; revoking it again keeps the first time."""
    connection.execute(
        access_keys.update()
        .where(
            access_keys.c.retailer_id == retailer_id,
            access_keys.c.key_id == key_id,
            access_keys.c.revoked_at_ms.is_(None),
        )
        .values(revoked_at_ms=now_ms)
    )
    _bump_key_version(connection, retailer_id)


def get_key(connection: Connection, retailer_id: str, key_id: str) -> KeyRecord | None:
    """Return one key, revoked and expired ones too."""
    row = connection.execute(
        _select_keys(retailer_id).where(access_keys.c.key_id == key_id),
    ).first()
    return _key(row) if row else None


def list_keys(connection: Connection, retailer_id: str, after: str | None, limit: int | None) -> list[KeyRecord]:
    """Return keys in the order they were made, from behind `after`; no limit is all of them."""
    query = _select_keys(retailer_id).order_by(access_keys.c.key_id).limit(limit)
    if after is not None:
        query = query.where(access_keys.c.key_id > after)
    return [_key(row) for row in connection.execute(query)]


def read_live_keys(connection: Connection, retailer_id: str) -> list[KeyRecord]:
    """Return every key that was not revoked."""
    query = _select_keys(retailer_id).where(access_keys.c.revoked_at_ms.is_(None))
    return [_key(row) for row in connection.execute(query)]


def read_key_version(connection: Connection, retailer_id: str) -> int:
    """Return the number that grows with every change of any key."""
    query = sa.select(deployment.c.key_version).where(deployment.c.retailer_id == retailer_id)
    return int(connection.execute(query).scalar_one())


def insert_user(connection: Connection, retailer_id: str, record: UserRecord) -> None:
    """Keep a new user, and let every process know."""
    values = msgspec.structs.asdict(record)
    values["advertiser_ids"] = _text(record.advertiser_ids)
    connection.execute(users.insert().values(retailer_id=retailer_id, **values))
    _bump_key_version(connection, retailer_id)


def disable_user(connection: Connection, retailer_id: str, user_id: str, now_ms: int) -> None:
    """Let a user in no more; disabling it again keeps the first time."""
    connection.execute(
        users.update()
        .where(users.c.retailer_id == retailer_id, users.c.user_id == user_id, users.c.disabled_at_ms.is_(None))
        .values(disabled_at_ms=now_ms)
    )
    _bump_key_version(connection, retailer_id)


def list_users(connection: Connection, retailer_id: str) -> list[UserRecord]:
    """Return every user by name, disabled ones too."""
    columns = [users.c[name] for name in UserRecord.__struct_fields__]
    query = sa.select(*columns).where(users.c.retailer_id == retailer_id).order_by(users.c.name)
    found = []
    for row in connection.execute(query):
        advertiser_ids = msgspec.json.decode(row.advertiser_ids, type=list[str])
        found.append(UserRecord(**{**row._mapping, "advertiser_ids": advertiser_ids}))
    return found


def insert_session(
    connection: Connection, retailer_id: str, session_hash: bytes, subject_id: str, now_ms: int, expires_at_ms: int
) -> None:
    """Keep a new session of the console, and drop those that have expired."""
    connection.execute(
        console_sessions.delete().where(
            console_sessions.c.retailer_id == retailer_id, console_sessions.c.expires_at_ms <= now_ms
        )
    )
    connection.execute(
        console_sessions.insert().values(
            retailer_id=retailer_id, session_hash=session_hash, subject_id=subject_id, expires_at_ms=expires_at_ms
        )
    )


def find_session(connection: Connection, retailer_id: str, session_hash: bytes, now_ms: int) -> str | None:
    """Return the key or user a session was opened with, None where there is none that has not expired."""
    query = sa.select(console_sessions.c.subject_id).where(
        console_sessions.c.retailer_id == retailer_id,
        console_sessions.c.session_hash == session_hash,
        console_sessions.c.expires_at_ms > now_ms,
    )
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def delete_session(connection: Connection, retailer_id: str, session_hash: bytes) -> None:
    """Forget a session; one that is not there is no matter."""
    connection.execute(
        console_sessions.delete().where(
            console_sessions.c.retailer_id == retailer_id, console_sessions.c.session_hash == session_hash
        )
    )


def insert_changes(connection: Connection, retailer_id: str, changes: Sequence[ChangeRecord]) -> None:
    """Write lines of the change log; each one's number is its leaf's in the hash chain."""
    connection.execute(
        change_log.insert(), [{"retailer_id": retailer_id, **msgspec.structs.asdict(change)} for change in changes]
    )


def list_changes(connection: Connection, retailer_id: str, after: int, limit: int) -> list[ChangeRecord]:
    """Return changes with a number above `after`, oldest first."""
    query = (
        sa.select(*[change_log.c[name] for name in ChangeRecord.__struct_fields__])
        .where(change_log.c.retailer_id == retailer_id, change_log.c.seq > after)
        .order_by(change_log.c.seq)
        .limit(limit)
    )
    return [ChangeRecord(**row._mapping) for row in connection.execute(query)]


def summarize_changes(connection: Connection, retailer_id: str, kind: str, since_ms: int) -> tuple[int, int | None]:
    """Return how many changes of a kind of thing were made since then, and when the last was."""
    query = sa.select(sa.func.count(), sa.func.max(change_log.c.recorded_at_ms)).where(
        change_log.c.retailer_id == retailer_id, change_log.c.kind == kind, change_log.c.recorded_at_ms >= since_ms
    )
    row = connection.execute(query).one()
    return int(row[0]), row[1]


def read_changes(connection: Connection, retailer_id: str) -> Iterator[ChangeRecord]:
    """Yield the whole change log in order, a page at a time."""
    after = 0
    while page := list_changes(connection, retailer_id, after, 1000):
        yield from page
        after = page[-1].seq


def claim_answer(
    connection: Connection, retailer_id: str, scope: str, idempotency_key: str, fingerprint: bytes, now_ms: int
) -> IdempotentAnswer | None:
    """Claim an idempotency key for this transaction, or return what was answered to it before.

    A second transaction with the same key waits here until the first one has committed or rolled back.
    """
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    claimed = connection.execute(
        insert(idempotent_answers)
        .values(
            retailer_id=retailer_id,
            scope=scope,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            status=UNANSWERED,
            headers="{}",
            body=b"",
            created_at_ms=now_ms,
        )
        .on_conflict_do_nothing()
        .returning(idempotent_answers.c.status)
    ).first()
    if claimed is not None:
        return None
    row = connection.execute(
        sa.select(
            idempotent_answers.c.fingerprint,
            idempotent_answers.c.status,
            idempotent_answers.c.headers,
            idempotent_answers.c.body,
        ).where(*_answer_key(retailer_id, scope, idempotency_key))
    ).one()
    return IdempotentAnswer(
        fingerprint=bytes(row.fingerprint),
        status=row.status,
        headers=msgspec.json.decode(row.headers, type=dict[str, str]),
        body=bytes(row.body),
    )


def keep_answer(
    connection: Connection, retailer_id: str, scope: str, idempotency_key: str, answer: IdempotentAnswer
) -> None:
    """Fill in the answer to a key claimed in this transaction."""
    connection.execute(
        idempotent_answers.update()
        .where(*_answer_key(retailer_id, scope, idempotency_key))
        .values(status=answer.status, headers=_text(answer.headers), body=answer.body)
    )


def forget_answers(connection: Connection, retailer_id: str, before_ms: int) -> int:
    """Delete the answers kept since before that time; return how many there were."""
    return connection.execute(
        idempotent_answers.delete().where(
            idempotent_answers.c.retailer_id == retailer_id, idempotent_answers.c.created_at_ms < before_ms
        )
    ).rowcount


def _answer_key(retailer_id: str, scope: str, idempotency_key: str) -> Sequence[sa.ColumnElement[bool]]:
    return (
        idempotent_answers.c.retailer_id == retailer_id,
        idempotent_answers.c.scope == scope,
        idempotent_answers.c.idempotency_key == idempotency_key,
    )


def _select_keys(retailer_id: str) -> sa.Select[Any]:
    columns = [access_keys.c[name] for name in KeyRecord.__struct_fields__]
    return sa.select(*columns).where(access_keys.c.retailer_id == retailer_id)


def _key(row: sa.Row[Any]) -> KeyRecord:
    values = dict(row._mapping)
    values["advertiser_ids"] = msgspec.json.decode(values["advertiser_ids"], type=list[str])
    values["secret_hash"] = bytes(values["secret_hash"])
    return KeyRecord(**values)


def _bump_key_version(connection: Connection, retailer_id: str) -> None:
    connection.execute(
        deployment.update()
        .where(deployment.c.retailer_id == retailer_id)
        .values(key_version=deployment.c.key_version + 1)
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()

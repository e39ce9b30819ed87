"""Every setting, read from the environment once: `ENDCAP_*` variables become frozen structs.

Unknown and malformed variables are refused by name, all at once. Nothing else reads the environment. The structs of
the other packages are filled from here too: field `tmax_ms` of one of them is `ENDCAP_TMAX_MS`.
"""

import difflib
import inspect
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

from affinity.settings import Settings as AffinitySettings
from auction.settings import Settings as AuctionSettings
from ledger.beacon import BeaconKeys
from ledger.settings import Settings as LedgerSettings
from ledger.traffic import parse_ranges

PREFIX = "ENDCAP_"
_VISITOR_STORE = r"^(memory://|(valkey|redis)s?://[^\s/][^\s]*)(?![\s\S])"


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of the server as a whole.

    Attributes:
        data_dir: folder of everything the server writes beside the database: secrets, snapshots, models, navigation
            log, visitors' records, receipts.
        database_url: `sqlite:///path` or `postgresql://user:password@host/database`; left out,
            `sqlite:///$ENDCAP_DATA_DIR/endcap.db`.
        host: address to listen on.
        port: TCP port to listen on; 0 takes a free one.
        currency: ISO 4217 code of the deployment's one currency; fixed when the database is made (left out
            then: EUR).
        time_zone: IANA name of the retailer's time zone, in which a budget's day begins; fixed when the database is
            made (left out then: UTC).
        secret_key: 64 hexadecimal digits all other secrets but the beacons' are derived from; left out, made in the
            data folder on SQLite and refused on PostgreSQL.
        beacon_keys: secrets the beacons' daily keys are derived from, `id:base64url,…`: the first one seals, all are
            accepted; left out, as secret_key.
        visitor_store: where visitors' state lives: `memory://`, each process's own, or a Valkey or Redis server that
            several share, `valkey://user:password@host:port/database` (also `redis://`, and with TLS `valkeys://`,
            `rediss://`).
        metrics: who may read `/metrics`: `open` anybody, `key` an admin's or auditor's key, `off` nobody.
        log_level: least severity that is logged, as JSON on standard error.
        body_deadline_s: seconds a client has to send one whole request.
        keep_alive_s: seconds an idle connection is kept.
        drain_s: most seconds SIGTERM waits for requests under way.
        connection_count_max: connections served at once; further requests get 503.
        management_thread_count: management calls that run at the same time.
        webhook_private_ranges: networks of your own that webhooks may lead to beside the public internet, such as
            `10.1.0.0/16, fd12::/32`.
        webhook_loopback: `on` lets webhooks lead to this very machine, also without TLS; for development.
    """

    data_dir: Path = Path(".endcap")
    database_url: Annotated[str, Meta(min_length=1)] | None = None
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}(?![\s\S])")] | None = None
    time_zone: Annotated[str, Meta(min_length=1)] | None = None
    secret_key: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}(?![\s\S])")] | None = None
    beacon_keys: Annotated[str, Meta(min_length=1)] | None = None
    visitor_store: Annotated[str, Meta(pattern=_VISITOR_STORE)] = "memory://"
    metrics: Literal["open", "key", "off"] = "open"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    body_deadline_s: Annotated[float, Meta(ge=0.1, le=600)] = 15.0
    keep_alive_s: Annotated[int, Meta(ge=1, le=600)] = 30
    drain_s: Annotated[int, Meta(ge=1, le=600)] = 10
    connection_count_max: Annotated[int, Meta(ge=1, le=100_000)] = 4096
    management_thread_count: Annotated[int, Meta(ge=1, le=64)] = 4
    webhook_private_ranges: str = ""
    webhook_loopback: Literal["on", "off"] = "off"

    def __post_init__(self) -> None:
        """Refuse ranges that are none.

        Raises:
            ValueError: one of them.
        """
        try:
            parse_ranges(self.webhook_private_ranges)
        except ValueError as refusal:
            raise ValueError(f"ENDCAP_WEBHOOK_PRIVATE_RANGES must be ranges such as 10.1.0.0/16: {refusal}") from None

    @property
    def url(self) -> str:
        """Return the database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir}/endcap.db"

    @property
    def shares_visitors(self) -> bool:
        """Say whether other processes may share the visitors' state."""
        return self.visitor_store != "memory://"

    @property
    def is_embedded(self) -> bool:
        """Say whether the database is a SQLite file of ours."""
        return self.url.startswith("sqlite")


class AllSettings(Struct, frozen=True, kw_only=True):
    """The server's settings and each package's own."""

    server: Settings = Settings()
    affinity: AffinitySettings = AffinitySettings()
    auction: AuctionSettings = AuctionSettings()
    ledger: LedgerSettings = LedgerSettings()


class SettingsRefused(ValueError):
    """One sentence for each variable that is unknown, malformed or missing."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = complaints


class SettingLine(Struct, frozen=True):
    """One setting as `endcap settings` shows it."""

    variable: str
    package: str
    value: str
    default: str
    is_set: bool
    sentence: str


_GROUPS = ("server", "affinity", "auction", "ledger")
_SECRET_FIELDS = frozenset({"secret_key", "beacon_keys"})


def read_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> AllSettings:
    """Return the settings of an environment (the process's own, unless one is given).

    Args:
        environment: variables by name; those that do not begin with `ENDCAP_` are not looked at.
        overrides: fields of `Settings` that stand above the environment, from the command line.

    Raises:
        SettingsRefused: unknown, malformed or contradicting variables, all of them at once.
    """
    environment = os.environ if environment is None else environment
    given = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
    groups = {name: _group_type(name) for name in _GROUPS}
    owners = _owners()
    complaints = [
        f"{name} is not a setting{_nearest(name, owners)}; `endcap settings` lists them all"
        for name in sorted(given)
        if name not in owners
    ]
    values: dict[str, dict[str, Any]] = {name: {} for name in _GROUPS}
    for variable, (group, field) in owners.items():
        if variable not in given:
            continue
        try:
            values[group][field.encode_name] = convert_text(given[variable], _hint(groups[group], field.name))
        except (msgspec.ValidationError, ValueError) as refusal:
            shown = "" if field.name in _SECRET_FIELDS else f", was {without_password(given[variable])!r}"
            complaints.append(f"{variable}: {refusal}{shown}")
    values["server"].update({name: value for name, value in overrides.items() if value is not None})
    time_zone = values["server"].get("time_zone") or "UTC"
    if not is_time_zone(time_zone):
        complaints.append(f"ENDCAP_TIME_ZONE must be a name of the IANA time zone database, was {time_zone!r}")
    shared = {name: value for name, value in values["server"].items() if name in ("currency", "time_zone")}
    built: dict[str, Any] = {}
    for name, kind in groups.items():
        try:
            known = {name: value for name, value in shared.items() if name in kind.__struct_fields__}
            built[name] = kind(**known | values[name])
        except ValueError as refusal:
            complaints.append(str(refusal))
    if complaints:
        raise SettingsRefused(complaints)
    return AllSettings(**built)


def list_settings(current: AllSettings) -> list[SettingLine]:
    """Return every setting there is, with its value now, its default and what it means; secrets are not shown."""
    lines = []
    for variable, (name, field) in _owners().items():
        group = getattr(current, name)
        value, default = getattr(group, field.name), _default(field)
        is_set = value != default
        lines.append(
            SettingLine(
                variable=variable,
                package="bidder_api" if name == "server" else name,
                value="set" if field.name in _SECRET_FIELDS and is_set else _show(value),
                default=_show(default),
                is_set=is_set,
                sentence=field_sentences(type(group)).get(field.name, ""),
            )
        )
    return lines


def field_sentences(kind: type) -> dict[str, str]:
    """Return what a struct's docstring says of each field, in its `Attributes:` section."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    sentences: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        starts = re.match(r"^ {4}(?P<name>[a-z_][a-z_0-9, ]*): (?P<text>.*)$", line)
        if starts:
            name = starts["name"]
            sentences[name] = starts["text"].strip()
        elif name and line.strip():
            sentences[name] += " " + line.strip()
    return {single.strip(): text for names, text in sentences.items() for single in names.split(",")}


def without_password(text: str) -> str:
    """Return a URL with its password left out, any other text as it is."""
    return re.sub(r"(?<=://)([^/@:]*):[^@]*@", r"\1:…@", text)


def convert_text(text: str, kind: Any) -> Any:
    """Turn a variable's text into a field's type.

    Raises:
        ValueError: the text does not fit the type.
    """
    if kind is Path:
        if not text:
            raise ValueError("must be a path")
        return Path(text)
    return msgspec.convert(text, kind, strict=False)


def is_time_zone(name: str) -> bool:
    """Say whether the IANA database knows the name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True


def for_deployment(settings: AllSettings, currency: str, time_zone: str) -> AllSettings:
    """Return the settings with the deployment's currency and time zone in every struct that has them."""
    fixed = {"currency": currency, "time_zone": time_zone}
    groups: dict[str, Any] = {}
    for name in _GROUPS:
        group = getattr(settings, name)
        known = {field: value for field, value in fixed.items() if field in group.__struct_fields__}
        groups[name] = msgspec.structs.replace(group, **known)
    return AllSettings(**groups)


def master_secret(settings: Settings) -> bytes:
    """Return the 32 bytes that access keys' hashes, pseudonyms and the like are derived from.

    Raises:
        SettingsRefused: no ENDCAP_SECRET_KEY on PostgreSQL.
    """
    text = settings.secret_key
    if text is None:
        text = _kept_secret(settings, "ENDCAP_SECRET_KEY", "secret.key", lambda: secrets.token_hex(32))
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise SettingsRefused(["secret.key in the data folder must hold 64 hexadecimal digits"])
    return bytes.fromhex(text)


def beacon_keys(settings: Settings) -> str:
    """Return the beacons' keys, as `BeaconKeys.parse` reads them.

    Raises:
        SettingsRefused: no ENDCAP_BEACON_KEYS on PostgreSQL, or none that can be read.
    """
    text = settings.beacon_keys
    if text is None:
        text = _kept_secret(settings, "ENDCAP_BEACON_KEYS", "beacon.keys", BeaconKeys.generate)
    try:
        BeaconKeys.parse(text)
    except ValueError as refusal:
        raise SettingsRefused([f"ENDCAP_BEACON_KEYS: {refusal}"]) from None
    return text


def generate_secret(variable: str) -> str:
    """Return a new value for `ENDCAP_SECRET_KEY` or `ENDCAP_BEACON_KEYS`."""
    return BeaconKeys.generate() if variable == "ENDCAP_BEACON_KEYS" else secrets.token_hex(32)


def _kept_secret(settings: Settings, variable: str, file_name: str, generate: Callable[[], str]) -> str:
    if not settings.is_embedded:
        raise SettingsRefused(
            [
                f"{variable} must be set on PostgreSQL, to a secret of your own and the same for every process; "
                f"make one with: endcap settings --generate {variable}"
            ]
        )
    path = settings.data_dir / file_name
    if not path.exists():
        _make_secret(path, generate())
    return path.read_text().strip()


def _make_secret(path: Path, text: str) -> None:
    """Write a new secret, whole or not at all; who comes second takes the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _owners() -> dict[str, tuple[str, FieldInfo]]:
    """Return every variable, with the struct and the field it sets.

    A field of the server's own stands for those of other packages that are named like it; one that two packages have
    carries the package's name, as in `ENDCAP_LEDGER_BODY_BYTES_MAX`.
    """
    own = {field.name for field in fields(Settings)}
    found = [(name, field) for name in _GROUPS for field in fields(_group_type(name))]
    counts = Counter(field.name for name, field in found if name != "server")
    owners = {}
    for name, field in found:
        if name == "server":
            owners[PREFIX + field.name.upper()] = (name, field)
        elif field.name not in own:
            middle = f"{name.upper()}_" if counts[field.name] > 1 else ""
            owners[PREFIX + middle + field.name.upper()] = (name, field)
    return owners


def _group_type(name: str) -> type[Struct]:
    kind: type[Struct] = get_type_hints(AllSettings, include_extras=True)[name]
    return kind


def _hint(kind: type, name: str) -> Any:
    return get_type_hints(kind, include_extras=True)[name]


def _default(field: FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None


def _show(value: Any) -> str:
    if value is None:
        return ""
    return without_password(value) if isinstance(value, str) else str(msgspec.to_builtins(value, enc_hook=str))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f" (did you mean {near[0]}?)" if near else ""

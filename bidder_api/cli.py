"""The `endcap` command. Nothing heavy is imported before a command runs, so that `--help` comes at once."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

if TYPE_CHECKING:
    from bidder_api.settings import AllSettings

DATA_DIR = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of everything the server writes."
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
EXIT_USAGE = 2


def main() -> None:
    """Run the command line, and say in one sentence what went wrong where that is enough."""
    endcap(prog_name="endcap")


class PlainErrors(click.Group):
    """A group whose commands end with a sentence rather than a traceback when they are refused."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as failure:
            sentence = sentence_of(failure)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from failure


def sentence_of(failure: Exception) -> str | None:
    """Return what to tell the person at the terminal, None where only a traceback helps."""
    code = getattr(failure, "code", None)
    if isinstance(code, str) and hasattr(failure, "retryable"):
        return f"{failure} ({code})"
    if type(failure).__name__ in (
        "SettingsRefused",
        "DatabaseRefused",
        "NotServable",
        "DemoRefusedError",
        "NothingRecorded",
    ):
        return str(failure)
    if type(failure).__module__.startswith("sqlalchemy") and hasattr(failure, "orig"):
        return f"the database refuses: {str(failure.orig).strip().splitlines()[0]}"
    if isinstance(failure, OSError) and failure.filename is not None:
        return f"{failure.filename}: {failure.strerror}"
    return None


@click.group(cls=PlainErrors, context_settings=CONTEXT)
@click.version_option(package_name="endcap", prog_name="endcap")
def endcap() -> None:
    """Endcap: an open retail-media auction server for product slots.

    Start with `endcap demo`. Everything is set by ENDCAP_* variables: `endcap settings` lists them.
    """


# --- serving -------------------------------------------------------------------------------------------------------


@endcap.command()
@click.option("--host", help="Address to listen on [default: ENDCAP_HOST or 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on [default: ENDCAP_PORT or 8080].")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Serving processes.")
@DATA_DIR
def serve(host: str | None, port: int | None, workers: int, data_dir: Path | None) -> None:
    """Serve fills, events and the APIs until SIGTERM.

    With the embedded SQLite the database is made and migrated as needed; a PostgreSQL database must be migrated
    beforehand with `endcap db upgrade`.
    """
    if workers > 1:
        raise click.UsageError(
            "one command is one serving process: run endcap serve once for each, with a data folder and a port of its "
            "own, on PostgreSQL and with a shared visitor store (ENDCAP_VISITOR_STORE in Valkey or Redis)"
        )
    from bidder_api.processes import serve as run

    sys.exit(run(_settings(host=host, port=port, data_dir=data_dir)))


@endcap.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on.")
@DATA_DIR
def demo(port: int, data_dir: Path | None) -> None:
    """Serve a demonstration shop with real products, everything on."""
    began_at = time.time()
    from bidder_api import demo as demonstration

    sys.exit(demonstration.run(_settings(port=port, data_dir=data_dir or Path(".endcap/demo")), began_at))


# --- database ------------------------------------------------------------------------------------------------------


@endcap.group()
def db() -> None:
    """Make and migrate the database."""


@db.command("upgrade")
@DATA_DIR
def db_upgrade(data_dir: Path | None) -> None:
    """Bring the database to the newest version; make it if it is new."""
    from bidder_api.deployment import open_configured, upgrade_database

    settings = _settings(data_dir=data_dir)
    database = open_configured(settings.server)
    try:
        deployment = upgrade_database(database, settings.server)
    finally:
        database.close()
    click.echo(f"The database is current: {deployment.currency}, {deployment.time_zone}.")


@db.command("downgrade")
@click.option("--revision", required=True, help="Revision to go back to; `base` is an empty database.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA_DIR
def db_downgrade(revision: str, yes: bool, data_dir: Path | None) -> None:
    """Take the database back to an earlier version, with what only later ones can hold lost."""
    from bidder_api.deployment import open_configured
    from bidder_api.migration import downgrade

    settings = _settings(data_dir=data_dir)
    if not yes:
        click.confirm(f"Take {_shown_url(settings)} back to {revision}, and lose data?", abort=True)
    database = open_configured(settings.server)
    try:
        database.transact(lambda connection: downgrade(connection, revision))
    finally:
        database.close()
    click.echo(f"The database is at {revision}.")


# --- keys ----------------------------------------------------------------------------------------------------------


@endcap.group()
def keys() -> None:
    """Make, list and revoke keys; works while the server runs."""


@keys.command("create")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["site", "retailer", "advertiser", "agency", "merchant", "crm", "finance", "auditor", "admin"]),
    help="What the key may be used for.",
)
@click.option("--advertiser-id", multiple=True, help="Advertiser it speaks for (an agency's: several); made if new.")
@click.option("--origin", help="Web origin a site's key may be used from, such as https://shop.example.")
@click.option("--name", default="command line", show_default=True, help="What it is for, in your words.")
@click.option("--days", type=click.IntRange(1, 3650), help="Days until it expires [default: never].")
@DATA_DIR
def keys_create(
    role: str, advertiser_id: tuple[str, ...], origin: str | None, name: str, days: int | None, data_dir: Path | None
) -> None:
    """Make a key and print it, once, as the last word."""
    import msgspec

    from bidder_api.access import Role, derive_secret
    from bidder_api.changes import COMMAND_LINE, Actor, Change, record_changes
    from bidder_api.deployment import opened
    from bidder_api.keys import KeyDraft, make_key, show
    from bidder_api.settings import master_secret

    settings = _settings(data_dir=data_dir)
    now_ms = _now_ms()
    raw: dict[str, Any] = {"role": role, "name": name, "advertiser_ids": list(advertiser_id)}
    if origin is not None:
        raw["origin"] = origin
    try:
        draft = msgspec.convert(raw, KeyDraft)
    except msgspec.ValidationError as refusal:
        raise click.UsageError(str(refusal)) from refusal
    if days is not None:
        from datetime import UTC, datetime

        draft = msgspec.structs.replace(draft, expires_at=datetime.fromtimestamp(now_ms / 1000 + days * 86_400, UTC))
    hash_key = derive_secret(master_secret(settings.server), "access keys")

    def work(connection: Any) -> tuple[str, str]:
        record, text = make_key(connection, deployment.retailer_id, draft, hash_key, now_ms)
        change = Change("create", "key", record.key_id, None, show(record))
        record_changes(connection, deployment.retailer_id, Actor(COMMAND_LINE, Role.ADMIN), [change], now_ms)
        return record.key_id, text

    with opened(settings.server) as (database, deployment):
        key_id, text = database.transact(work)
    click.echo(f"{role} key {key_id}, shown only now: {text}")


@keys.command("list")
@DATA_DIR
def keys_list(data_dir: Path | None) -> None:
    """List the keys there are; none is shown."""
    from rich.console import Console
    from rich.table import Table

    from bidder_api.deployment import opened
    from bidder_api.keys import show
    from bidder_api.store import list_keys

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        records = database.read(lambda connection: list_keys(connection, deployment.retailer_id, None, None))
    table = Table("key_id", "role", "speaks for", "name", "made", "expires", "revoked", box=None)
    for key in map(show, records):
        speaks_for = ", ".join(key.advertiser_ids) or key.origin or ""
        times = [f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (key.created_at, key.expires_at, key.revoked_at)]
        table.add_row(key.key_id, key.role, speaks_for, key.name, *times)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@keys.command("revoke")
@click.argument("key_id")
@DATA_DIR
def keys_revoke(key_id: str, data_dir: Path | None) -> None:
    """Revoke a key; within a second no process lets it in."""
    from bidder_api.access import Role
    from bidder_api.changes import COMMAND_LINE, Actor, Change, record_changes
    from bidder_api.deployment import opened
    from bidder_api.keys import show
    from bidder_api.store import get_key, revoke_key

    now_ms = _now_ms()

    def work(connection: Any) -> bool:
        record = get_key(connection, deployment.retailer_id, key_id)
        if record is None:
            return False
        if record.revoked_at_ms is None:
            revoke_key(connection, deployment.retailer_id, key_id, now_ms)
            change = Change("revoke", "key", key_id, show(record), None)
            record_changes(connection, deployment.retailer_id, Actor(COMMAND_LINE, Role.ADMIN), [change], now_ms)
        return True

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        is_known = database.transact(work)
    if not is_known:
        raise click.ClickException(f"there is no key {key_id!r}; `endcap keys list` shows them")
    click.echo(f"{key_id} is revoked.")


# --- users ---------------------------------------------------------------------------------------------------------


@endcap.group()
def users() -> None:
    """Make, list and disable people who sign in to the console; works while the server runs."""


@users.command("create")
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["retailer", "advertiser", "agency", "merchant", "crm", "finance", "auditor", "admin"]),
    help="What the user may do.",
)
@click.option("--advertiser-id", multiple=True, help="Advertiser the user acts for (an agency's: several).")
@click.password_option(help="At least 12 characters; asked for where it is not given.")
@DATA_DIR
def users_create(name: str, role: str, advertiser_id: tuple[str, ...], password: str, data_dir: Path | None) -> None:
    """Make a user who signs in with NAME and a password."""
    import msgspec

    from bidder_api.access import Role
    from bidder_api.changes import COMMAND_LINE, Actor, Change, record_changes
    from bidder_api.deployment import opened
    from bidder_api.users import UserDraft, make_user, show

    now_ms = _now_ms()
    try:
        draft = msgspec.convert({"name": name, "role": role, "advertiser_ids": list(advertiser_id)}, UserDraft)
    except msgspec.ValidationError as refusal:
        raise click.UsageError(str(refusal)) from refusal

    def work(connection: Any) -> str:
        record = make_user(connection, deployment.retailer_id, draft, password, now_ms)
        change = Change("create", "user", record.user_id, None, show(record))
        record_changes(connection, deployment.retailer_id, Actor(COMMAND_LINE, Role.ADMIN), [change], now_ms)
        return record.user_id

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        user_id = database.transact(work)
    click.echo(f"{name} ({role}) may sign in: {user_id}")


@users.command("list")
@DATA_DIR
def users_list(data_dir: Path | None) -> None:
    """List the users there are."""
    from rich.console import Console
    from rich.table import Table

    from bidder_api.deployment import opened
    from bidder_api.resources import moment
    from bidder_api.store import list_users

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        records = database.read(lambda connection: list_users(connection, deployment.retailer_id))
    table = Table("name", "role", "acts for", "user_id", "made", "disabled", box=None)
    for user in records:
        times = [f"{moment(at):%Y-%m-%d %H:%M}" if at else "" for at in (user.created_at_ms, user.disabled_at_ms)]
        table.add_row(user.name, user.role, ", ".join(user.advertiser_ids), user.user_id, *times)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@users.command("disable")
@click.argument("name")
@DATA_DIR
def users_disable(name: str, data_dir: Path | None) -> None:
    """Let a user in no more; within a second its sessions end."""
    from bidder_api.access import Role
    from bidder_api.changes import COMMAND_LINE, Actor, Change, record_changes
    from bidder_api.deployment import opened
    from bidder_api.store import disable_user, list_users
    from bidder_api.users import show

    now_ms = _now_ms()

    def work(connection: Any) -> bool:
        record = next((one for one in list_users(connection, deployment.retailer_id) if one.name == name), None)
        if record is None:
            return False
        if record.disabled_at_ms is None:
            disable_user(connection, deployment.retailer_id, record.user_id, now_ms)
            change = Change("disable", "user", record.user_id, show(record), None)
            record_changes(connection, deployment.retailer_id, Actor(COMMAND_LINE, Role.ADMIN), [change], now_ms)
        return True

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        is_known = database.transact(work)
    if not is_known:
        raise click.ClickException(f"there is no user {name!r}; `endcap users list` shows them")
    click.echo(f"{name} is disabled.")


# --- webhooks -----------------------------------------------------------------------------------------------------


@endcap.group()
def webhooks() -> None:
    """Webhooks and what was delivered to them; works while the server runs."""


@webhooks.command("list")
@DATA_DIR
def webhooks_list(data_dir: Path | None) -> None:
    """List the webhooks there are."""
    from rich.console import Console
    from rich.table import Table

    from bidder_api.deployment import opened
    from bidder_api.webhooks.store import list_webhooks

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        records = database.read(lambda connection: list_webhooks(connection, deployment.retailer_id))
    table = Table("webhook_id", "whose", "url", "told of", "status", box=None)
    for record in records:
        told = ", ".join(record.event_types) or "everything"
        table.add_row(record.webhook_id, record.advertiser_id or "the retailer", record.url, told, record.status)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@webhooks.command("deliveries")
@click.argument("webhook_id")
@click.option("--status", type=click.Choice(["pending", "delivered", "dead"]), help="Only those.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@DATA_DIR
def webhooks_deliveries(webhook_id: str, status: str | None, limit: int, data_dir: Path | None) -> None:
    """List a webhook's deliveries, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from bidder_api.deployment import opened
    from bidder_api.resources import moment
    from bidder_api.webhooks.store import list_deliveries

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        records = database.read(
            lambda connection: list_deliveries(connection, deployment.retailer_id, webhook_id, status, limit=limit)
        )
    table = Table("delivery_id", "type", "status", "attempts", "next", "answer", "error", box=None)
    for one in records:
        again = f"{moment(one.next_attempt_at_ms):%Y-%m-%d %H:%M:%S}" if one.status == "pending" else ""
        answer = "" if one.last_status is None else str(one.last_status)
        table.add_row(
            one.delivery_id, one.type, one.status, str(one.attempt_count), again, answer, one.last_error or ""
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@webhooks.command("redeliver")
@click.argument("delivery_id")
@DATA_DIR
def webhooks_redeliver(delivery_id: str, data_dir: Path | None) -> None:
    """Deliver a notice once more, under its id, whatever became of it."""
    from bidder_api.deployment import opened
    from bidder_api.webhooks.deliverer import make_again
    from bidder_api.webhooks.store import get_delivery, keep_attempt

    def work(connection: Any) -> bool:
        delivery = get_delivery(connection, deployment.retailer_id, delivery_id)
        return delivery is not None and keep_attempt(
            connection, deployment.retailer_id, delivery, make_again(delivery, _now_ms())
        )

    with opened(_settings(data_dir=data_dir).server) as (database, deployment):
        is_known = database.transact(work)
    if not is_known:
        raise click.ClickException(f"there is no delivery {delivery_id!r}; `endcap webhooks deliveries` shows them")
    click.echo(f"{delivery_id} is delivered again.")


# --- imports -------------------------------------------------------------------------------------------------------

FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@endcap.group()
def catalog() -> None:
    """The catalogue: products, their categories and who may advertise them."""


@catalog.command("import")
@FILE
@DATA_DIR
def catalog_import(file: Path, data_dir: Path | None) -> None:
    """Import a Google Merchant Center feed: TSV, XML or JSONL, also .gz.

    Good lines are imported, bad ones are named with their line numbers, and then the status is 1.
    """
    _import(file, data_dir, "catalog")


@endcap.group()
def navigation() -> None:
    """What visitors did."""


@navigation.command("import")
@FILE
@DATA_DIR
def navigation_import(file: Path, data_dir: Path | None) -> None:
    """Import navigation events, JSONL, of any age; importing asserts the visitors' consent.

    Lines are as in POST /v1/navigation, or as Google Analytics 4 exports them; those that tell of no shopping are left
    out.
    """
    _import(file, data_dir, "navigation")


@endcap.group()
def profiles() -> None:
    """What is known of customers."""


@profiles.command("import")
@FILE
@DATA_DIR
def profiles_import(file: Path, data_dir: Path | None) -> None:
    """Import profiles: JSONL of {visitor_id, segments[], attributes{}}."""
    _import(file, data_dir, "profiles")


@profiles.command("compute")
@DATA_DIR
def profiles_compute(data_dir: Path | None) -> None:
    """Compute every customer anew from orders and navigation; run it nightly, also beside a running server.

    \b
    lifecycle    prospect, new, active, lapsing, lost: by the days since the first and the last order
    rfm          eleven classes, by quintiles of recency, frequency and amount among the buyers
    clv          low, medium, high, top: by what a customer is expected to spend, the best 5 % being top
    promophile   0 to 100: share of units bought on promotion, drawn to the shop's own, which is 50
    price tier   0 to 100: where what was bought lies among its category's prices

    Who came into another lifecycle, rfm or clv segment since the last time is recorded with the date, for audiences
    that ask for it. Orders count for buyers who consented: of whom navigation, a profile or a link is kept. Servers
    take the results up within seconds. Nightly: `15 3 * * * endcap profiles compute --data-dir …` in a crontab.
    """  # noqa: D301  # click's own mark: keep these lines as they are
    from bidder_api.tasks import compute_profiles

    done = compute_profiles(_settings_of_log(data_dir), _progress)
    for name, count in sorted(done.segments.items()):
        click.echo(f"{name}: {count}")
    click.echo(f"{done.customer_count} customers computed, {done.entry_count} entries into segments recorded.")
    if done.without_consent:
        click.echo(f"{done.without_consent} lines of orders left out: nothing says that their buyers consented.")


@endcap.group()
def weather() -> None:
    """The weather of regions, for rules and bids that ask for it."""


@weather.command("import")
@FILE
@DATA_DIR
def weather_import(file: Path, data_dir: Path | None) -> None:
    """Import weather by region and hour: JSONL or CSV of region, from, weather, temperature_c; also .gz.

    A page then need only say its region. Good lines are imported, bad ones are named with their line numbers, and then
    the status is 1.
    """
    _import(file, data_dir, "weather")


# --- affinity ------------------------------------------------------------------------------------------------------


@endcap.group()
def affinity() -> None:
    """Models of how much a visitor leans towards each product."""


@affinity.command("train")
@click.option("--force", is_flag=True, help="Put the model in use even if it did worse than the one in use.")
@DATA_DIR
def affinity_train(force: bool, data_dir: Path | None) -> None:
    """Build the model from the imported navigation and save it with its metrics beside it.

    It is put in use, also by running servers, unless it foresaw the last sessions clearly worse than the model in use
    foresaw those of its time.
    """
    from bidder_api.affinity_report import print_training
    from bidder_api.tasks import train_affinity

    print_training(train_affinity(_settings_of_log(data_dir), _progress, is_forced=force), sys.stdout)


@affinity.command("evaluate")
@click.option("--top", "top_count", type=click.IntRange(1, 100), default=20, show_default=True, metavar="K")
@click.option("--format", "kind", type=click.Choice(["table", "json"]), default="table", show_default=True)
@DATA_DIR
def affinity_evaluate(top_count: int, kind: str, data_dir: Path | None) -> None:
    """Measure the model on what visitors did after the time it learns from, beside simpler rankings.

    The first nine tenths of the sessions are learnt from, the last tenth is foreseen. Nothing is saved.
    """
    from bidder_api.affinity_report import print_evaluation
    from bidder_api.tasks import evaluate_affinity

    print_evaluation(evaluate_affinity(_settings_of_log(data_dir), top_count, _progress), kind, sys.stdout)


@affinity.command("report")
@click.option("--format", "kind", type=click.Choice(["table", "json"]), default="table", show_default=True)
@DATA_DIR
def affinity_report(kind: str, data_dir: Path | None) -> None:
    """Say how predicted clicks hold on each placement, and how much its slots are looked at.

    Reads the counters a server keeps in the data folder, also beside a running one; they are a minute old at most. What
    is proposed for a placement can be set as its attention_permille.
    """
    from bidder_api.click_report import print_report
    from bidder_api.tasks import report_clicks

    print_report(report_clicks(_settings(data_dir=data_dir)), kind, sys.stdout)


@affinity.command("rank")
@DATA_DIR
def affinity_rank(data_dir: Path | None) -> None:
    """Rank the catalogue: JSONL of {"navigation": […], "limit": 20} in, of product_ids and scores out.

    A line's visitor_id stands for what is known of the visitor: in the shared visitor store where ENDCAP_VISITOR_STORE
    names one, else in the data folder's navigation log.
    """
    from bidder_api.tasks import rank_affinity

    _each_line(sys.stdin.buffer, sys.stdout, rank_affinity(_settings(data_dir=data_dir)))


# --- merchandising -------------------------------------------------------------------------------------------------


@endcap.group()
def merchandising() -> None:
    """How the shop sells: its categories and why they change, best-sellers, pairs, returns."""


def _period_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what is compared with what."""
    options = (
        click.option("--to", "last_day", metavar="DAY", help="Last day of the period [default: yesterday]."),
        click.option("--weeks", type=click.IntRange(1, 52), default=4, show_default=True, help="Length of the period."),
        click.option(
            "--history-weeks",
            type=click.IntRange(1, 104),
            default=12,
            show_default=True,
            help="Weeks just before the period that it is compared with.",
        ),
        click.option(
            "--against",
            type=click.Choice(["history", "year"]),
            default="history",
            show_default=True,
            help="Compare with those weeks, or with the same weeks 364 days earlier.",
        ),
        click.option(
            "--channel",
            type=click.Choice(["online", "store", "all"]),
            default="online",
            show_default=True,
            help="Whose orders count; visits explain online orders alone.",
        ),
        DATA_DIR,
    )
    for option in reversed(options):
        command = option(command)
    return command


@merchandising.command("report")
@click.option(
    "--format", "kind", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@click.option(
    "--table",
    type=click.Choice(["categories", "best-sellers", "cross-sell"]),
    default="categories",
    show_default=True,
    help="Which of the report's tables a CSV holds.",
)
@click.option(
    "--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Findings, best-sellers and pairs named."
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File [default: standard output].")
@_period_options
def merchandising_report(kind: str, table: str, top: int, output: Path | None, **period: Any) -> None:
    """Say which categories do better or worse, by what, and what sells best, sells together and comes back.

    Reads orders, navigation and the catalogue, also beside a running server; keeps nothing. A period is of whole weeks,
    so that weekdays are alike in what is compared, and its history is made as long as the period.

    \b
    orders          orders a week with something of the category; * where it is more than chance
    of shop         their share of the shop's orders
    traffic …       what each factor changed of the revenue; the parts add up to the change
      traffic       visits to the shop
      interest      share of them that looked at the category
      availability  share of looks that found the product in stock
      conversion    orders per visit that looked and found stock
      basket        products per order, and units of a product
      price         prices of products sold in both periods
      mix           dearer or cheaper products sold instead of others

    Over- or under-performing is what moves against the shop: in December everything rises. Where the shop itself
    stands still, a category's own history may tell it too. Revenue is before returns.
    Status 1 where nothing was sold in the period or its history, 2 where an option is wrong.
    """  # noqa: D301  # click's own mark: keep these lines as they are
    from bidder_api.merchandising import report
    from bidder_api.merchandising_words import print_report

    asked, settings = _asked_period(period, top)
    made, titles, time_zone = report(settings, asked, _now_ms(), _progress)
    if output is None:
        print_report(made, titles, time_zone, kind, table, top, sys.stdout)
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        print_report(made, titles, time_zone, kind, table, top, file)


@merchandising.command("compute")
@_period_options
def merchandising_compute(**period: Any) -> None:
    """Keep what rules may ask for: is_best_seller and category_trend. To be run every night.

    A product is a best-seller that is among the best tenth, at most ten, of the products sold in its category or in one
    above it in the period, by units, and is in at least five orders. A category's trend is rising, steady or falling,
    as `endcap merchandising report` says. A server takes them up within seconds.
    """
    from bidder_api.merchandising import compute

    asked, settings = _asked_period(period)
    signals = compute(settings, asked, _now_ms(), _progress)
    trends = list(signals.category_trends.values())
    counts = ", ".join(f"{trends.count(trend)} {trend}" for trend in ("rising", "steady", "falling"))
    click.echo(f"{len(signals.best_sellers)} best-sellers; categories: {counts}.")


def _asked_period(period: dict[str, Any], top_count: int = 10) -> Any:
    """Return what is to be reported, and the settings."""
    from datetime import date

    from bidder_api.merchandising import Asked

    data_dir, text = period.pop("data_dir"), period.pop("last_day")
    try:
        last_day = None if text is None else date.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--to must be a day such as 2026-11-23, was {text!r}") from None
    return Asked(last_day=last_day, top_count=top_count, **period), _settings(data_dir=data_dir)


# --- auction -------------------------------------------------------------------------------------------------------


@endcap.group()
def auction() -> None:
    """The auction by itself."""


@auction.command("solve")
def auction_solve() -> None:
    """Allocate and price pages: JSONL in, JSONL out; the kernel alone, no server and no data."""
    from auction.solve import solve_page

    _each_line(sys.stdin.buffer, sys.stdout, solve_page)


@auction.command("report")
@click.option("--from", "from_text", metavar="TIME", help="Auctions held from then on [default: all].")
@click.option("--to", "to_text", metavar="TIME", help="Auctions held before then; a day: until its end.")
@click.option("--format", "kind", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@DATA_DIR
def auction_report(from_text: str | None, to_text: str | None, kind: str, data_dir: Path | None) -> None:
    """Say what the recorded auctions come to, per placement and per advertiser.

    Reads the receipts in the data folder, also beside a running server. A TIME is a day in ENDCAP_TIME_ZONE,
    2026-11-23, or a moment with its offset, 2026-11-23T10:00:00+01:00.

    \b
    fill rate       fills per slot; an advertiser's: of the slots it took part for
    sponsored       a placement's paid fills of its fills; an advertiser's fills of all paid fills there
    revenue         price times expected events: attention, times predicted clicks
    price/bid       the same, over bid times expected events
    at floor        of expected clicks on paid fills, those at the price of the floor
    regret          what winners could have gained by another bid, if the bid is what an event is worth to
                    them; 0 under vcg. A loser has none: winning would have cost more than it was worth

    Status 1 where no receipt of that time is kept, 2 where an option is wrong. What cannot be read is told on
    standard error.
    """  # noqa: D301  # click's own mark: keep these lines as they are
    from bidder_api.report import print_report
    from bidder_api.tasks import report_auctions

    settings = _settings(data_dir=data_dir)
    from_ms = None if from_text is None else _moment("--from", from_text, settings, is_end=False)
    until_ms = None if to_text is None else _moment("--to", to_text, settings, is_end=True)
    if from_ms is not None and until_ms is not None and from_ms >= until_ms:
        raise click.UsageError(f"--from must be before --to, was {from_text} and {to_text}")
    report, unread = report_auctions(settings, from_ms, until_ms, _progress)
    for sentence in unread:
        click.echo(sentence, err=True)
    print_report(report, kind, sys.stdout)


# --- ledger --------------------------------------------------------------------------------------------------------


@endcap.group()
def ledger() -> None:
    """The books."""


@ledger.command("verify")
@click.option(
    "--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A checkpoint exported before."
)
@DATA_DIR
def ledger_verify(checkpoint: Path | None, data_dir: Path | None) -> None:
    """Check every event, entry and change against the hash chain; status 1 and the first bad row if touched."""
    from bidder_api.tasks import verify_ledger

    findings = verify_ledger(_settings(data_dir=data_dir), checkpoint, _progress)
    for line in findings.lines:
        click.echo(line)
    sys.exit(0 if findings.is_sound else 1)


@ledger.command("export")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "parquet", "xlsx", "hledger", "fec"]),
    default="csv",
    show_default=True,
)
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice(
        ["audit_entry", "audit_event", "audit_balance", "audit_budget", "audit_commission", "audit_chain"]
    ),
    help="What of the books, as csv, parquet or xlsx; xlsx takes several [default: audit_entry].",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File [default: standard output].")
@DATA_DIR
def ledger_export(kind: str, views: tuple[str, ...], output: Path | None, data_dir: Path | None) -> None:
    """Write the journal, or a view of the books, for other programs.

    \b
    csv      a view, amounts in whole micros
    parquet  the same: amounts as int64 micros, moments as timestamps in UTC
    xlsx     one sheet per view; beside each amount in micros the same in the currency
    hledger  a journal that `hledger check` proves
    fec      the French tax office's fichier des écritures comptables (name it <SIREN>FEC<YYYYMMDD>.txt)

    A file stands under its name once it is whole. parquet and xlsx need the extra: pip install 'endcap[export]'.
    """  # noqa: D301  # click's own mark: keep these lines as they are
    from bidder_api.tasks import export_ledger
    from bidder_api.whole_file import whole_file

    if views and kind in ("hledger", "fec"):
        raise click.UsageError(f"--view is for csv, parquet and xlsx; {kind} is the whole journal")
    if len(views) > 1 and kind != "xlsx":
        raise click.UsageError(f"{kind} holds one view, were {len(views)}: xlsx takes several")
    if output is None and kind in ("parquet", "xlsx") and sys.stdout.isatty():
        raise click.UsageError(f"{kind} is not for a terminal: give --output, or send standard output to a file")
    settings, some = _settings(data_dir=data_dir), views or ("audit_entry",)
    if output is None:
        export_ledger(settings, kind, some, sys.stdout.buffer, _progress)
        return
    with whole_file(output) as file:
        export_ledger(settings, kind, some, file, _progress)


@ledger.command("checkpoint")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File [default: standard output].")
@DATA_DIR
def ledger_checkpoint(output: Path | None, data_dir: Path | None) -> None:
    """Write a signed statement of where the hash chain stands, to be kept elsewhere."""
    from bidder_api.tasks import make_checkpoint

    _write(make_checkpoint(_settings(data_dir=data_dir)), output)


@ledger.command("receipt")
@click.argument("event_id", required=False)
@click.option("--order", "order_id", metavar="ORDER_ID", help="Of the commission on a line of this order instead.")
@click.option("--line", type=click.IntRange(1), default=1, show_default=True, help="The order's line.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint exported after the charge; whoever checks the receipt needs the same [default: one of now].",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File [default: standard output].")
@DATA_DIR
def ledger_receipt(
    event_id: str | None,
    order_id: str | None,
    line: int,
    checkpoint: Path | None,
    output: Path | None,
    data_dir: Path | None,
) -> None:
    """Write the receipt of one charge: the event, what was posted, and the proof that both are in the books.

    With --order, of the commission on one line of an order: the agreement, what was posted and what went back.
    """
    from bidder_api.tasks import make_charge_receipt, make_commission_receipt

    settings = _settings(data_dir=data_dir)
    if event_id is not None and order_id is None:
        _write(make_charge_receipt(settings, event_id, checkpoint), output)
    elif order_id is not None and event_id is None:
        _write(make_commission_receipt(settings, order_id, line, checkpoint), output)
    else:
        raise click.UsageError("give an EVENT_ID, or --order for commission")


@ledger.command("verify-receipt")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The checkpoint it was made for.",
)
@click.option("--public-key", help="The retailer's, hexadecimal; without it the checkpoint's own is believed.")
def ledger_verify_receipt(receipt: Path, checkpoint: Path, public_key: str | None) -> None:
    """Check the receipt of a charge or of commission and say what it proves. Needs neither the server nor its data."""
    from bidder_api.tasks import check_receipt

    for line in check_receipt(receipt, checkpoint, public_key):
        click.echo(line)


@ledger.group("commission")
def ledger_commission() -> None:
    """Commission on attributed sales: agreements, and posting what is due. Works while the server runs."""


@ledger_commission.command("agree")
@click.argument("advertiser_id")
@click.option("--rate-bps", type=click.IntRange(1, 10_000), required=True, help="Basis points of the sale; 1 % is 100.")
@click.option("--from", "from_text", metavar="TIME", required=True, help="For orders made from then on.")
@click.option("--to", "to_text", metavar="TIME", help="Before then; a day: until its end [default: until ended].")
@click.option("--min-micros", type=click.IntRange(1), help="The least for one line of an order.")
@click.option("--max-micros", type=click.IntRange(1), help="The most for one line of an order.")
@DATA_DIR
def ledger_commission_agree(
    advertiser_id: str,
    rate_bps: int,
    from_text: str,
    to_text: str | None,
    min_micros: int | None,
    max_micros: int | None,
    data_dir: Path | None,
) -> None:
    """Agree with an advertiser on a commission on the sales attributed to its campaigns.

    One agreement holds at a time. A TIME is a day in ENDCAP_TIME_ZONE, or a moment with its offset.
    """
    import msgspec

    from bidder_api.tasks import agree_commission
    from ledger.command import CommissionDraft

    settings = _settings(data_dir=data_dir)
    raw: dict[str, Any] = {
        "advertiser_id": advertiser_id,
        "rate_bps": rate_bps,
        "starts_at": _at("--from", from_text, settings, is_end=False),
        "ends_at": None if to_text is None else _at("--to", to_text, settings, is_end=True),
        "min_micros": min_micros,
        "max_micros": max_micros,
    }
    try:
        draft = msgspec.convert(raw, CommissionDraft)
    except msgspec.ValidationError as refusal:
        raise click.UsageError(str(refusal)) from refusal
    _print_json_line(agree_commission(settings, draft))


@ledger_commission.command("end")
@click.argument("commission_agreement_id")
@click.option("--at", "at_text", metavar="TIME", required=True, help="Orders made before then; a day: until its end.")
@DATA_DIR
def ledger_commission_end(commission_agreement_id: str, at_text: str, data_dir: Path | None) -> None:
    """Say when an agreement ends."""
    from bidder_api.tasks import end_commission

    settings = _settings(data_dir=data_dir)
    ends_at = _at("--at", at_text, settings, is_end=True)
    _print_json_line(end_commission(settings, commission_agreement_id, ends_at))


@ledger_commission.command("list")
@DATA_DIR
def ledger_commission_list(data_dir: Path | None) -> None:
    """List the agreements, a line of JSON for each."""
    from bidder_api.tasks import list_commission_agreements

    for agreement in list_commission_agreements(_settings(data_dir=data_dir)):
        _print_json_line(agreement)


@ledger_commission.command("post")
@click.option("--from", "from_text", metavar="TIME", help="Orders made from then on [default: of the last 120 days].")
@DATA_DIR
def ledger_commission_post(from_text: str | None, data_dir: Path | None) -> None:
    """Post the commission that is due, and give back what went back with goods; the server does so hourly by itself.

    A line of an order is due 14 days after the order, when its buyer can no longer withdraw. Again, nothing is posted.
    """
    from bidder_api.tasks import post_commissions

    settings = _settings(data_dir=data_dir)
    since_ms = None if from_text is None else _moment("--from", from_text, settings, is_end=False)
    done = post_commissions(settings, since_ms, _progress)
    click.echo(
        f"{done.charged_lines} lines charged, {done.charged_micros} micros; "
        f"{done.returned_lines} with goods that came back, {done.returned_micros} micros given back."
    )


@ledger.command("inspect")
@click.argument("period", metavar="MONTH")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what is found; undo nothing.")
@DATA_DIR
def ledger_inspect(period: str, is_dry: bool, data_dir: Path | None) -> None:
    """Find the invalid traffic of a MONTH, 2026-11, that nobody could tell when it arrived, and undo its charges.

    Looks at the days that are over, as often as it is asked, until the month is sealed; closing it looks by itself.
    Needs ENDCAP_INVALID_TRAFFIC=on.
    """
    from bidder_api.tasks import inspect_ledger

    settings = _settings(data_dir=data_dir)
    if settings.ledger.invalid_traffic != "on":
        raise click.UsageError("ENDCAP_INVALID_TRAFFIC must be on for traffic to be judged afterwards")
    found = inspect_ledger(settings, _month(period), is_dry=is_dry)
    for rule, (count, micros) in found.rules.items():
        click.echo(f"{rule}: {count} events, {micros} micros {'charged' if is_dry else 'given back'}")
    if not found.rules:
        click.echo(f"Nothing was found in {period} that was not found before.")


@ledger.command("close")
@click.argument("period", metavar="MONTH")
@click.option("--stage", type=click.Choice(["soft", "sealed"]), required=True)
@DATA_DIR
def ledger_close(period: str, stage: str, data_dir: Path | None) -> None:
    """Close a MONTH, 2026-11, softly once it is over, or seal it 72 hours later; what was invalid is undone before."""
    from bidder_api.tasks import close_ledger

    closed = close_ledger(_settings(data_dir=data_dir), _month(period), stage)
    click.echo(f"{closed.period} is {closed.stage}." + ("" if closed.digest is None else f" digest {closed.digest}"))


def _month(text: str) -> str:
    from ledger.calendar import is_month

    if not is_month(text):
        raise click.BadParameter(f"must be a month such as 2026-11, was {text!r}")
    return text


@ledger.command("sales")
@click.option("--from", "from_text", metavar="TIME", required=True, help="Orders and charges from then on.")
@click.option("--to", "to_text", metavar="TIME", required=True, help="Before then; a day: until its end.")
@click.option(
    "--model",
    type=click.Choice(["default", "iab-europe-30d", "criteo-like", "amazon-like", "same-sku-7d"]),
    default="default",
    show_default=True,
    help="How credit is given.",
)
@click.option("--format", "kind", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@DATA_DIR
def ledger_sales(from_text: str, to_text: str, model: str, kind: str, data_dir: Path | None) -> None:
    """Say which sales are credited to which campaigns, and what these were charged.

    Worked out anew each time, so that any month can be read under any model; the books stay as they are. A TIME is a
    day in ENDCAP_TIME_ZONE, 2026-11-23, or a moment with its offset, 2026-11-23T10:00:00+01:00; at most 92 days.

    \b
    default         last click of 14 days, on the product or another of the advertiser's (halo)
    iab-europe-30d  click or view of 30 days
    criteo-like     click of 30 days, view of 1
    amazon-like     click or view of 14 days
    same-sku-7d     click of 7 days, on the very product

    Views count only where they were kept, see ENDCAP_KEEPS_VIEWS.
    """  # noqa: D301  # click's own mark: keep these lines as they are
    from bidder_api.report import print_sales
    from bidder_api.tasks import report_sales

    settings = _settings(data_dir=data_dir)
    from_ms = _moment("--from", from_text, settings, is_end=False)
    to_ms = _moment("--to", to_text, settings, is_end=True)
    print_sales(report_sales(settings, from_ms, to_ms, model), kind, sys.stdout)


def _print_json_line(answer: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(answer).decode())


def _write(text: str, output: Path | None) -> None:
    """Write a line of text to a file, or to standard output."""
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


# --- simulation ----------------------------------------------------------------------------------------------------


@endcap.group()
def sim() -> None:
    """Simulated markets, and yesterday under other rules."""


OUT_DIR = click.option(
    "--out",
    "out_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sim-runs"),
    show_default=True,
    help="Folder the report is written to.",
)


@sim.command("run")
@click.argument("scenario")
@OUT_DIR
@click.option("--seed", type=click.IntRange(0, 2**53), help="Instead of the scenario's own.")
@click.option("--receipts", "keep_receipts", is_flag=True, help="Also keep every auction's receipt, for replay.")
def sim_run(scenario: str, out_dir: Path, seed: int | None, keep_receipts: bool) -> None:
    """Run a market of invented visitors and bidders on the server's own engine.

    SCENARIO is a TOML file, or the name of a shipped one: grocer, hostile, sale-week, target-roas, undecided-visitors.

    Its bidders are truthful, shaded, paced, target-roas, bandit, drainer, prober or click-fraud, or a class of your own
    (policy = "file.py:ClassName"; see sim/README.md). Where some want a target ROAS, what they reach stands beside it.
    A scenario or a policy that cannot be ends with 2, a sentence that says why, and no file written.
    """
    sys.exit(_simulation("run").run_scenario(scenario, out_dir, seed, keep_receipts=keep_receipts))


@sim.command("replay")
@click.argument("receipts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@OUT_DIR
@click.option("--floor", "floors", multiple=True, metavar="[PLACEMENT[:impression]=]MICROS", help="Another floor.")
@click.option("--rules", type=click.Choice(["on", "off"]), default="on", help="Off: pins and quotas are lifted.")
@click.option("--pricing", type=click.Choice(["critical", "vcg", "first"]), help="Another price for the same fills.")
@click.option("--brand-max", type=int, help="Most fills of one brand in a placement.")
@click.option("--sponsored-max", type=int, help="Most paid fills in a placement.")
@click.option("--bid-factor", type=float, help="On every bid.")
@click.option("--without", multiple=True, metavar="ADVERTISER_ID", help="An advertiser who stays away.")
def sim_replay(receipts: Path, out_dir: Path, **asked: Any) -> None:
    """Run recorded auctions again: bit for bit as they were, then under what the options change.

    RECEIPTS is the folder of a server's receipts, or of those that `sim run --receipts` keeps.
    """
    replay = _simulation("replay")
    sys.exit(replay.replay_asked(receipts, asked, out_dir))


def _simulation(module: str) -> Any:
    """Return a module of the simulation, by name: it stands above this package, which must not depend on it."""
    from importlib import import_module

    return import_module(f"sim.{module}")


# --- settings ------------------------------------------------------------------------------------------------------


@endcap.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON lines, for programs.")
@click.option(
    "--generate",
    type=click.Choice(["ENDCAP_SECRET_KEY", "ENDCAP_BEACON_KEYS"]),
    help="Print a new value for a secret, and nothing else.",
)
def settings(as_json: bool, generate: str | None) -> None:
    """List every setting with its value, its default and what it means."""
    from bidder_api.settings import generate_secret, list_settings

    if generate is not None:
        click.echo(generate_secret(generate))
        return
    lines = list_settings(_settings())
    if as_json:
        import msgspec

        for line in lines:
            click.echo(msgspec.json.encode(line).decode())
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        default = "" if line.value == line.default else f"  (default: {line.default or 'none'})"
        console.print(f"[bold]{line.variable}[/]={line.value}{default}", markup=True)
        console.print(f"    {line.sentence}", markup=False, style="dim")


# --- what the commands share ---------------------------------------------------------------------------------------

Progress = Callable[[int, int | None], None]


def _settings(**overrides: Any) -> "AllSettings":
    from bidder_api.settings import SettingsRefused, read_settings

    try:
        return read_settings(**overrides)
    except SettingsRefused as refusal:
        raise click.ClickException("the settings are refused:\n  " + "\n  ".join(refusal.complaints)) from refusal


def _settings_of_log(data_dir: Path | None) -> "AllSettings":
    """Return the settings of a command that reads the navigation log, and say where that is not all there is."""
    settings = _settings(data_dir=data_dir)
    if settings.server.shares_visitors:
        click.echo(
            f"Reading the navigation log in {settings.server.data_dir}; what other serving processes logged is not in "
            "it. To read all of it, name a folder with a copy of every process's navigation folder.",
            err=True,
        )
    return settings


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def _moment(option: str, text: str, settings: "AllSettings", *, is_end: bool) -> int:
    """Return a day's beginning (its end, where that is meant) or a moment, UTC milliseconds since 1970."""
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    try:
        at = datetime.fromisoformat(text)
        if len(text) == 10:
            at = (at + timedelta(days=is_end)).replace(tzinfo=ZoneInfo(settings.server.time_zone or "UTC"))
        elif at.tzinfo is None:
            raise ValueError
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        rule = "a day such as 2026-11-23, or a moment with its offset such as 2026-11-23T10:00:00+01:00"
        raise click.UsageError(f"{option} must be {rule}, was {text!r}") from None


def _at(option: str, text: str, settings: "AllSettings", *, is_end: bool) -> Any:
    """Return the same as a moment in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(_moment(option, text, settings, is_end=is_end) / 1000, UTC)


def _shown_url(settings: "AllSettings") -> str:
    from sqlalchemy.engine import make_url

    return make_url(settings.server.url).render_as_string(hide_password=True)


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """Show a bar on a terminal's standard error; call what is given with how much is done, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _import(file: Path, data_dir: Path | None, kind: str) -> None:
    from bidder_api.tasks import import_file

    outcome = import_file(_settings(data_dir=data_dir), kind, file, _progress)
    for line_number, message in outcome.bad_lines:
        click.echo(f"{file}:{line_number}: {message}", err=True)
    left_out = f", {outcome.ignored_count} left out" if outcome.ignored_count else ""
    click.echo(f"{outcome.good_count} imported, {len(outcome.bad_lines)} refused{left_out}.")
    sys.exit(1 if outcome.bad_lines else 0)


def _each_line(source: BinaryIO, sink: TextIO, answer: Callable[[Any], Any]) -> None:
    """Answer every line of JSON with one; a bad line is named, the others are answered, and the status tells of it."""
    import msgspec

    encode = msgspec.json.Encoder(decimal_format="number").encode  # exact amounts stay numbers
    is_sound = True
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        try:
            body = answer(msgspec.json.decode(line))
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError) as refusal:
            is_sound = False
            sink.flush()
            click.echo(f"line {number}: {refusal}", err=True)
            continue
        sink.write(encode(body).decode() + "\n")
    sink.flush()
    if not is_sound:
        sys.exit(EXIT_USAGE)

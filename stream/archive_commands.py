"""The commands `tickloom archive ...` and `tickloom restore`."""

import asyncio
import json
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.roles import run_until_stopped
from stream.settings import Settings, load_settings
from stream.topics import FEATURES

archive_cli = typer.Typer()
_archive = typer.Typer(name="archive", help="Keep topics as Parquet, exactly once, and check what is kept.")
archive_cli.add_typer(_archive)

UrlArgument = Annotated[
    str | None,
    typer.Argument(help="Directory or URL (s3://BUCKET/PREFIX); else TICKLOOM_ARCHIVE_URL."),
]
TopicsFlag = Annotated[str | None, typer.Option("--topics", help="Only these, with commas between; else all.")]
KafkaFlag = Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
EpochFlag = Annotated[str | None, typer.Option("--epoch", help="Which Kafka cluster's, where there are several.")]


class Target(StrEnum):
    """What `tickloom restore` can write to."""

    KAFKA = "kafka"
    CLICKHOUSE = "clickhouse"


def _settings(context: typer.Context, **flags: Any) -> Settings:
    common = context.find_root().params
    settings = load_settings({**flags, "log_level": common["log_level"]}, config=common["config"]).settings
    set_up_logging(settings.log_level)
    return settings


def _place(settings: Settings) -> str:
    if settings.archive_url is None:
        raise SettingsError("where is the archive? Give a directory or URL, or set TICKLOOM_ARCHIVE_URL")
    return settings.archive_url


def _chosen(topics: str | None) -> tuple[str, ...]:
    from exporters.archive.columns import TOPICS

    names = TOPICS if topics is None else tuple(topics.split(","))
    if unknown := sorted(set(names) - set(TOPICS)):
        raise SettingsError(f"--topics {', '.join(unknown)}; what can be archived is {', '.join(TOPICS)}")
    return names


@_archive.command(epilog="Example: tickloom archive run s3://desk-archive/tickloom --kafka localhost:9092")
def run(
    context: typer.Context,
    url: UrlArgument = None,
    once: Annotated[bool, typer.Option("--once", help="Only what Kafka has now; then stop.")] = False,
    topics: TopicsFlag = None,
    kafka: KafkaFlag = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of metrics; 0 picks a free one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write ticks, rejected ticks, predictions, outcomes and model events to Parquet, each exactly once."""
    from exporters.archive.archiver import run_archiver

    settings = _settings(context, kafka=kafka, archive_url=url, exporter_port=port)
    place, names = _place(settings), _chosen(topics)
    done: dict[str, Any] = {}

    async def main(stop: asyncio.Event) -> None:
        done.update(await run_archiver(settings, place, names, stop, once))

    run_until_stopped(main)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        rows = ", ".join(f"{count:,} of {topic}" for topic, count in sorted(done["rows"].items())) or "nothing new"
        typer.echo(f"archived in {place}: {rows}")


@_archive.command("list", epilog="Example: tickloom archive list /data/archive")
def show(
    context: typer.Context, url: UrlArgument = None, topics: TopicsFlag = None, as_json: JsonFlag = False
) -> None:
    """Show what an archive holds of each topic and partition, without reading the rows."""
    from exporters.archive.vault import Vault
    from stream.inspection import table

    vault = Vault(_place(_settings(context, archive_url=url)))
    rows = []
    for chain in vault.chains(_chosen(topics)):
        history = vault.history(chain)
        files = history.files()
        rows.append(
            {
                "topic": chain.topic,
                "epoch": chain.epoch,
                "partition": chain.partition,
                "first offset": history.ranges[0].first if history.ranges else 0,
                "next offset": history.next or 0,
                "rows": sum(file.rows for file in files),
                "missing messages": sum(each.missing for each in history.ranges),
                "raw messages": sum(len(each.others) for each in history.ranges),
                "files": len(files),
                "bytes": sum(file.size_bytes for file in files),
                "days": f"{files[0].day} to {files[-1].day}" if files else "",
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        from rich.console import Console

        Console().print(table(f"Archive {vault.url}", rows))


@_archive.command(epilog="Example: tickloom archive verify /data/archive --topics ticks")
def verify(
    context: typer.Context,
    url: UrlArgument = None,
    topics: TopicsFlag = None,
    epoch: EpochFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Read everything back, and prove that it is what Kafka had, message for message."""
    from exporters.archive.restore import chosen, messages
    from exporters.archive.vault import Vault

    vault = Vault(_place(_settings(context, archive_url=url)))
    chains = chosen(vault, _chosen(topics), epoch)
    with _progress() as progress:
        task = progress.add_task("rows", total=sum(each.rows for _, history in chains for each in history.ranges))
        for chain, history in chains:
            for each, _ in messages(vault, chain, history):
                progress.advance(task, each.rows)
        rows = int(progress.tasks[0].completed)
    ranges = sum(len(history.ranges) for _, history in chains)
    missing = sum(each.missing for _, history in chains for each in history.ranges)
    if as_json:
        typer.echo(json.dumps({"rows": rows, "ranges": ranges, "missing_messages": missing}))
    else:
        typer.echo(
            f"{vault.url}: {rows:,} rows in {ranges:,} ranges are as Kafka had them; {missing:,} messages missing"
        )


@_archive.command(epilog="Example: tickloom archive compact /data/archive --before 2026-11-01")
def compact(
    context: typer.Context,
    url: UrlArgument = None,
    before: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only days before this one; else before today.")
    ] = None,
    topics: TopicsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Join the small files of past days; `tickloom archive run` does so once an hour by itself."""
    from exporters.archive.compaction import compact
    from exporters.archive.vault import Vault

    vault = Vault(_place(_settings(context, archive_url=url)))
    day = (before or datetime.now(UTC)).date().isoformat()
    writer = secrets.token_hex(4)
    fewer = sum(compact(vault, chain, day, writer) for chain in vault.chains(_chosen(topics)))
    typer.echo(json.dumps({"files_fewer": fewer}) if as_json else f"{vault.url}: {fewer:,} files fewer")


@archive_cli.command(epilog="Example: tickloom restore kafka /data/archive --topics ticks --kafka localhost:9092")
def restore(
    context: typer.Context,
    target: Annotated[Target, typer.Argument(help="Where the rows go.")],
    url: UrlArgument = None,
    topics: TopicsFlag = None,
    epoch: EpochFlag = None,
    kafka: KafkaFlag = None,
    clickhouse: Annotated[
        str | None, typer.Option("--clickhouse", help="clickhouse://USER@HOST:PORT/DATABASE of a server.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send an archive back to Kafka (the same messages, partitions and order) or to ClickHouse.

    Killed and started again it goes on; nothing is there twice.
    """
    from exporters.archive.vault import Vault

    settings = _settings(context, kafka=kafka, archive_url=url, clickhouse=clickhouse)
    rows = asyncio.run(_restore(settings, target, Vault(_place(settings)), _chosen(topics), epoch))
    typer.echo(json.dumps({"rows": rows}) if as_json else f"restored {rows:,} rows to {target.value}")


async def _restore(
    settings: Settings, target: Target, vault: Any, topics: tuple[str, ...], epoch: str | None
) -> int:
    from exporters.archive.restore import chosen, restore_to_kafka
    from exporters.archive.restore_clickhouse import restore_to_clickhouse
    from stream.topics import broker, create_topics

    chains = chosen(vault, topics, epoch)
    sent = 0
    with _progress() as progress:
        task = progress.add_task("rows", total=sum(each.rows for _, history in chains for each in history.ranges))

        def done(rows: int) -> None:
            progress.advance(task, rows)

        if target is Target.KAFKA:
            most = max(chain.partition for chain, _ in chains)
            if most >= settings.partitions:
                raise SettingsError(
                    f"the archive has partition {most}; set `partitions` to what the old cluster had (now "
                    f"{settings.partitions})"
                )
            await create_topics(
                broker(settings), settings.partitions, settings.replication, settings.retention_hours
            )
            for chain, history in chains:
                sent += await restore_to_kafka(broker(settings), vault, chain, history, done)
        else:
            if FEATURES in {chain.topic for chain, _ in chains}:
                raise SettingsError(
                    "features go to ClickHouse through Kafka, which knows their names: restore them there, "
                    f"and run `tickloom export clickhouse`; the others are --topics {','.join(_but_features())}"
                )
            if settings.clickhouse is None:
                raise SettingsError("no ClickHouse is configured: set TICKLOOM_CLICKHOUSE or give --clickhouse")
            address = settings.clickhouse.get_secret_value()
            for chain, history in chains:
                sent += await restore_to_clickhouse(address, vault, chain, history, done)
    return sent


def _but_features() -> list[str]:
    from exporters.archive.columns import TOPICS

    return [topic for topic in TOPICS if topic != FEATURES]


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True))

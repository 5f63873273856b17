"""`tickloom models list`, `show`, `publish`, `promote`, `rollback`, `challenge`, `retire` and `gc`."""

import asyncio
import getpass
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stream.errors import RegistryError, ServerError
from stream.logs import set_up_logging
from stream.running import beside_demo
from stream.settings import Settings, load_settings
from stream.topics import broker

if TYPE_CHECKING:
    from models.promotion import ModelsTopic, Promotion
    from models.registry import Registry

registry_cli = typer.Typer()

KafkaFlag = Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")]
RegistryFlag = Annotated[
    str | None, typer.Option("--registry", help="Directory or URL of the registry; else DATA_DIR/registry.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ReasonFlag = Annotated[str, typer.Option("--reason", help="Why, for whoever asks later.")]
VersionArgument = Annotated[
    str, typer.Argument(help="NAME/NNNNNN-ID, a number, the beginning of an id, a NAME for its newest, or a role.")
]

_NS_PER_S: Final = 1_000_000_000


def _settings(context: typer.Context, **flags: Any) -> Settings:
    common = context.find_root().params
    settings = load_settings({**flags, "log_level": common.get("log_level")}, config=common.get("config")).settings
    set_up_logging(settings.log_level)
    return beside_demo(settings)


def _registry(settings: Settings) -> "Registry":
    from models.registry import Registry

    return Registry(settings.registry_url, settings.data_dir / "models")


def _available(settings: Settings) -> tuple[str, ...]:
    from agents import features
    from agents.periods import Periods

    return features.names(Periods.of(settings))


def _print(value: Any, as_json: bool, title: str = "") -> None:
    if as_json:
        typer.echo(json.dumps(value, default=str))
        return
    from rich.console import Console

    from stream.inspection import record_table, table

    Console().print(record_table(title, value) if isinstance(value, Mapping) else table(title, value))


def _at(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ns / _NS_PER_S)) if at_ns else ""


@registry_cli.command("list", epilog="Example: tickloom models list --registry s3://desk/models")
def list_models(context: typer.Context, registry: RegistryFlag = None, as_json: JsonFlag = False) -> None:
    """List the versions that there are, with their roles."""
    settings = _settings(context, registry=registry)
    store = _registry(settings)
    aliases = store.aliases()
    rows = []
    for version in store.versions():
        manifest = store.manifest(version)
        roles = [role for role in ("champion", "previous") if getattr(aliases, role) == version]
        roles += ["challenger"] if version in aliases.challengers else []
        rows.append(
            {
                "version": version,
                "role": ", ".join(roles),
                "horizon_s": manifest["horizon_ns"] / _NS_PER_S,
                "published": _at(manifest.get("published_ns", 0)),
                "by": manifest.get("published_by", ""),
                **({"metrics": manifest.get("metrics", {})} if as_json else {}),
            }
        )
    _print(rows, as_json, f"Models in {settings.registry_url}")


@registry_cli.command(epilog="Example: tickloom models show champion --kafka localhost:9092")
def show(
    context: typer.Context,
    version: VersionArgument = "champion",
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a version: its manifest, its part in history, and with --kafka which lanes of which workers serve it."""
    settings = _settings(context, registry=registry, kafka=kafka)
    store = _registry(settings)
    name = store.resolve(version)
    record: dict[str, Any] = {**store.manifest(name), "version": name}
    record["history"] = [
        f"{_at(each.at_ns)} generation {each.generation}: champion {each.champion}, by {each.by}: {each.reason}"
        for each in store.history()
        if name in each.named()
    ]
    if settings.kafka is not None:
        said = _said(settings)
        swaps = [swap for swap in said.swaps.values() if swap.version == name]
        record["swaps"] = [f"partition {swap.partition} from block {swap.offset} on" for swap in swaps]
        record["workers"] = {worker: json.dumps(status) for worker, status in said.workers.items()}
    _print(record, as_json, name)


@registry_cli.command(epilog="Example: tickloom models publish model.onnx")
def publish(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model file; card.json and card.html beside it go with it.")],
    registry: RegistryFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a model and put it into the registry. Nothing serves it yet."""
    settings = _settings(context, registry=registry)
    version = _registry(settings).publish(model, by=getpass.getuser(), available=_available(settings))
    _print({"published": version, "registry": settings.registry_url}, as_json)


@registry_cli.command(epilog="Example: tickloom models promote momentum --reason 'better log loss' --kafka ...")
def promote(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonFlag = "by hand",
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Let all workers serve a version, which may be a file as well: they check it, and swap between two blocks."""
    from models.promotion import promote

    settings = _settings(context, registry=registry, kafka=kafka)
    store, address = _registry(settings), broker(settings)
    available, by = _available(settings), getpass.getuser()
    if version.endswith(".onnx"):
        version = store.publish(Path(version), by=by, available=available)
    name = store.resolve(version)
    doing = promote(store, address, name, reason=reason, by=by, base=settings.model, available=available)
    _print(_told(asyncio.run(doing)), as_json, "Promoted")


@registry_cli.command(epilog="Example: tickloom models rollback --reason 'worse than it looked' --kafka ...")
def rollback(
    context: typer.Context,
    reason: ReasonFlag = "by hand",
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Let all workers serve the previous champion again, as quickly as ticks can bear."""
    from models.promotion import rollback

    settings = _settings(context, registry=registry, kafka=kafka)
    doing = rollback(
        _registry(settings),
        broker(settings),
        reason=reason,
        by=getpass.getuser(),
        available=_available(settings),
    )
    _print(_told(asyncio.run(doing)), as_json, "Rolled back to")


@registry_cli.command(epilog="Example: tickloom models challenge momentum --kafka localhost:9092")
def challenge(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonFlag = "by hand",
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a version run in shadow: it predicts every tick into the topic predictions.shadow, and is not served."""
    from models.promotion import challenge

    settings = _settings(context, registry=registry, kafka=kafka)
    store = _registry(settings)
    doing = challenge(store, broker(settings), store.resolve(version), reason=reason, by=getpass.getuser())
    _print(_told(asyncio.run(doing)), as_json, "Runs in shadow")


@registry_cli.command(epilog="Example: tickloom models retire momentum --kafka localhost:9092")
def retire(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonFlag = "by hand",
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop a version that runs in shadow."""
    from models.promotion import retire

    settings = _settings(context, registry=registry, kafka=kafka)
    store = _registry(settings)
    name = store.resolve(version)
    asyncio.run(retire(store, broker(settings), name, reason=reason, by=getpass.getuser()))
    _print({"retired": name}, as_json)


@registry_cli.command(epilog="Example: tickloom models gc --keep 20 --yes --kafka localhost:9092")
def gc(
    context: typer.Context,
    keep: Annotated[int, typer.Option(min=1, help="Keep so many of the newest versions of each name.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Really; else only say what would be removed.")] = False,
    registry: RegistryFlag = None,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove old versions: never one that has or recently had a role, or that a lane may have to serve again."""
    from models.promotion import removable

    settings = _settings(context, registry=registry, kafka=kafka)
    store = _registry(settings)
    try:
        said = _said(settings)
    except ServerError as error:
        raise RegistryError(f"which versions lanes need is not known, nothing is removed: {error}") from None
    versions = removable(store, said, keep, time.time_ns() - int(settings.retention_hours * 3600 * _NS_PER_S))
    if yes:
        for version in versions:
            store.remove(version)
        store.sweep()
    _print({"removed" if yes else "would be removed (give --yes)": versions}, as_json)


def _told(promotion: "Promotion") -> dict[str, Any]:
    return {**vars(promotion), "model_id": f"{promotion.model_id:016x}"}


def _said(settings: Settings) -> "ModelsTopic":
    from models.promotion import read_models

    return asyncio.run(read_models(broker(settings)))

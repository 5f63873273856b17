"""The `tickloom` command line. Concrete classes are imported where they are needed, so that ``--help`` is quick.

Exit codes: 0 done; 1 failed; 2 bad usage or settings; 3 a source cannot be read; 4 a model must not serve;
5 a server did not start; 70 a promise of our own is broken.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.analyst_commands import analyst_cli
from stream.api_commands import api_cli
from stream.archive_commands import archive_cli
from stream.clickhouse_commands import clickhouse_cli
from stream.errors import SettingsError, TickloomError
from stream.listen_command import listen_cli
from stream.logs import set_up_logging
from stream.model_commands import models_cli
from stream.retrain_commands import retrain_cli
from stream.roles import run_until_stopped
from stream.running import beside_demo
from stream.settings import LoadedSettings, Settings, load_settings, masked

cli = typer.Typer(
    name="tickloom",
    help="A real-time stream-processing engine for market prediction. Start with: tickloom demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _commands in (analyst_cli, api_cli, archive_cli, clickhouse_cli, listen_cli, models_cli, retrain_cli):
    cli.add_typer(_commands)

KafkaFlag = Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")]
RedisFlag = Annotated[str | None, typer.Option("--redis", help="redis://HOST:PORT/DB of a Redis server.")]
ClickHouseFlag = Annotated[
    str | None, typer.Option("--clickhouse", help="clickhouse://USER@HOST:PORT/DATABASE of a server.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
PortFlag = Annotated[int | None, typer.Option("--port", help="Port of metrics and health; 0 picks a free one.")]
SpeedFlag = Annotated[
    str, typer.Option("--speed", help="1 is true speed, 10 is ten times that, max is as fast as it goes.")
]


class Exchange(StrEnum):
    """What `tickloom ingest` can connect to."""

    SIMULATOR = "simulator"
    BINANCE = "binance"
    COINBASE = "coinbase"


class Sink(StrEnum):
    """What `tickloom export` can write to."""

    REDIS = "redis"
    CLICKHOUSE = "clickhouse"


class _Common:
    """What the flags before the command said."""

    config: Path | None = None
    log_level: str | None = None


def _load(**flags: Any) -> LoadedSettings:
    loaded = load_settings({**flags, "log_level": _Common.log_level}, config=_Common.config)
    set_up_logging(loaded.settings.log_level)
    return loaded


def _print(value: Any, as_json: bool, table: Callable[[], Any]) -> None:
    if as_json:
        typer.echo(json.dumps(value, default=str))
    else:
        from rich.console import Console

        Console().print(table())


@cli.callback()
def common(
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Real-time stream processing for market prediction."""
    _Common.config, _Common.log_level = config, log_level


@cli.command(epilog="Example: tickloom demo --for 30 --json")
def demo(
    replay: Annotated[Path | None, typer.Option(help="Directory of Parquet ticks to replay.")] = None,
    day: Annotated[str | None, typer.Option(help="Day of the replay, YYYY-MM-DD.")] = None,
    speed: SpeedFlag = "1",
    rate: Annotated[float, typer.Option(help="Ticks a second of the simulator.")] = 500.0,
    for_s: Annotated[float | None, typer.Option("--for", help="Stop after so many seconds.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="How many workers share the lanes.")] = 1,
    fresh: Annotated[bool, typer.Option(help="Forget what an earlier demo left.")] = False,
    as_json: JsonFlag = False,
    kafka: KafkaFlag = None,
    redis: RedisFlag = None,
    clickhouse: ClickHouseFlag = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the feed and the page.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the demo keeps its data.")] = None,
) -> None:
    """Run everything: servers, a source, workers, exporters, the feed, and a live view of it all."""
    from stream.demo.run import DemoOptions, run_demo

    loaded = _load(kafka=kafka, redis=redis, clickhouse=clickhouse, gateway_port=port, data_dir=data_dir)
    options = DemoOptions(replay, day, speed, rate, for_s, workers, fresh, as_json)
    raise typer.Exit(run_demo(loaded.settings, options))


@cli.command(epilog="Example: tickloom ingest binance --symbols BTCUSDT,ETHUSDT --kafka localhost:9092")
def ingest(
    source: Annotated[Exchange, typer.Argument(help="Where the ticks come from.")],
    symbols: Annotated[
        str | None, typer.Option(help="Symbols of the exchange, with commas between; of the simulator, how many.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Ticks a second of the simulator.")] = 500.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulator.")] = 7,
    url: Annotated[
        str | None, typer.Option(help="wss://HOST of a testnet or proxy that answers like the exchange.")
    ] = None,
    kafka: KafkaFlag = None,
    port: PortFlag = None,
) -> None:
    """Send ticks of a live exchange (public market data) or of the simulator to Kafka."""
    from stream import compose

    settings = _load(kafka=kafka, source_port=port).settings
    if source is Exchange.SIMULATOR:
        if symbols is not None and not symbols.isdigit():
            raise SettingsError(f"--symbols {symbols!r}; the simulator takes a number, and names them itself")
        count = 8 if symbols is None else int(symbols)
        run_until_stopped(lambda stop: compose.run_simulator(settings, stop, count, rate, seed))
    else:
        names = symbols.split(",") if symbols else []
        run_until_stopped(lambda stop: compose.run_exchange(settings, stop, source.value, names, url))


@cli.command(epilog="Example: tickloom replay ticks/us_equity --day 2013-10-07 --speed max --kafka localhost:9092")
def replay(
    paths: Annotated[list[Path], typer.Argument(help="Parquet files, or directories of them.")],
    day: Annotated[str | None, typer.Option(help="Only this day, YYYY-MM-DD.")] = None,
    speed: SpeedFlag = "1",
    run: Annotated[str, typer.Option(help="Another name sends the same ticks once more, as another stream.")] = "",
    features: Annotated[
        Path | None, typer.Option(help="Send nothing: compute the features, without Kafka, into this Parquet file.")
    ] = None,
    kafka: KafkaFlag = None,
    port: PortFlag = None,
) -> None:
    """Send historical ticks to Kafka, merged by time, exactly in order; a second run goes on where it stopped."""
    from stream import compose

    settings = _load(kafka=kafka, source_port=port).settings
    if features is not None:
        if (speed, run, kafka, port) != ("1", "", None, None):
            raise SettingsError("--features sends nothing: --speed, --run, --kafka and --port do not go with it")
        typer.echo(json.dumps(compose.write_features(settings, paths, day, features)))
        return
    run_until_stopped(lambda stop: compose.run_replay(settings, stop, paths, day, speed, run))


@cli.command(epilog="Example: tickloom worker --kafka localhost:9092 --name worker-1")
def worker(
    name: Annotated[str | None, typer.Option(help="Unique among the workers.")] = None,
    model: Annotated[Path | None, typer.Option(help="The ONNX step model to serve.")] = None,
    kafka: KafkaFlag = None,
    port: PortFlag = None,
) -> None:
    """Run lanes: windows, features and predictions. Several workers share the partitions."""
    from stream import compose

    settings = _load(kafka=kafka, worker_name=name, model=model, worker_port=port).settings
    run_until_stopped(lambda stop: compose.run_worker(settings, stop))


@cli.command(epilog="Example: tickloom export clickhouse --clickhouse clickhouse://default@localhost:9000/default")
def export(
    sink: Annotated[Sink, typer.Argument(help="Where the predictions go.")],
    kafka: KafkaFlag = None,
    redis: RedisFlag = None,
    clickhouse: ClickHouseFlag = None,
    port: PortFlag = None,
) -> None:
    """Write predictions to Redis or ClickHouse; offsets are committed only once the sink has them."""
    from stream import compose

    settings = _load(kafka=kafka, redis=redis, clickhouse=clickhouse, exporter_port=port).settings
    run_until_stopped(lambda stop: compose.run_exporter(settings, stop, sink.value))


@cli.command(epilog="Example: tickloom outcomes --kafka localhost:9092")
def outcomes(kafka: KafkaFlag = None, port: PortFlag = None) -> None:
    """Tell what came of predictions, score the models, and take one out of service that is worse than before."""
    from stream import compose

    settings = _load(kafka=kafka, exporter_port=port).settings
    run_until_stopped(lambda stop: compose.run_outcomes(settings, stop))


@cli.command(epilog="Example: tickloom gateway --kafka localhost:9092 --feed-port 8765")
def gateway(
    kafka: KafkaFlag = None,
    feed_port: Annotated[int | None, typer.Option(help="Port of the feed and the page.")] = None,
    port: PortFlag = None,
) -> None:
    """Serve the WebSocket feed and the page."""
    from stream import compose

    settings = _load(kafka=kafka, gateway_port=feed_port, exporter_port=port).settings
    run_until_stopped(lambda stop: compose.run_gateway(settings, stop))


@cli.command(epilog="Example: tickloom train --out models/champion/model.onnx --seconds 2400 --seed 7")
def train(
    out: Annotated[Path, typer.Option(help="Where the model goes, ending in .onnx.")],
    replay: Annotated[
        Path | None, typer.Option(help="Train on these recorded ticks; else on simulated ones.")
    ] = None,
    day: Annotated[str | None, typer.Option(help="Only this day of the recording, YYYY-MM-DD.")] = None,
    features: Annotated[Path | None, typer.Option(help="Or on what `tickloom replay --features` wrote.")] = None,
    kafka_days: Annotated[float | None, typer.Option(help="Or on the last days that Kafka holds.")] = None,
    clickhouse_days: Annotated[float | None, typer.Option(help="Or on the last days in ClickHouse.")] = None,
    seconds: Annotated[
        float, typer.Option(help="Simulated time to train on, some 2,150 ticks each second.")
    ] = 2400.0,
    settings_file: Annotated[Path | None, typer.Option("--settings", help="Training settings; flags win.")] = None,
    seed: Annotated[int | None, typer.Option(min=1, help="Seed of markets and training. [default: 7]")] = None,
    horizon_s: Annotated[float | None, typer.Option(help="How far ahead to predict. [default: 10]")] = None,
    dead_band_bps: Annotated[float | None, typer.Option(help="A smaller move is flat. [default: 1]")] = None,
    layers: Annotated[int | None, typer.Option(help="LSTM layers. [default: 1]")] = None,
    units: Annotated[int | None, typer.Option(help="Units of a layer. [default: 32]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at the most. [default: 12]")] = None,
    take: Annotated[str | None, typer.Option(help="Features that the model takes, such as '-bar_*'.")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Keep epochs here, and go on after a kill.")] = None,
    kafka: KafkaFlag = None,
    clickhouse: ClickHouseFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Train an LSTM on the engine's own features, export it to ONNX, check it, and write it (the `train` extra)."""
    from stream.train_on import TrainOn, train_model

    train_model(
        _load(kafka=kafka, clickhouse=clickhouse).settings,
        TrainOn(replay, features, kafka_days, clickhouse_days, day, seconds),
        settings_file,
        out,
        checkpoints,
        as_json,
        seed=seed,
        horizon_s=horizon_s,
        dead_band_bps=dead_band_bps,
        layers=layers,
        units=units,
        epochs=epochs,
        take=take,
    )


@cli.command(epilog="Example: tickloom topics --kafka localhost:9092")
def topics(
    forget_state: Annotated[
        bool, typer.Option("--forget-state", help="Delete what workers remember: they start over; see --yes.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really.")] = False,
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Create the topics that are missing, and list what each holds."""
    from stream import inspection
    from stream.topics import forget_state as forget

    settings = beside_demo(_load(kafka=kafka).settings)
    if forget_state:
        if not yes:
            raise SettingsError(
                "--forget-state deletes what the engine knows of every symbol, and workers start over with the "
                "oldest ticks that there are: read docs/operations.md, then give --yes as well"
            )
        asyncio.run(forget(settings))
    rows = asyncio.run(inspection.topics(settings))
    _print(rows, as_json, lambda: inspection.table("Topics", rows))


@cli.command(epilog="Example: tickloom state AIG --kafka localhost:9092")
def state(
    symbol: Annotated[str, typer.Argument(help="The symbol.")],
    kafka: KafkaFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the engine remembers of a symbol, as of its last checkpoint."""
    from stream import inspection

    settings = beside_demo(_load(kafka=kafka).settings)
    row = asyncio.run(inspection.state(settings, symbol))
    if row is None:
        typer.echo(f"tickloom: no state for {symbol!r}: it has not ticked, or no checkpoint is done yet", err=True)
        raise typer.Exit(1)
    _print(row, as_json, lambda: inspection.record_table(symbol, row))


SymbolsArgument = Annotated[list[str], typer.Argument(help="The symbols.", metavar="SYMBOL...")]
AtFlag = Annotated[
    datetime | None, typer.Option("--at", help="Since when, UTC, by the clock of the venue; else since now.")
]


@cli.command(epilog="Example: tickloom halt AIG BAC --kafka localhost:9092")
def halt(symbols: SymbolsArgument, at: AtFlag = None, kafka: KafkaFlag = None) -> None:
    """Reject the ticks of symbols, those that happen from now on, until they are resumed."""
    _control("HALT", symbols, at, kafka)


@cli.command(epilog="Example: tickloom resume AIG BAC --kafka localhost:9092")
def resume(symbols: SymbolsArgument, at: AtFlag = None, kafka: KafkaFlag = None) -> None:
    """Accept the ticks of halted symbols again, those that happen from now on."""
    _control("RESUME", symbols, at, kafka)


def _control(kind: str, symbols: list[str], at: datetime | None, kafka: str | None) -> None:
    from stream import control
    from stream.records import TickKind

    settings = beside_demo(_load(kafka=kafka).settings)
    ticks = control.control_ticks(TickKind[kind], symbols, at)
    asyncio.run(control.publish_control(settings, ticks))
    since = ticks["event_ns"][0].astype("datetime64[ns]")
    typer.echo(f"{kind.lower()} of {', '.join(symbols)} since {since} UTC")


@cli.command("features", epilog="Example: TICKLOOM_TICK_RSI=21 tickloom features")
def show_features(as_json: JsonFlag = False) -> None:
    """Show every feature of a tick in its place, with its unit and formula, for the periods of the settings."""
    from agents import features
    from agents.periods import Periods
    from stream import inspection

    catalogue = features.catalogue(Periods.of(_load().settings))
    rows = [
        {"place": place, "feature": each.name, "unit": each.unit, "formula": each.formula}
        for place, each in enumerate(catalogue)
    ]
    _print(rows, as_json, lambda: inspection.table("Features", rows))


@cli.command("settings", epilog="Example: TICKLOOM_PARTITIONS=8 tickloom settings")
def show_settings(as_json: JsonFlag = False) -> None:
    """Show every setting with its value and where it comes from; secrets are masked."""
    from stream import inspection

    loaded = _load()
    values = masked(loaded.settings)
    rows = [
        {"setting": name, "value": values[name], "origin": loaded.origin[name], "what": info.description}
        for name, info in Settings.model_fields.items()
    ]
    _print(rows, as_json, lambda: inspection.table("Settings", rows))


@cli.command(epilog="Example: tickloom version --json")
def version(as_json: JsonFlag = False) -> None:
    """Show the version, and those of the libraries that matter."""
    from stream import inspection

    versions = inspection.versions()
    _print(versions, as_json, lambda: inspection.record_table("tickloom", versions))


def main() -> None:
    """Run the command line; an error of ours is one line and an exit code, not a traceback."""
    try:
        cli()
    except TickloomError as error:
        typer.echo(f"tickloom: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""The command `tickloom api`. Concrete classes are imported where they are needed."""

from typing import Annotated

import typer

from stream.logs import set_up_logging
from stream.roles import run_until_stopped
from stream.settings import load_settings

api_cli = typer.Typer()


@api_cli.command(
    epilog="Example: tickloom api --port 8080 --clickhouse clickhouse://analyst@localhost:9000/tickloom"
)
def api(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option("--port", help="Port of the API and the page; 0 picks a free one.")
    ] = None,
    kafka: Annotated[str | None, typer.Option("--kafka", help="HOST:PORT of a Kafka cluster.")] = None,
    redis: Annotated[str | None, typer.Option("--redis", help="redis://HOST:PORT/DB of a Redis server.")] = None,
    clickhouse: Annotated[
        str | None, typer.Option("--clickhouse", help="clickhouse://USER@HOST:PORT/DATABASE of a server.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port of metrics and health; 0 picks a free one.")
    ] = None,
) -> None:
    """Serve the REST API, its description at /docs, and the page."""
    from exporters.rest.server import run_api

    common = context.find_root().params
    flags = {"api_port": port, "kafka": kafka, "redis": redis, "clickhouse": clickhouse}
    flags |= {"exporter_port": metrics_port, "log_level": common["log_level"]}
    settings = load_settings(flags, config=common["config"]).settings
    set_up_logging(settings.log_level)
    run_until_stopped(lambda stop: run_api(settings, stop))

"""The command `tickloom listen`. Concrete classes are imported where they are needed."""

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stream.clock import NS_PER_S
from stream.errors import SettingsError
from stream.logs import set_up_logging
from stream.roles import run_until_stopped
from stream.running import feed_url
from stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from exporters.client import Feed
    from stream.listen_view import View

listen_cli = typer.Typer()

_AGO: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class ChannelChoice(StrEnum):
    """What can be listened to."""

    PREDICTION = "prediction"
    TICK = "tick"
    BAR_1S = "bar.1s"
    BAR_1M = "bar.1m"
    MODEL = "model"
    STATUS = "status"
    HALT = "halt"
    FEATURES = "features"


class ModeChoice(StrEnum):
    """How."""

    LATEST = "latest"
    FULL = "full"


@listen_cli.command(epilog="Example: tickloom listen AIG 'BTC*' --from 10m --json | head -100")
def listen(
    context: typer.Context,
    symbols: Annotated[
        list[str], typer.Argument(help="Names, prefixes such as 'BTC*', or '*' for all.", metavar="SYMBOL...")
    ],
    channel: Annotated[ChannelChoice, typer.Option(help="What to listen to.")] = ChannelChoice.PREDICTION,
    mode: Annotated[
        ModeChoice | None, typer.Option(help="Every message, or the newest. [default: latest; with --from, full]")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="First all since then: 90s, 10m, 2h, 1d ago, or 2026-11-25T14:30:00 UTC."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages.")] = None,
    feed: Annotated[
        list[str] | None,
        typer.Option(help="ws://HOST:PORT/feed of a gateway; give it twice to take whichever is first."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the feed, live: a table where a person looks, else a line for each message.

    A token comes from TICKLOOM_FEED_TOKEN. What is missing is said where it is missing.
    """
    common = context.find_root().params
    settings = load_settings({"log_level": common["log_level"]}, config=common["config"]).settings
    set_up_logging(settings.log_level)
    logging.getLogger("exporters.client").setLevel(logging.ERROR)  # what it warns of is shown between messages
    from_ns = None if since is None else _from_ns(since)
    if from_ns is not None and mode is ModeChoice.LATEST:
        raise SettingsError("--from gives every message, so that --mode is full, or left out")
    options: dict[str, Any] = {"channel": channel.value, "replay_from_ns": from_ns}
    options["mode"] = (mode or (ModeChoice.LATEST if from_ns is None else ModeChoice.FULL)).value
    urls = feed or [feed_url(settings)]
    # A pipe that nobody reads any more ends us, which is no fault of ours.
    with contextlib.suppress(BrokenPipeError):
        run_until_stopped(lambda stop: _listen(settings, urls, symbols, options, count, as_json, stop))
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _listen(
    settings: Settings,
    urls: list[str],
    symbols: list[str],
    options: dict[str, Any],
    count: int | None,
    as_json: bool,
    stop: asyncio.Event,
) -> None:
    from exporters.client import Feed
    from stream.listen_view import make_view

    token = settings.feed_token
    secret = None if token is None else token.get_secret_value().split(",")[0].strip()
    async with Feed(*urls, token=secret) as feed:
        with make_view(options["channel"], as_json) as view:
            reading = asyncio.create_task(_read(feed, view, count))
            tasks = [reading, asyncio.create_task(stop.wait())]
            tasks.append(asyncio.create_task(feed.subscribe(*symbols, **options)))
            try:
                pending = set(tasks)
                while pending.issuperset(tasks[:2]):
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()  # raises what a gateway refuses
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _read(feed: "Feed", view: "View", count: int | None) -> None:
    from exporters.client import Batch

    left = count
    async for item in feed:
        if isinstance(item, Batch) and left is not None:
            item = item.at(slice(left))  # noqa: PLW2901
            left -= len(item)
        view.show(item)
        if left == 0:
            return


def _from_ns(text: str) -> int:
    """Return a time in ns since 1970: some while ago, or a date and time, UTC."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago is not None:
        return time.time_ns() - int(float(ago[1]) * _AGO[ago[2]] * NS_PER_S)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        right = "90s, 10m, 2h, 1d, or a time such as 2026-11-25T14:30:00, UTC"
        raise SettingsError(f"--from is {text!r}; right would be: {right}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp() * 1_000_000) * 1000

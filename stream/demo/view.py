"""The demo's live view of everything, for a terminal."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.demo.listener import FeedView
from stream.demo.parts import Part

_BAR_CELLS = 20
_SYMBOLS_SHOWN = 12


@dataclass
class Rates:
    """Counts a second, over the last few looks."""

    _seen: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def of(self, name: str, total: float) -> float:
        """Note ``total`` now and return how fast it has grown over the last five seconds."""
        now_s = time.monotonic()
        points = self._seen.setdefault(name, [])
        points.append((now_s, total))
        while points[0][0] < now_s - 5.0:
            points.pop(0)
        (first_s, first), (last_s, last) = points[0], points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


@dataclass(frozen=True)
class Glance:
    """What the view shows besides the parts."""

    title: str
    page_url: str
    warnings: Sequence[str]
    servers: Mapping[str, str]
    elapsed_s: float


def render(glance: Glance, parts: Sequence[Part], feed: FeedView, rates: Rates) -> Group:
    """Return the whole screen."""
    gateway = next((part for part in parts if part.role.name == "gateway"), None)
    stages = {} if gateway is None else gateway.health.get("stages_us", {})
    head = Text()
    head.append(f"{glance.title}\n", "bold")
    head.append(f"page {glance.page_url}   ")
    head.append("   ".join(f"{name} {where}" for name, where in glance.servers.items()) + "\n", "dim")
    for warning in glance.warnings:
        head.append(f"! {warning}\n", "yellow")
    sent = sum(part.health.get("ticks", 0) for part in parts if part.role.name == "source")
    made = sum(part.health.get("predictions", 0) for part in parts if part.role.name.startswith("worker"))
    head.append(f"{rates.of('ticks', sent):>12,.0f} ticks/s  {rates.of('predictions', made):>12,.0f} predictions/s")
    head.append(f"   {glance.elapsed_s:,.0f} s up   Ctrl-C stops everything", "dim")
    head.append(_model(parts))
    return Group(Panel(head), _symbols(feed), _stages(stages), _parts(parts))


def _model(parts: Sequence[Part]) -> Text:
    """The model in service, and how often it was right about the direction of moves lately."""
    health = next((part.health for part in parts if part.role.name == "outcomes"), {})
    line = Text()
    if health.get("model"):
        line.append(f"\n model {health['model']}", "bold")
        line.append(f"   live hit rate {health.get('hit_rate', '...')}", "green")
        for other in ("fallback", "majority"):
            line.append(f"   {other} {health.get(f'{other}_hit_rate', '...')}")
        line.append(f"   of {health.get('moved', 0):,} moves   {health.get('rollbacks', 0)} rollbacks", "dim")
    return line


def _symbols(feed: FeedView) -> Table:
    table = Table(expand=True)
    for name, justify in (("symbol", "left"), ("price", "right"), ("down / flat / up", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("expected bps", "seq", "age"):
        table.add_column(name, justify="right")
    now_s = time.monotonic()
    for symbol in sorted(feed.latest)[:_SYMBOLS_SHOWN]:
        item = feed.latest[symbol]
        table.add_row(
            symbol,
            f"{item['ref_price']:,.6g}",
            _bar(item),
            f"{item['expected_return_bps']:+.2f}",
            f"{item['seq']:,}",
            f"{(now_s - feed.seen_s[symbol]) * 1e3:,.0f} ms",
        )
    if len(feed.latest) > _SYMBOLS_SHOWN:
        table.caption = f"and {len(feed.latest) - _SYMBOLS_SHOWN} more"
    if not feed.latest:
        table.add_row("waiting for the first prediction...")
    return table


def _bar(item: Mapping[str, Any]) -> Text:
    down, flat, up = (float(item[name]) for name in ("p_down", "p_flat", "p_up"))
    cells = [round(part * _BAR_CELLS) for part in (down, flat)]
    bar = Text()
    bar.append("█" * cells[0], "dark_orange")
    bar.append("█" * cells[1], "grey37")
    bar.append("█" * max(_BAR_CELLS - sum(cells), 0), "dodger_blue1")
    bar.append(f" {down:4.0%} {flat:4.0%} {up:4.0%}")
    return bar


def _stages(stages: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title="time of each stage, ms", title_justify="left", expand=True)
    table.add_column("")
    for name in stages:
        table.add_column(name.replace("_", " "), justify="right")
    for quantile in ("p50", "p99"):
        figures = [f"{stage.get(quantile, float('nan')) / 1e3:,.3f}" for stage in stages.values()]
        table.add_row(quantile, *figures)
    return table


def _parts(parts: Sequence[Part]) -> Table:
    table = Table(expand=True)
    for name in ("part", "state", "what it says"):
        table.add_column(name)
    for part in parts:
        if part.finished:
            state = Text("done", "green")
        elif part.healthy:
            state = Text("ok", "green")
        else:
            state = Text("failing" if part.alive else "down", "red")
        if part.restarts:
            state.append(f" ({part.restarts} restarts)", "yellow")
        problems = part.health.get("problems") or {}
        said = "; ".join(f"{name}: {why}" for name, why in problems.items()) or _figures(part.health)
        table.add_row(part.role.name, state, said)
    return table


def _figures(health: Mapping[str, Any]) -> str:
    shown = []
    for name, value in health.items():
        if name in ("role", "status", "problems", "up_s", "stages_us"):
            continue
        if isinstance(value, Mapping):
            numbers = {inner: number for inner, number in value.items() if isinstance(number, int) and number}
            if all(inner.isdigit() for inner in value):  # by partition
                numbers = {name.replace("_", " "): sum(numbers.values())} if numbers else {}
            shown += [f"{inner} {number:,}" for inner, number in numbers.items()]
        elif isinstance(value, int) and not isinstance(value, bool):
            shown.append(f"{name.replace('_', ' ')} {value:,}")
        elif isinstance(value, str):
            shown.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(shown[:7])

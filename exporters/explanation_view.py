"""An explanation for a terminal."""

import math
from typing import Any, Final

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from exporters.explanation import Explanation, plain_record

_VERDICTS: Final = {
    "identical": ("bit-identical: its ticks give every byte of it again", "bold green"),
    "different": ("NOT identical: its ticks give something else", "bold red"),
    "gone": ("cannot be made again", "bold yellow"),
}


def explanation_view(found: Explanation) -> RenderableType:
    """Return everything about one prediction."""
    said, style = _VERDICTS[found.verdict]
    head = Text.assemble((found.id, "bold"), "\n", (said, style))
    if found.reason:
        head.append(f"\n{found.reason}")
    parts: list[RenderableType] = [Panel(head, border_style=style.removeprefix("bold "))]
    if found.differences:
        parts.append(_differences(found))
    parts.append(Columns([_prediction(found), Group(_origin(found), _latencies(found))]))
    if found.recomputed is not None:
        parts.append(_features(found))
    return Group(*parts)


def _differences(found: Explanation) -> Table:
    table = Table(
        "field", "stored", "recomputed", title="What differs", title_justify="left", title_style="bold red"
    )
    for row in found.compared_values():
        table.add_row(row["field"], repr(row["stored"]), repr(row["recomputed"]))
    if "feature_hash" in found.differences:
        table.caption = "another feature_hash: other ticks, or other settings (periods, limits) than its worker had"
    return table


def _prediction(found: Explanation) -> Table:
    stored, table = plain_record(found.stored), _pairs(f"Stored in {found.found_in}")
    table.add_row("event time", _time(stored["event_ns"]))
    table.add_row("reference price", f"{stored['ref_price']:.10g}")
    table.add_row("horizon", f"{stored['horizon_ns'] / 1e9:g} s")
    table.add_row("down / flat / up", " / ".join(f"{stored[f'p_{name}']:.4f}" for name in ("down", "flat", "up")))
    table.add_row("expected", f"{stored['expected_return_bps']:+.4f} bps")
    spread_bps = stored["spread_bps"]
    table.add_row("spread", "not known" if math.isnan(spread_bps) else f"{spread_bps:.4f} bps")
    table.add_row("flags", str(stored["flags"]))
    table.add_row("feature hash", stored["feature_hash"])
    if found.outcome is None:
        table.add_row("outcome", "not known (yet)")
    else:
        outcome = found.outcome
        table.add_row("outcome", f"{outcome['realised_class']}, {outcome['return_bps']:+.4f} bps")
        table.add_row("log loss, Brier", f"{outcome['log_loss']:.4f}, {outcome['brier']:.4f}")
    return table


def _origin(found: Explanation) -> Table:
    stored, table = plain_record(found.stored), _pairs("Where it comes from")
    table.add_row("ticks", f"partition {stored['source_partition']}, block {stored['source_offset']:,}")
    table.add_row("", f"tick {stored['source_index']} of the block")
    if found.recomputed is not None:
        table.add_row("read", f"{found.recomputed.ticks:,} ticks of {found.symbol} in {found.ticks_from}")
    table.add_row("model", stored["model_id"])
    table.add_row("version", found.version or "not in the registry: the model of the settings")
    for each in found.switches[-3:]:
        recorded = "" if each.is_recorded else " (not recorded)"
        table.add_row("switched", f"to {each.model_id:016x} at block {each.offset:,}{recorded}")
    return table


def _latencies(found: Explanation) -> Table:
    table = _pairs("Latencies")
    for name, span_us in found.latencies_us.items():
        table.add_row(name.replace("_", " "), Text(f"{span_us:,.1f} us", justify="right"))
    return table


def _features(found: Explanation) -> RenderableType:
    rows = found.features()
    halves = np.array_split(np.arange(len(rows)), 2)
    return Group(
        Text("Features (dim: not taken by the model)", "bold"), Columns(_half(rows, half) for half in halves)
    )


def _half(rows: list[dict[str, Any]], places: Any) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for place in places:
        row = rows[place]
        table.add_row(row["name"], f"{row['value']:.6g}", row["unit"], style="" if row["taken"] else "dim")
    return table


def _pairs(title: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 1)
    )
    table.add_column(style="dim")
    table.add_column()
    return table


def _time(at_ns: int) -> str:
    return str(np.datetime64(at_ns, "ns")).replace("T", " ") + " UTC"

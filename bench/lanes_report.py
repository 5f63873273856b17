"""What `bench.lanes` says in the end: tables for people, and whether the goals were met."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.agreement import TOLERANCE
from bench.peer_runs import FAUST, QUIX, TALIPP
from bench.peers.work import TEN

_KERNEL_GOAL: Final = 100.0
_FAUST_GOAL: Final = 100.0
_QUIX_GOAL: Final = 30.0
_FEATURES_GOAL_PER_S: Final = 1_000_000.0
_PREDICTIONS_GOAL_PER_S: Final = 200_000.0


@dataclass(frozen=True)
class _Goal:
    what: str
    goal: float | None  # None: no goal, but told beside one
    seen: float | None  # None: not measured in this run

    def as_row(self) -> dict[str, Any]:
        met = None if self.seen is None or self.goal is None else self.seen >= self.goal
        return {"what": self.what, "goal": self.goal, "seen": self.seen, "met": met}


def goals(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each goal with what was seen. Rates are ticks per CPU second: of one core, whatever shares it."""
    kernel = _rate(report["kernel"], symbols=report["symbols"])
    features = _rate(report["worker"], symbols=report["symbols"], with_model=False)
    predictions = _rate(report["worker"], symbols=report["symbols"], with_model=True)
    lane = _rate(report["lane"], symbols=report["symbols"], with_model=True)
    peer = {row["name"]: row for row in report["peers"]}
    talipp = peer.get(TALIPP, {})
    some = f"({talipp['features']} features)" if talipp else ""
    found = [
        _Goal(f"kernel, times talipp {some}".rstrip(), _KERNEL_GOAL, _ratio(kernel, talipp.get("ticks_per_cpu_s"))),
        *_times(peer, FAUST, "the Faust agent", _FAUST_GOAL, features, predictions),
        *_times(peer, QUIX, "Quix Streams", _QUIX_GOAL, features, predictions),
        _Goal("ticks/s with features, kernel alone", _FEATURES_GOAL_PER_S, kernel),
        _Goal("ticks/s with features, worker through Kafka", _FEATURES_GOAL_PER_S, features),
        _Goal("ticks/s with predictions, lane alone", _PREDICTIONS_GOAL_PER_S, lane),
        _Goal("ticks/s with predictions, worker through Kafka", _PREDICTIONS_GOAL_PER_S, predictions),
    ]
    return [goal.as_row() for goal in found]


def _times(
    peers: dict[str, dict[str, Any]],
    name: str,
    title: str,
    goal: float,
    features: float | None,
    predictions: float | None,
) -> list[_Goal]:
    """Return how many times a peer a worker is: on the same job, and against the peer's ten indicators."""
    whole, ten = (peers.get(each, {}).get("ticks_per_cpu_s") for each in (name, f"{name}_{TEN}"))
    return [
        _Goal(f"worker through Kafka (features), times {title}, same job", goal, _ratio(features, whole)),
        _Goal("the same, with a prediction on every tick", goal, _ratio(predictions, whole)),
        _Goal(f"worker (features), times {title} on ten indicators", None, _ratio(features, ten)),
        _Goal("the same, with a prediction on every tick", None, _ratio(predictions, ten)),
    ]


def troubles(report: dict[str, Any]) -> list[str]:
    """Return what makes a comparison worthless: who was not measured, and who computes something else."""
    found = [f"worker {row['name']}: {row['error']}" for row in report["worker"] if "error" in row]
    for row in report["peers"]:
        difference = row.get("max_relative_difference")
        if "error" in row:
            found.append(f"{row['title']} was not measured: {row['error']}")
        elif difference is not None and difference > TOLERANCE:
            found.append(f"{row['title']} disagrees with the engine by {difference:.1e} ({row['where']})")
    return found


def _rate(rows: Sequence[dict[str, Any]], **of: Any) -> float | None:
    fitting = [row for row in rows if all(row[key] == value for key, value in of.items())]
    found = [row["ticks_per_cpu_s"] for row in fitting if "error" not in row]
    return max(found) if found else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def show(report: dict[str, Any], console: Console) -> None:
    """Print the report as tables."""
    console.print(f"{report['market']}; {report['machine']['cpu_count']} cores, load {report['machine']['load']}")
    _print_engine(report, console)
    _print_kafka(report, console)
    _print_memory(report, console)
    table = Table("goal (per core: ticks per CPU second)", title="Goals", title_justify="left")
    for name in ("wanted", "seen", ""):
        table.add_column(name, justify="right")
    for goal in report["goals"]:
        met = {None: "not measured" if goal["seen"] is None else "", True: "met", False: "missed"}[goal["met"]]
        table.add_row(goal["what"], _number(goal["goal"]), _number(goal["seen"]), met)
    console.print(table)
    for trouble in report["troubles"]:
        console.print(f"TROUBLE: {trouble}", markup=False)


def _print_engine(report: dict[str, Any], console: Console) -> None:
    stages = list(report["lane"][0]["ns_per_tick"]) if report["lane"] else []
    table = Table("in one process, no Kafka", title="Engine: ns of CPU a tick, by stage", title_justify="left")
    for name in ("symbols", "ticks", *stages, "ticks/s", "per CPU s"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in report["kernel"]:
        title = f"kernel alone, {row['features']} features"
        cells = ["", f"{1e9 / row['ticks_per_cpu_s']:,.0f}", *[""] * (len(stages) - 2)] if stages else []
        table.add_row(title, f"{row['symbols']:,}", _number(row["ticks"]), *cells, *_rates(row))
    for row in report["lane"]:
        title = "lane with the model" if row["with_model"] else "lane, features only"
        cells = [f"{row['ns_per_tick'][stage]:,.0f}" for stage in stages]
        table.add_row(title, f"{row['symbols']:,}", _number(row["ticks"]), *cells, *_rates(row))
    console.print(table)


def _print_kafka(report: dict[str, Any], console: Console) -> None:
    table = Table("through Kafka, from a full topic", title="Engine and peers through Kafka", title_justify="left")
    for name in ("symbols", "features", "ticks", "wall s", "CPU s", "ticks/s", "per CPU s", "difference"):
        table.add_column(name, justify="right")
    for row in report["worker"]:
        what = "features and predictions" if row["with_model"] else "features only"
        title = f"tickloom worker, {what}, blocks of {row['block_ticks']:,}"
        count = str(report["kernel"][0]["features"])
        table.add_row(title, f"{row['symbols']:,}", count, *_figures(row))
    for row in report["peers"]:
        if row["reads"] != "memory":
            table.add_row(f"{row['title']} ({row['reads']})", *_peer_cells(report, row))
    console.print(table)
    for row in (each for each in report["worker"] if "error" not in each):
        parts = ", ".join(f"{name.replace('_', ' ')} {ns:,.0f}" for name, ns in row["wall_ns_per_tick"].items())
        cpu = f"{row['cpu_ns_per_tick']:,.0f} of CPU; {row['ticks_per_call']:,.0f} ticks a call"
        console.print(f"{row['name']}: ns of the wall clock a tick: {parts}; {cpu}")


def _print_memory(report: dict[str, Any], console: Console) -> None:
    table = Table("in one process, no Kafka", title="Peers without Kafka", title_justify="left")
    for name in ("symbols", "features", "ticks", "wall s", "CPU s", "ticks/s", "per CPU s", "difference"):
        table.add_column(name, justify="right")
    for row in report["peers"]:
        if row["reads"] == "memory":
            table.add_row(row["title"], *_peer_cells(report, row))
    console.print(table)


def _peer_cells(report: dict[str, Any], row: dict[str, Any]) -> list[str]:
    front = [f"{report['symbols']:,}", str(row["features"])]
    difference = row.get("max_relative_difference")
    return [*front, *_figures(row), "" if difference is None else f"{difference:.0e}"]


def _figures(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["not measured", *[""] * 4]
    return [_number(row["ticks"]), f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", *_rates(row)]


def _rates(row: dict[str, Any]) -> list[str]:
    return [_number(row["ticks_per_s"]), _number(row["ticks_per_cpu_s"])]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"

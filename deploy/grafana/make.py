"""Make Grafana's dashboards: ``python3 deploy/grafana/make.py``.

A dashboard is rows of panels, and a panel is its title, its kind, its questions and its unit; where it stands
follows. Grafana reads the JSON in dashboards/; a test holds that it is what this makes.
"""

import itertools
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COLUMNS = 24
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
CLICKHOUSE = {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"}
# Told apart by people who do not see all colours (Okabe and Ito, 2008).
UP, DOWN, FLAT = "#56b4e9", "#e69f00", "#8a94a6"

Panel = dict[str, Any]


def _target(number: int, query: str, legend: str, is_table: bool) -> dict[str, Any]:
    name = chr(ord("A") + number)
    if query.lstrip().startswith(("SELECT", "WITH")):
        kind = {"format": 1, "queryType": "table"} if is_table else {"format": 0, "queryType": "timeseries"}
        return {
            "refId": name,
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "rawSql": " ".join(query.split()),
            **kind,
        }
    target = {"refId": name, "datasource": PROMETHEUS, "expr": " ".join(query.split()), "legendFormat": legend}
    return target | ({"instant": True, "format": "table"} if is_table else {"range": True})


def panel(
    title: str,
    *queries: str | tuple[str, str],
    unit: str = "short",
    kind: str = "timeseries",
    width: int = 8,
    height: int = 8,
    about: str = "",
    red_from: float | None = None,
    colors: dict[str, str] | None = None,
    decimals: int | None = None,
) -> Panel:
    """Return a panel.

    Args:
        title: what it shows.
        queries: of Prometheus, each with a legend, or SQL of ClickHouse.
        unit: Grafana's name of it.
        kind: Grafana's name of the panel.
        width: of 24.
        height: in rows of some 30 pixels.
        about: what somebody must know to read it.
        red_from: it turns red there.
        colors: of series, by name.
        decimals: of numbers.
    """
    pairs = [(query, "") if isinstance(query, str) else query for query in queries]
    targets = [_target(number, *pair, kind == "table") for number, pair in enumerate(pairs)]
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red_from is not None:
        steps.append({"color": "red", "value": red_from})
    defaults: dict[str, Any] = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if decimals is not None:
        defaults["decimals"] = decimals
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for name, color in (colors or {}).items()
    ]
    made: Panel = {
        "type": kind,
        "title": title,
        "datasource": targets[0]["datasource"],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {},
        "targets": targets,
        "gridPos": {"w": width, "h": height},
    }
    if about:
        made["description"] = about
    if kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    elif kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": 60_000}
        made["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif kind == "candlestick":
        made["options"] = {
            "mode": "candles+volume",
            "candleStyle": "candles",
            "colors": {"up": UP, "down": DOWN},
            "includeAllFields": False,
        }
    return made


def stat(title: str, query: str, unit: str = "short", **more: Any) -> Panel:
    """Return a number with its recent course."""
    return panel(title, query, unit=unit, kind="stat", **{"width": 3, "height": 4, **more})


def dashboard(
    name: str, title: str, rows: dict[str, list[Panel]], symbols: bool = False, prices: bool = False
) -> dict[str, Any]:
    """Return a whole dashboard of rows of panels, each as high as its highest panel."""
    placed: list[Panel] = []
    numbers, y = itertools.count(1), 0
    for row, panels in rows.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append({"id": next(numbers), "type": "row", "title": row, "collapsed": False, "gridPos": place})
        x, y, height = 0, y + 1, 0
        for each in panels:
            size = each["gridPos"]
            if x + size["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            placed.append({"id": next(numbers)} | each | {"gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    variables: list[dict[str, Any]] = []
    if symbols:
        variables.append(
            {
                "name": "symbol",
                "type": "query",
                "datasource": CLICKHOUSE,
                "query": "SELECT DISTINCT symbol FROM v_predictions WHERE event_time > now() - INTERVAL 7 DAY "
                "ORDER BY symbol",
                "refresh": 2,
                "multi": False,
                "includeAll": False,
            }
        )
    if prices:
        variables += [
            {"name": name, "label": label, "type": "textbox", "query": value}
            for name, label, value in (
                ("core_usd", "USD for a core and hour", "0.04"),
                ("gib_usd", "USD for a GiB of memory and hour", "0.005"),
                ("disk_usd", "USD for a GiB of disk and month", "0.1"),
            )
        ]
    links = {"type": "dashboards", "tags": ["tickloom"], "title": "tickloom", "asDropdown": True, "keepTime": True}
    return {
        "uid": f"tickloom-{name}",
        "title": f"tickloom: {title}",
        "tags": ["tickloom"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "utc",
        "links": [links],
        "templating": {"list": variables},
        "panels": placed,
    }


def main() -> None:
    """Write every dashboard."""
    from boards import BOARDS

    for name, board in BOARDS.items():
        path = HERE / "dashboards" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(board, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()

"""The model card for a terminal: the same table as on the page, and the same sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from models.model_card_page import COLUMNS, scores


def tables(card: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table of all rows, and one of each symbol where there are several."""
    yield _table(card, "all", "all", "all judged rows")
    for part in card["slices"]:
        if part["group"] == "symbol":
            yield _table(card, "symbol", part["key"], part["key"])


def _table(card: Mapping[str, Any], group: str, key: str, title: str) -> Table:
    out = Table(title=title, title_justify="left")
    out.add_column("forecaster")
    models = [each["name"] for each in card["forecasters"] if not each["baseline"]]
    for heading in (*(heading for _, heading, _, _ in COLUMNS), *(f"{model} loses" for model in models)):
        out.add_column(heading, justify="right")
    compared = {
        (each["model"], each["against"]): each
        for each in card["comparisons"]
        if (each["group"], each["key"]) == (group, key)
    }
    for entry in card["forecasters"]:
        found = scores(entry, group, key)
        if found is None:
            continue
        cells = []
        for name, _, digits, _ in COLUMNS:
            deviation = found["deviation"][name]
            spread = f" ±{deviation:.{digits}f}" if deviation else ""
            cells.append(f"{found['mean'][name]:,.{digits}f}{spread}")
        for model in models:
            each = compared.get((model, entry["name"]))
            cells.append(f"{each['mean_difference']:+.4f}, p {each['p_value']:.2g}" if each else "")
        out.add_row(entry["name"], *cells, style="" if entry["baseline"] else "bold")
    return out

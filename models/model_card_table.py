"""The model card for a terminal: what matters most of the table on the page."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table

from models.model_card_page import scores

# Score, heading, digits.
_COLUMNS: Final = (
    ("log_loss", "log loss", 4),
    ("mcc", "MCC", 4),
    ("balanced_accuracy", "bal. acc.", 3),
    ("hit_rate", "hits", 3),
    ("rank_ic", "rank IC", 3),
    ("net_bps_per_trade", "net bps", 2),
    ("trades", "trades", 0),
)


def tables(card: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table of all rows, and one of each symbol where there are several."""
    yield _table(card, "all", "all", "all judged rows")
    for part in card["slices"]:
        if part["group"] == "symbol":
            yield _table(card, "symbol", part["key"], part["key"])


def _table(card: Mapping[str, Any], group: str, key: str, title: str) -> Table:
    out = Table(title=title, title_justify="left")
    out.add_column("forecaster", no_wrap=True)
    models = [each["name"] for each in card["forecasters"] if not each["baseline"]]
    headings = [heading for _, heading, _ in _COLUMNS]
    for heading in (*headings, *(f"{model} loses{more}" for model in models for more in ("", ", p"))):
        out.add_column(heading, justify="right", no_wrap=True)
    compared = {
        (each["model"], each["against"]): each
        for each in card["comparisons"]
        if (each["group"], each["key"]) == (group, key)
    }
    for entry in card["forecasters"]:
        found = scores(entry, group, key)
        if found is None:
            continue
        cells = [f"{found['mean'][name]:,.{digits}f}" for name, _, digits in _COLUMNS]
        for model in models:
            each = compared.get((model, entry["name"]))
            cells += [f"{each['mean_difference']:+.4f}", f"{each['p_value']:.4f}"] if each else ["", ""]
        out.add_row(entry["name"], *cells, style="" if entry["baseline"] else "bold")
        if entry["seeds"] > 1:
            spread = [f"±{found['deviation'][name]:,.{digits}f}" for name, _, digits in _COLUMNS]
            out.add_row(f"  over {entry['seeds']} seeds", *spread, style="dim")
    return out

"""The model card as a page: one file that asks no other host, for somebody who decides about money.

What the model does *not* beat comes first, then the table, then pictures of the same numbers.
"""

import html
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from models.card import CLASSES
from models.charts import Axis, Series, dot_chart, line_chart
from models.judged import REGIMES
from stream.clock import NS_PER_S

Entry = Mapping[str, Any]

_FEWEST_HORIZONS: Final = 30  # of an hour to be drawn
_STYLE: Final = Path(__file__).with_name("model_card.css")
_MODEL_STYLES: Final = ("c0", "c1", "c2")
_BASELINE_STYLES: Final = ("b0", "b1", "b2", "b3", "b4", "b5")
# Score, heading, digits, which way is better.
COLUMNS: Final = (
    ("log_loss", "log loss", 4, -1),
    ("mcc", "MCC", 4, 1),
    ("balanced_accuracy", "balanced accuracy", 3, 1),
    ("macro_f1", "macro-F1", 3, 1),
    ("brier", "Brier", 4, -1),
    ("calibration_error", "calibration error", 3, -1),
    ("hit_rate", "hit rate, not flat", 3, 1),
    ("ic", "IC", 3, 1),
    ("rank_ic", "rank IC", 3, 1),
    ("net_bps_per_trade", "net bps a trade", 2, 1),
)
_MEANINGS: Final = {
    "log loss": "mean surprise at what came, in nats; the forecasters are compared by it.",
    "MCC": "Matthews' correlation of the likeliest class with what came; 0 is chance.",
    "balanced accuracy": "mean share found of each class; 1/3 is chance.",
    "macro-F1": "mean over the classes of the harmonic mean of precision and recall.",
    "Brier": "squared distance of the probabilities from what came, summed over the classes.",
    "calibration error": "how far the probability of the chosen class is from how often it comes (15 bins).",
    "hit rate, not flat": "where the price left the dead band, how often the likelier side was right; 0.5 is "
    "chance.",
    "IC, rank IC": "correlation of the expected with the realised return; t is Newey-West over event time, as "
    "labels overlap.",
    "net bps a trade": "a position is opened where the expected return is larger than the spread and both fees, at "
    "the touch, and closed there when the horizon ends; one at a time for each symbol, without latency.",
    "p": "Diebold-Mariano on the log loss of each row: variance by a Bartlett kernel over event time of at least "
    "four horizons, small-sample correction by Harvey, Leybourne and Newbold, Student's t, two-sided.",
}


def page(card: Mapping[str, Any]) -> str:
    """Return the card of `models.judgement.judge` as a whole HTML document."""
    title = f"Model card: {', '.join(_models(card))}"
    body = [
        f"<h1>{_escape(title)}</h1>",
        _facts(card),
        _verdicts(card),
        *_tables(card),
        _charts(card),
        _regimes(card),
        _notes(card),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE.read_text('utf-8')}</style></head>\n<body>{''.join(body)}</body></html>\n"
    )


def scores(entry: Entry, group: str, key: str) -> Entry | None:
    """Return the scores of a forecaster on a slice, or None where the card has none."""
    return next((each for each in entry["scores"] if (each["group"], each["key"]) == (group, key)), None)


def _models(card: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in card["forecasters"] if not each["baseline"]]


def _styles(card: Mapping[str, Any]) -> dict[str, str]:
    models, simple = iter(_MODEL_STYLES * 9), iter(_BASELINE_STYLES * 9)
    return {each["name"]: next(simple if each["baseline"] else models) for each in card["forecasters"]}


def _facts(card: Mapping[str, Any]) -> str:
    everything = card["slices"][0]
    shares = " / ".join(f"{share:.1%}" for share in everything["down_flat_up"])
    facts = {
        "predicts": f"the mid {card['horizon_s']:g} s ahead; within ±{card['dead_band_bps']:g} bps is flat",
        "symbols": ", ".join(card["symbols"]),
        "judged": f"{_time(everything['from_ns'])} to {_time(everything['to_ns'])}",
        "rows": f"{everything['rows']:,}, over {everything['horizons']:,} horizons",
        "folds": f"{len(card['folds'])}, each trained on what came before",
        "seeds": " / ".join(
            f"{each['name']}: {each['seeds']}" for each in card["forecasters"] if not each["baseline"]
        ),
        "down / flat / up": shares,
        "median spread": f"{everything['median_spread_bps']:.2f} bps; fee {card['fee_bps']:g} bps an order",
    }
    items = "".join(f"<div><dt>{_escape(name)}</dt><dd>{_escape(text)}</dd></div>" for name, text in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _verdicts(card: Mapping[str, Any]) -> str:
    words = "".join(f"<li>{_escape(each['words'])}</li>" for each in card["verdicts"])
    if words:
        return f'<h2>Where it does not win</h2><div class="verdict"><ul>{words}</ul></div>'
    return (
        '<h2>Where it does not win</h2><div class="verdict won">Nowhere here: it beats every other forecaster '
        "in log loss and in MCC, on all rows and on each symbol, and trading on it pays after costs.</div>"
    )


def _tables(card: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Beside the baselines</h2>", _table(card, "all", "all")]
    symbols = [each["key"] for each in card["slices"] if each["group"] == "symbol"]
    for number, symbol in enumerate(symbols):
        few = number < 3
        opened = " open" if few else ""
        parts.append(
            f"<details{opened}><summary>{_escape(symbol)}</summary>{_table(card, 'symbol', symbol)}</details>"
        )
    parts.append(
        '<p class="soft">Means over the seeds, ± their standard deviation; × counts trades; the best of a column '
        "is underlined. Difference, p: how much less (−) or more (+) the model loses a row than this forecaster, "
        "and the chance of such a difference between equals. Baselines are fitted for each symbol on the same "
        "training span.</p>"
    )
    return parts


def _table(card: Mapping[str, Any], group: str, key: str) -> str:
    rows = [(entry, scores(entry, group, key)) for entry in card["forecasters"]]
    present = [(entry, found) for entry, found in rows if found is not None]
    best = {
        name: max((found["mean"][name] * sign for _, found in present), default=0.0) * sign
        for name, _, _, sign in COLUMNS
        if name != "net_bps_per_trade"
    }
    models = _models(card)
    head = "".join(f"<th>{_escape(model)}: difference, p</th>" for model in models)
    head += "".join(f"<th>{heading}</th>" for _, heading, _, _ in COLUMNS)
    lines = []
    for entry, found in present:
        cells = [f'<td title="{_escape(entry["what"])}">{_escape(entry["name"])}</td>']
        cells += [_difference(card, model, entry["name"], group, key) for model in models]
        for name, _, digits, _ in COLUMNS:
            marked = ' class="best"' if found["mean"][name] == best.get(name) else ""
            cells.append(f"<td{marked}>{_cell(found, name, digits)}</td>")
        style = "" if entry["baseline"] else ' class="model"'
        lines.append(f"<tr{style}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>forecaster</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(found: Entry, name: str, digits: int) -> str:
    mean, deviation = found["mean"], found["deviation"][name]
    below = [f"±{deviation:,.{digits}f}"] if deviation else []
    if name == "net_bps_per_trade":
        if not mean["trades"]:
            return "no trade"
        below.append(f"×{mean['trades']:,.4g}")
    if mean.get(f"{name}_t"):
        below.append(f"t {_signed(mean[f'{name}_t'], 1)}")
    under = f"<small>{' '.join(below)}</small>" if below else ""
    return f"{_signed(mean[name], digits)}{under}"


def _difference(card: Mapping[str, Any], model: str, against: str, group: str, key: str) -> str:
    wanted = (model, against, group, key)
    for each in card["comparisons"]:
        if (each["model"], each["against"], each["group"], each["key"]) == wanted:
            p = "&lt; 0.0001" if each["p_value"] < 1e-4 else f"= {each['p_value']:.4f}"
            difference = _signed(each["mean_difference"], 4, "+")
            return f'<td class="{each["verdict"]}">{difference}<small>p {p}</small></td>'
    return "<td></td>"


def _charts(card: Mapping[str, Any]) -> str:
    styles = _styles(card)
    legend = "".join(
        f'<span class="{styles[each["name"]]}"><b>{_escape(each["name"])}</b></span>'
        for each in card["forecasters"]
    )
    figures = [
        *(_seeds(card, styles, name, label) for name, label in (("log_loss", "log loss"), ("mcc", "MCC"))),
        _hours(card, styles, "log_loss", "log loss, less than the first baseline's", relative=True),
        _hours(card, styles, "hit_rate", "hit rate where not flat", relative=False),
        _profit(card, styles),
        *(_reliability(each) for each in card["forecasters"] if not each["baseline"]),
    ]
    return (
        f'<h2>Seeds, hours, profit, calibration</h2><div class="legend">{legend}</div>'
        f'<div class="charts">{"".join(figures)}</div>'
    )


def _figure(title: str, chart: str, words: str) -> str:
    return f"<figure><h3>{_escape(title)}</h3>{chart}<figcaption>{_escape(words)}</figcaption></figure>"


def _seeds(card: Mapping[str, Any], styles: Mapping[str, str], name: str, label: str) -> str:
    rows = [
        (each["name"], styles[each["name"]], each["scores"][0]["by_seed"][name]) for each in card["forecasters"]
    ]
    better = "left" if name == "log_loss" else "right"
    return _figure(
        f"{label} of each seed", dot_chart(rows, Axis(label)), f"All judged rows; further {better} is better."
    )


def _hours(card: Mapping[str, Any], styles: Mapping[str, str], name: str, label: str, *, relative: bool) -> str:
    hours = [
        each["key"] for each in card["slices"] if each["group"] == "hour" and each["horizons"] >= _FEWEST_HORIZONS
    ] or ["all"]
    group = "hour" if hours != ["all"] else "all"
    first = next((each for each in card["forecasters"] if each["baseline"]), card["forecasters"][0])
    series = []
    for entry in card["forecasters"]:
        found = [(hour, scores(entry, group, hour), scores(first, group, hour)) for hour in hours]
        points = [
            (float(number), one["mean"][name], other["mean"][name])
            for number, (_, one, other) in enumerate(found)
            if one is not None and other is not None
        ]
        y = [other - own if relative else own for _, own, other in points]
        series.append(Series(entry["name"], styles[entry["name"]], [x for x, _, _ in points], y, points=True))
    every = max(1, len(hours) // 12)
    ticks = [(float(number), hour) for number, hour in enumerate(hours) if number % every == 0]
    words = (
        f"How much less each loses than {first['name']}: higher is better. Hours with little left out."
        if relative
        else "How often the likelier of up and down was right: 0.5 is chance."
    )
    return _figure(f"By UTC hour: {label}", line_chart(series, Axis("UTC hour", ticks), Axis(label)), words)


def _profit(card: Mapping[str, Any], styles: Mapping[str, str]) -> str:
    entries = card["forecasters"]
    count = len(entries[0]["cumulative_net_bps"])
    at_ns = entries[0]["cumulative_at_ns"]
    ticks = [(float(place), _time(at_ns[place], "%d %b %H:%M")) for place in range(0, count, max(1, count // 4))]
    places = [float(place) for place in range(count)]
    series = [Series(each["name"], styles[each["name"]], places, each["cumulative_net_bps"]) for each in entries]
    chart = line_chart(series, Axis("judged rows, in order", ticks), Axis("net bps, cumulative"))
    return _figure(
        "What trading on it would have earned", chart, "After half-spreads and fees; mean over the seeds."
    )


def _reliability(entry: Entry) -> str:
    series = [Series("ideal", "ideal", [0.0, 1.0], [0.0, 1.0])]
    for name in CLASSES:
        bins = entry["reliability"][name]
        x, y = [each["predicted"] for each in bins], [each["observed"] for each in bins]
        series.append(Series(name, name, x, y, points=True))
    chart = line_chart(
        series, Axis("probability given", low=0.0, high=1.0), Axis("share that came", low=0.0, high=1.0)
    )
    legend = "".join(f'<span class="{name}"><b>{name}</b></span>' for name in CLASSES)
    words = (
        "Ten bins of each class with the same number of rows; on the dashed line probabilities mean what they say."
    )
    return _figure(f"Calibration of {entry['name']}", f'<div class="legend">{legend}</div>{chart}', words)


def _regimes(card: Mapping[str, Any]) -> str:
    regimes = [name for name in REGIMES if any(each["key"] == name for each in card["slices"])]
    if not regimes:
        return ""
    shown = [
        column for column in COLUMNS if column[0] in ("log_loss", "mcc", "hit_rate", "ic", "net_bps_per_trade")
    ]
    over = "".join(f'<th class="over" colspan="{len(regimes)}">{heading}</th>' for _, heading, _, _ in shown)
    head = "".join(f"<th>{regime}</th>" for _ in shown for regime in regimes)
    lines = []
    for entry in card["forecasters"]:
        found = [scores(entry, "regime", regime) for regime in regimes]
        cells = [
            f"<td>{_signed(each['mean'][name], digits)}</td>" if each is not None else "<td></td>"
            for name, _, digits, _ in shown
            for each in found
        ]
        style = "" if entry["baseline"] else ' class="model"'
        lines.append(f"<tr{style}><td>{_escape(entry['name'])}</td>{''.join(cells)}</tr>")
    words = f"Thirds of {card['regime_feature']} on the training span, for each symbol."
    return (
        f'<h2>By volatility</h2><p class="soft">{_escape(words)}</p><div class="scroll"><table><thead><tr>'
        f"<th></th>{over}</tr><tr><th>forecaster</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _notes(card: Mapping[str, Any]) -> str:
    meanings = "".join(f"<li><b>{_escape(name)}</b>: {_escape(text)}</li>" for name, text in _MEANINGS.items())
    forecasters = "".join(
        f"<li><b>{_escape(each['name'])}</b>: {_escape(each['what'])}</li>" for each in card["forecasters"]
    )
    hidden = ("forecasters", "comparisons", "verdicts", "slices")
    rest = {name: value for name, value in card.items() if name not in hidden}
    return (
        f'<h2>What the words mean</h2><ul class="soft">{meanings}</ul><h2>Who is compared</h2>'
        f'<ul class="soft">{forecasters}</ul><details><summary>Data, folds, settings and versions</summary>'
        f"<pre>{_escape(json.dumps(rest, indent=1))}</pre></details>"
    )


def _time(time_ns: int, layout: str = "%Y-%m-%d %H:%M") -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC).strftime(layout)


def _signed(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def _escape(text: str) -> str:
    return html.escape(text, quote=True)

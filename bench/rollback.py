"""How soon is a poisoned model taken out of service, and is a good one left in peace?

    python -m bench.rollback [--seconds 3600] [--replay DIRECTORY --day DAY]

Market time, without Kafka: the champion and models that were spoilt answer the same ticks, simulated ones that none
of them was trained on or recorded ones, one at a time and with the champion in shadow, as after a promotion. Told
are the predictions that were served, and the market time, until the first trial had its verdict. What a running
engine adds is the way through Kafka (milliseconds) and the swap (a block).
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from agents.drift import ANSWERS
from agents.outcomes import Costs
from bench.other_model import write_other_model, write_poisoned_model
from models.artifact import load
from models.dataset import HistoryRows, history
from models.metrics import serve
from models.predictor import load_predictor
from models.simulated import simulated_markets
from models.watch import PartitionWatch, Service
from stream.clock import NS_PER_S
from stream.records import PREDICTION, Records, partition_of
from stream.settings import Settings
from stream.sources.replay import Replay

PARTITIONS = 4
SECONDS = 3600.0
QUIET_MARKETS = (b".2", b".4")  # 70 symbols, 350 ticks/s: more of them tell no more of a window
BLOCK_ROWS = 512
BAD = 1 << 63  # ids of models that are not in files


def side_by_side(chunk: Records) -> Records:
    """Return the ticks of the quiet markets, as live ones come: `simulated_markets` yields one after the other."""
    quiet = np.logical_or.reduce([np.char.endswith(chunk["symbol"], name) for name in QUIET_MARKETS])
    ticks = chunk[quiet]
    return ticks[np.argsort(ticks["event_ns"], kind="stable")]


def predictions(rows: HistoryRows, answers: Any, model_id: int, horizon_ns: int) -> Records:
    """Return ``PREDICTION[A]`` of answers, ``float32[A, 4]``."""
    made = np.zeros(len(rows.event_ns), PREDICTION)
    made["symbol"] = np.array([symbol.encode() for symbol in rows.symbols])[rows.symbol_row]
    for symbol in range(len(rows.symbols)):
        where = rows.symbol_row == symbol
        made["seq"][where] = 1 + np.arange(where.sum())
    made["event_ns"], made["ref_price"], made["horizon_ns"] = rows.event_ns, rows.ref_price, horizon_ns
    made["model_id"], made["source_offset"] = model_id, np.arange(len(made))
    for column, name in enumerate(ANSWERS):
        made[name] = answers[:, column]
    return made


def run(
    served: Records, shadow: Records, service: Service, dead_band_bps: float, threshold: float
) -> dict[str, Any]:
    """Return when the first trial had its verdict, or how far it was from one at the end."""
    partitions = partition_of(served["symbol"], PARTITIONS)
    watches = [PartitionWatch(number, Costs(0.0, 1.0), 600 * NS_PER_S) for number in range(PARTITIONS)]
    for watch in watches:
        watch.know({service.model_id: dead_band_bps, int(service.previous_id or 0): dead_band_bps})
        watch.serve(service)
    for start in range(0, len(served), BLOCK_ROWS):
        for number, watch in enumerate(watches):
            where = np.flatnonzero(partitions[start : start + BLOCK_ROWS] == number) + start
            if len(where):
                watch.take(shadow[where], where, is_shadow=True)
                watch.take(served[where], where, is_shadow=False)
        found = [(trial.e_value, other) for watch in watches for other, trial in watch.trials.items()]
        if max(found)[0] >= threshold:
            event_ns = served["event_ns"][: start + BLOCK_ROWS]
            seconds = int(event_ns[-1] - event_ns[0]) / NS_PER_S
            return {"predictions": start + BLOCK_ROWS, "market_s": round(seconds, 1), "by": max(found)[1]}
    return {"predictions": None, "highest_e_value": round(max(found)[0], 3), "by": max(found)[1]}


def measure(rows: HistoryRows, champion: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of each model."""
    card = load(champion).card
    write_poisoned_model(champion, folder / "exchanged.onnx", gain=1.0)
    write_poisoned_model(champion, folder / "sure.onnx", gain=4.0)
    write_other_model(champion, folder / "noise.onnx", seed=3, noise=1.0, gain=0.0)
    good = serve(load_predictor(champion), rows)
    answers = {
        "the champion again": good,
        "up and down exchanged": serve(load_predictor(folder / "exchanged.onnx"), rows),
        "exchanged, and four times as sure": serve(load_predictor(folder / "sure.onnx"), rows),
        "random weights": serve(load_predictor(folder / "noise.onnx"), rows),
        "always 98 % down": np.tile(np.array([0.98, 0.01, 0.01, 0.0], np.float32), (len(good), 1)),
    }
    shadow = predictions(rows, good, card.model_id, card.horizon_ns)
    threshold = 2 * PARTITIONS / Settings().rollback_false_alarms
    service = Service(BAD, card.horizon_ns, 1, card.model_id, card.horizon_ns)
    return {
        name: run(predictions(rows, of, BAD, card.horizon_ns), shadow, service, card.dead_band_bps, threshold)
        for name, of in answers.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--day", type=date.fromisoformat)
    options = parser.parse_args()
    settings = Settings()
    if options.replay is None:
        ticks: Iterable[Records] = map(side_by_side, simulated_markets(options.seed, options.seconds))
    else:
        ticks = Replay([options.replay], options.day).days()
    rows = history(ticks, int(settings.lateness_s * NS_PER_S))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(rows, settings.model, Path(folder))
    market_s = int(rows.event_ns.max() - rows.event_ns.min()) / NS_PER_S
    about = {"ticks": len(rows.event_ns), "symbols": len(rows.symbols), "market_s": round(market_s, 1)}
    print(json.dumps(about | {"until_the_verdict": figures}, indent=2))


if __name__ == "__main__":
    main()

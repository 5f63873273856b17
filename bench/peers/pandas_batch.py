"""Peer: pandas over all ticks at once. Not a stream: it shows what vectorised code costs when it may look ahead.

It gets the reference price, and times a pass over the whole series of each symbol.
"""

import numpy as np
import pandas as pd

from bench.markets import load_trail
from bench.peers.meter import Job, Meter
from bench.peers.pandas_windows import indicators


def main(job: Job) -> None:
    """Measure one pass."""
    series: dict[str, list[float]] = {}
    for name, _, ref, _ in load_trail(job.market, job.limit_ticks):
        series.setdefault(name, []).append(ref)
    inputs = {name: pd.Series(np.array(refs)) for name, refs in series.items()}
    meter = Meter(job)
    meter.start()
    outputs = {name: indicators(refs) for name, refs in inputs.items()}
    meter.ticks = sum(map(len, inputs.values()))
    meter.finish(
        {
            name: {"ticks": len(inputs[name])} | {key: float(column.iloc[-1]) for key, column in columns.items()}
            for name, columns in outputs.items()
        }
    )


if __name__ == "__main__":
    main(Job.from_argv())

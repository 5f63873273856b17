"""What `exporters.explain.explain` finds out, and how it is told."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from agents import features
from agents.periods import Periods
from models.recompute import Recomputed, Switch
from stream.records import PREDICTION, PREDICTION_CONTENT, STAGES, Records
from stream.topics import TICKS

Verdict = Literal["identical", "different", "gone"]
Missing = Literal["ticks", "model"]

_NAMES: Final = PREDICTION.names or ()
_PLACE: Final = ("source_index", "source_partition", "source_offset")
_COMPARED: Final = (*PREDICTION_CONTENT, *_PLACE, "recv_ns")
_AS_HEX: Final = frozenset({"model_id", "feature_hash"})
_SPANS: Final = ("source_to_consumed", "features", "inference", "publish")


@dataclass(frozen=True)
class Explanation:
    """One prediction, what it came from, and whether that gives it again."""

    symbol: str
    seq: int
    epoch: str
    found_in: str  # clickhouse or kafka
    stored: Records  # PREDICTION scalar
    version: str  # of its model, in the registry; "" where that has none
    switches: tuple[Switch, ...]  # of the symbol's model before it
    outcome: Mapping[str, Any] | None  # where it is known
    periods: Periods
    verdict: Verdict = "gone"
    differences: tuple[str, ...] = ()  # fields of the stored record that come out differently
    missing: Missing | None = None
    reason: str = ""  # of what is gone, in words
    ticks_from: str = ""  # clickhouse or kafka
    recomputed: Recomputed | None = None
    taken: tuple[str, ...] = ()  # names of the features that the model takes

    def without(self, missing: Missing, reason: str) -> "Explanation":
        """Return that it cannot be made again."""
        return dataclasses.replace(self, verdict="gone", missing=missing, reason=reason)

    def compared(self, recomputed: Recomputed, ticks_from: str, taken: tuple[str, ...]) -> "Explanation":
        """Return what comes of comparing it with what came out."""
        found = differences(self.stored, recomputed.prediction)
        return dataclasses.replace(
            self,
            verdict="different" if found else "identical",
            differences=found,
            recomputed=recomputed,
            ticks_from=ticks_from,
            taken=taken,
        )

    @property
    def id(self) -> str:
        """What names it, and nothing else."""
        return f"{self.symbol}:{self.seq}@{self.epoch}"

    @property
    def latencies_us(self) -> dict[str, float]:
        """How long each stage took, by the stored times."""
        times = [int(self.stored[name]) for name in STAGES]
        spans = {name: (end - start) / 1e3 for name, start, end in zip(_SPANS, times, times[1:], strict=False)}
        return {**spans, "tick_to_prediction": (times[-1] - times[0]) / 1e3}

    def features(self) -> list[dict[str, Any]]:
        """Return the recomputed features: name, unit, value, and whether the model takes it."""
        if self.recomputed is None:
            return []
        return [
            {"name": each.name, "unit": each.unit, "value": float(value), "taken": each.name in self.taken}
            for each, value in zip(features.catalogue(self.periods), self.recomputed.features, strict=True)
        ]

    def compared_values(self) -> list[dict[str, Any]]:
        """Return stored and recomputed value of each field that differs."""
        if self.recomputed is None:
            return []
        stored, recomputed = plain_record(self.stored), plain_record(self.recomputed.prediction)
        return [
            {"field": name, "stored": stored[name], "recomputed": recomputed[name]} for name in self.differences
        ]

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        recomputed = self.recomputed
        return {
            "id": self.id,
            "symbol": self.symbol,
            "seq": self.seq,
            "epoch": self.epoch,
            "verdict": self.verdict,
            "differences": self.compared_values(),
            "missing": self.missing,
            "reason": self.reason,
            "found_in": self.found_in,
            "stored": plain_record(self.stored),
            "recomputed": None if recomputed is None else plain_record(recomputed.prediction),
            "ticks": {"from": self.ticks_from, "read": 0 if recomputed is None else recomputed.ticks},
            "model": {
                "id": f"{int(self.stored['model_id']):016x}",
                "version": self.version,
                "switches": [
                    {"offset": each.offset, "model": f"{each.model_id:016x}", "recorded": each.is_recorded}
                    for each in self.switches
                ],
            },
            "features": self.features(),
            "source": {"topic": TICKS, **{name: int(self.stored[name]) for name in _PLACE}},
            "latencies_us": self.latencies_us,
            "outcome": None if self.outcome is None else dict(self.outcome),
        }


def differences(stored: Records, recomputed: Records) -> tuple[str, ...]:
    """Return the fields of two ``PREDICTION`` scalars whose bytes differ, but for the times of the stages.

    A stored one may be from before predictions had a spread: that is no difference.
    """
    unknown = {"spread_bps"} if np.isnan(stored["spread_bps"]) else set()
    return tuple(
        name for name in _COMPARED if stored[name].tobytes() != recomputed[name].tobytes() and name not in unknown
    )


def is_same_place(stored: Records, recomputed: Records) -> bool:
    """Return whether two predictions are of the same tick."""
    return all(stored[name] == recomputed[name] for name in _PLACE)


def plain_record(record: Records) -> dict[str, Any]:
    """Return a ``PREDICTION`` scalar as plain values; ids as hexadecimal."""
    plain: dict[str, Any] = {}
    for name in _NAMES:
        value = record[name].item()
        plain[name] = f"{value:016x}" if name in _AS_HEX else value.decode() if name == "symbol" else value
    return plain

"""Retraining, step by step: collect, train, judge, gate, register, shadow, promote.

Each step is written to a journal once it is finished and not done again; what it made lies in the run's folder. A
run that was killed, however often, ends as one that was not: ticks are collected once, a training goes on from its
checkpoint, and roles change only from what they were when the run began.
"""

import asyncio
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from agents import features
from models import promotion
from models.artifact import load
from models.contenders import contender_name, from_file
from models.dataset import HistoryRows, history, label
from models.evaluate import Plan, evaluate
from models.gate import Rules, decide
from models.journal import Journal
from models.registry import MODEL, Registry, Version
from models.splits import by_shares
from models.train import TrainSettings, train_on
from stream.clock import NS_PER_S, Clock, wall_ns
from stream.errors import ModelError, SettingsError, SourceError
from stream.records import TICK, Records

STEPS: Final = ("collect", "train", "judge", "gate", "register", "shadow", "promote")
END: Final = "end"
_TICKS: Final = "ticks.bin"
_READ_TICKS: Final = 1 << 20

# From and to, ns of event time -> ``TICK[N]`` chunks in order of arrival.
Collect = Callable[[int, int], Iterable[Records]]


@dataclass(frozen=True)
class Retraining:
    """What shall be done."""

    settings: TrainSettings  # horizon and dead band must be those of the champion
    collect: Collect
    collected_from: str  # in words
    days: float  # before now
    rules: Rules = field(default_factory=Rules)
    shadow_s: float = 3600.0
    promote: bool = True
    bootstrap: str | None = None  # brokers; None: nothing runs in shadow, nothing is promoted

    def asked(self) -> dict[str, Any]:
        """Return what tells it from another one, as plain values."""
        return {
            "settings": dataclasses.asdict(self.settings),
            "ticks": self.collected_from,
            "days": self.days,
            "rules": dataclasses.asdict(self.rules),
            "promote": self.promote,
        }


class Run:
    """One retraining in its folder. Nobody else may work in there: see the lock that the command takes."""

    def __init__(
        self,
        folder: Path,
        wanted: Retraining,
        registry: Registry,
        base: Path,
        console: Console,
        clock: Clock = wall_ns,
    ) -> None:
        """Open it; nothing is done yet.

        Args:
            folder: of the run; its name is the run's.
            wanted: what shall be done.
            registry: where models are.
            base: the model that serves while none was ever promoted.
            console: where to say what is done.
            clock: of now.

        Raises:
            SettingsError: the folder holds something else.
        """
        self._folder, self._wanted, self._registry, self._base = folder, wanted, registry, base
        self._console, self._clock = console, clock
        self._available = features.names(wanted.settings.periods)
        self._by = f"retrain {folder.name}"
        self._journal = Journal(folder, clock)

    def go(self) -> dict[str, Any]:
        """Do what is not done yet; return how it ended: ``outcome`` and ``reason``.

        Outcomes are promoted, registered, shadow (both as asked for), refused and superseded.

        Raises:
            SettingsError: the run was begun with other settings, or the champion predicts something else.
            SourceError: there are no ticks.
            ModelError: too little data, or the champion has seen what would judge it.
            RegistryError: the registry refuses.
            ServerError: no broker answers.
        """
        self._begin()
        steps = self._journal.steps
        for step in STEPS:
            if END in steps:
                break
            if step not in steps:
                self._say(step)
                getattr(self, f"_{step}")()
        for left in (_TICKS, "checkpoints"):
            path = self._folder / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for fold in self._folder.glob("fold-*"):
            shutil.rmtree(fold)
        return steps[END]

    def _begin(self) -> None:
        to_ns = self._clock()
        found = {
            "champion": self._registry.aliases().champion,
            "from_ns": to_ns - int(self._wanted.days * 86_400 * NS_PER_S),
            "to_ns": to_ns,
        }
        self._journal.begin(self._wanted.asked(), found)
        if END not in self._journal.steps:
            self._check_task()

    @property
    def _found(self) -> dict[str, Any]:
        found: dict[str, Any] = self._journal.plan["found"]
        return found

    @cached_property
    def _serving(self) -> Path:
        """The model in service when the run began."""
        champion = self._found["champion"]
        return self._base if champion is None else self._registry.fetch(champion)

    @cached_property
    def _rows(self) -> HistoryRows:
        made = self._wanted.settings
        ticks, lateness_ns = self._read(), int(made.lateness_s * NS_PER_S)
        return history(ticks, lateness_ns, made.periods, made.outlier_bps, made.outlier_scale)

    def _check_task(self) -> None:
        card, settings = load(self._serving, self._available).card, self._wanted.settings
        theirs, ours = (card.horizon_ns, card.dead_band_bps), (settings.horizon.ns, settings.dead_band_bps)
        if theirs != ours and self._found["champion"] is not None:
            raise SettingsError(
                f"the champion predicts {theirs[0] / NS_PER_S:g} s ahead with a dead band of {theirs[1]:g} bps, "
                f"and the new model would predict {ours[0] / NS_PER_S:g} s with {ours[1]:g} bps, which cannot be "
                "compared; right would be the same, or to promote the first such model by hand"
            )

    def _collect(self) -> None:
        part = self._folder / (_TICKS + ".part")
        count = 0
        with part.open("wb") as file:
            for ticks in self._wanted.collect(self._found["from_ns"], self._found["to_ns"]):
                file.write(np.ascontiguousarray(ticks).tobytes())
                count += len(ticks)
            file.flush()
            os.fsync(file.fileno())
        if count == 0:
            raise SourceError(f"no ticks in {self._wanted.collected_from}; right would be a source that has some")
        part.replace(self._folder / _TICKS)
        self._journal.finish("collect", ticks=count)

    def _read(self) -> Iterator[Records]:
        with (self._folder / _TICKS).open("rb") as file:
            while len(ticks := np.fromfile(file, TICK, _READ_TICKS)):
                yield ticks

    def _train(self) -> None:
        settings = self._wanted.settings
        report = train_on(self._rows, settings, self._folder / MODEL, self._console, self._folder / "checkpoints")
        self._journal.finish("train", model_id=f"{report.card.model_id:016x}", parity=report.parity)

    def _judge(self) -> None:
        settings, mine = self._wanted.settings, self._folder / MODEL
        labels = label(self._rows, settings.horizon, settings.dead_band_bps, settings.clip_bps)
        embargo_ns = int(settings.embargo_s * NS_PER_S)
        split = by_shares(self._rows, labels, settings.validation_share, settings.held_out_share, embargo_ns)
        paths = [mine]
        rival = self._rival()
        if rival is not None and rival != self._name(mine):
            paths.append(self._serving)
        plan = Plan(settings, "shares", 1, tuple(paths))
        plan.check()
        contenders = [from_file(self._rows, path, settings.periods) for path in paths]
        evaluate(self._rows, labels, (split,), plan, contenders, self._folder, self._console)
        self._journal.finish("judge", rows=int(split.test.sum()))

    def _gate(self) -> None:
        try:
            name = self._name(self._folder / MODEL)  # which loads it: form, hash, golden answers
        except ModelError as error:
            self._end("refused", str(error))
            return
        rival = self._rival()
        if rival == name:
            self._end("refused", "it is the model that serves: the same ticks and settings gave the same weights")
            return
        card = json.loads((self._folder / "card.json").read_text("utf-8"))
        verdict = decide(card, name, rival, self._journal.steps["train"]["parity"], self._wanted.rules)
        self._journal.finish("gate", passed=verdict.passed, reasons=verdict.reasons)
        for reason in verdict.reasons:
            self._say(f"{'passed' if verdict.passed else 'refused'}: {reason}")
        if not verdict.passed:
            self._end("refused", "; ".join(verdict.reasons))

    def _register(self) -> None:
        version = self._registry.publish(self._folder / MODEL, by=self._by, available=self._available)
        self._journal.finish("register", version=version)
        if self._wanted.bootstrap is None:
            self._end("registered", f"{version}: no brokers are set, so that nobody is told")

    def _shadow(self) -> None:
        asyncio.run(self._run_in_shadow(self._journal.steps["register"]["version"]))

    async def _run_in_shadow(self, version: str) -> None:
        bootstrap, steps = self._broker(), self._journal.steps
        if self._wanted.shadow_s > 0.0:
            if "challenge" not in steps:
                await promotion.challenge(self._registry, bootstrap, version, reason=self._why(), by=self._by)
                self._journal.finish("challenge")
            until_ns = steps["challenge"]["at_ns"] + int(self._wanted.shadow_s * NS_PER_S)
            await asyncio.sleep(max(0.0, (until_ns - self._clock()) / NS_PER_S))
            said = await promotion.read_models(bootstrap)
            objection = _objection(said, version)
            if objection is not None:
                await promotion.retire(self._registry, bootstrap, version, reason=objection, by=self._by)
                self._end("refused", objection)
                return
        self._journal.finish("shadow", seconds=self._wanted.shadow_s)
        if not self._wanted.promote:
            self._end(
                "shadow" if self._wanted.shadow_s > 0.0 else "registered", f"{version}: not promoted, as asked"
            )

    def _promote(self) -> None:
        asyncio.run(self._promote_now(self._journal.steps["register"]["version"]))

    async def _promote_now(self, version: str) -> None:
        bootstrap, judged_against = self._broker(), self._found["champion"]
        champion = self._registry.aliases().champion
        if champion not in (version, judged_against):
            words = (
                f"it was judged against {judged_against or 'the model of the settings'}, and {champion} serves now"
            )
            await promotion.retire(self._registry, bootstrap, version, reason=words, by=self._by)
            self._end("superseded", words)
            return
        await promotion.promote(
            self._registry,
            bootstrap,
            version,
            reason=self._why(),
            by=self._by,
            base=self._base,
            available=self._available,
            expected=champion,
        )
        self._journal.finish("promote", version=version)
        self._end("promoted", f"{version}: {self._why()}")

    def _end(self, outcome: str, reason: str) -> None:
        self._say(f"{outcome}: {reason}")
        self._journal.finish(END, outcome=outcome, reason=reason)

    def _say(self, words: str) -> None:
        self._console.print(f"{self._folder.name}: {words}", markup=False, highlight=False, soft_wrap=True)

    def _broker(self) -> str:
        assert self._wanted.bootstrap is not None  # noqa: S101  (`_register` ends a run that has none)
        return self._wanted.bootstrap

    def _why(self) -> str:
        return "; ".join(self._journal.steps["gate"]["reasons"])

    def _name(self, path: Path) -> str:
        return contender_name(load(path, self._available).card)

    def _rival(self) -> str | None:
        """The name of the model in service; None where it predicts something else, which only a first one may."""
        card, settings = load(self._serving, self._available).card, self._wanted.settings
        same = (card.horizon_ns, card.dead_band_bps) == (settings.horizon.ns, settings.dead_band_bps)
        return contender_name(card) if same else None


def _objection(said: promotion.ModelsTopic, version: str) -> str | None:
    """Return what workers have against a model that ran in shadow."""
    for worker, status in said.workers.items():
        refused = status.get("refused_models", {})
        if version in refused:
            return f"{worker} refused it in shadow: {refused[version]}"
    model_id = f"{Version.parse(version).model_id:016x}"
    if not any(model_id in status.get("challengers", ()) for status in said.workers.values()):
        return "no worker ran it in shadow"
    return None

"""Why a prediction is what it is: made once more from its ticks, and compared to the bit with what is stored."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agents import features
from agents.periods import Periods
from agents.swaps import Swap
from agents.windows import Windows
from exporters.clickhouse.complaints import QueryRefused
from exporters.clickhouse.session import Limits, Session
from exporters.clickhouse.stored import InClickHouse
from exporters.explanation import Explanation, is_same_place
from exporters.kafka_stored import InKafka
from models.by_id import ModelGone, ModelsById
from models.promotion import read_models
from models.recompute import Block, EndsBefore, Recomputed, Run, Switch, recompute, switches_of
from models.registry import Registry
from stream.clock import NS_PER_S
from stream.errors import ServerError, SettingsError, SourceError, TickloomError
from stream.records import Records, encode_symbol
from stream.settings import Settings
from stream.topics import TICKS

logger = logging.getLogger(__name__)

_LIMITS: Final = Limits(seconds=600, rows=1_000_000_000)  # of the ticks of one symbol, sorted by the server


class UnknownPrediction(SettingsError):
    """No such prediction is stored."""


class _TicksGone(TickloomError):
    """Not all ticks that it takes are stored any more."""


@dataclass(frozen=True)
class _Found:
    """A stored prediction."""

    record: Records  # PREDICTION scalar
    epoch: str
    where: str  # InClickHouse.name or InKafka.name

    @property
    def partition(self) -> int:
        return int(self.record["source_partition"])


@dataclass(frozen=True)
class _Origin:
    """Ticks of the symbol, from somewhere."""

    name: str
    says: str  # what it has, in words
    blocks: Iterator[Block]
    is_whole: bool  # certainly has the symbol's first tick


def explain(settings: Settings, symbol: str, seq: int, epoch: str | None = None) -> Explanation:
    """Return a prediction with everything that it came from, recomputed where it can be.

    Blocks, for as long as it takes to read the symbol's ticks from the first one on. Not to be called from within a
    running event loop.

    Args:
        settings: ``kafka``, and ``clickhouse`` or ``clickhouse_analyst``, or one of them; and as its worker had
            them: periods, limits for ticks, the model, the registry and what runs models.
        symbol: whose prediction.
        seq: which of them.
        epoch: of which Kafka cluster, where several had predictions of the symbol; none is the newest.

    Raises:
        UnknownPrediction: none is stored.
        SettingsError: no server is configured.
        ServerError: none of the servers answers.
        InvariantError: a feature or an answer is not finite.
    """
    encode_symbol(symbol)
    with _Case(settings, symbol, seq) as case:
        return case.solve(epoch)


class _Case:
    """One prediction, and the servers that may know of it."""

    def __init__(self, settings: Settings, symbol: str, seq: int) -> None:
        self._settings, self._symbol, self._seq = settings, symbol, seq
        self._periods = Periods.of(settings)
        self._models = ModelsById(
            Registry(settings.registry_url, settings.data_dir / "explained" / "models"),
            settings.model,
            settings.predictor,
            features.names(self._periods),
        )
        self._open = contextlib.ExitStack()
        self._tables: InClickHouse | None = None
        self._kafka: InKafka | None = None

    def __enter__(self) -> "_Case":
        settings = self._settings
        if settings.clickhouse is not None or settings.clickhouse_analyst is not None:
            session = self._open.enter_context(Session.of(settings, _LIMITS))
            self._tables = InClickHouse(session, self._symbol)
        if settings.kafka is not None:
            try:
                self._kafka = InKafka(settings.kafka, self._symbol)
            except SourceError as error:
                logger.warning("%s; going on without Kafka", error)
        if settings.kafka is None and self._tables is None:
            raise SettingsError(
                "neither ClickHouse nor Kafka is configured, and no demo runs here: set TICKLOOM_CLICKHOUSE and "
                "TICKLOOM_KAFKA, or start one with `tickloom demo`"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def solve(self, epoch: str | None) -> Explanation:
        """Find it, make it again, compare."""
        found = self._find(epoch)
        if self._kafka is not None and self._kafka.epoch != found.epoch:
            self._kafka = None  # another cluster: its offsets and seqs are not these
        runs = self._runs(found)
        switches = tuple(switches_of(encode_symbol(self._symbol), self._swaps(found.partition), runs))
        model_id = int(found.record["model_id"])
        known = Explanation(
            self._symbol,
            self._seq,
            found.epoch,
            found.where,
            found.record,
            self._models.version_of(model_id) or "",
            switches,
            None if self._tables is None else self._tables.outcome(self._seq, model_id, found.epoch),
            self._periods,
        )
        try:
            taken = tuple(self._models.predictor(model_id).card.feature_names)
            recomputed, origin = self._recompute(found, runs, switches)
        except ModelGone as error:
            return known.without("model", str(error))
        except _TicksGone as error:
            return known.without("ticks", str(error))
        return known.compared(recomputed, origin, taken)

    def _find(self, epoch: str | None) -> _Found:
        looked: list[str] = []
        found = None
        if self._tables is not None:
            try:
                found = self._tables.prediction(self._seq, epoch)
                looked.append("ClickHouse")
            except (ServerError, QueryRefused) as error:
                logger.warning("%s; going on without ClickHouse", error)
                self._tables = None
            if found is not None:
                return _Found(*found, InClickHouse.name)
        if self._kafka is not None:
            found = self._kafka.prediction(self._seq, epoch, self._settings.partitions)
            looked.append("Kafka")
            if found is not None:
                return _Found(*found, InKafka.name)
        if not looked:
            raise ServerError("neither ClickHouse nor Kafka answers")
        of_epoch = "" if epoch is None else f" of epoch {epoch}"
        raise UnknownPrediction(
            f"no prediction {self._symbol}:{self._seq}{of_epoch} is in {' or '.join(looked)}; "
            "`tickloom sql --book accounting` counts what there is"
        )

    def _runs(self, found: _Found) -> list[Run]:
        if self._tables is not None and found.where == InClickHouse.name:
            return self._tables.runs(self._seq, found.epoch)
        assert self._kafka is not None  # noqa: S101  (it was found there)
        return self._kafka.runs(self._seq, found.partition)

    def _swaps(self, partition: int) -> list[Swap]:
        if self._kafka is None:
            return []  # the predictions tell most of them
        return asyncio.run(read_models(str(self._settings.kafka))).swaps_of(partition)

    def _recompute(self, found: _Found, runs: list[Run], switches: tuple[Switch, ...]) -> tuple[Recomputed, str]:
        """Try what has the symbol's first tick, then what may have it."""
        tried: list[str] = []
        for origin in self._origins(found):
            try:
                recomputed = recompute(
                    origin.blocks,
                    self._seq,
                    runs[0].model_id,
                    switches,
                    self._models.predictor,
                    self._windows(),
                    found.partition,
                )
            except (EndsBefore, QueryRefused, SourceError) as error:
                tried.append(f"{origin.says}: {error}")
                continue
            # With ticks missing before it, a later tick gets its number.
            if origin.is_whole or is_same_place(found.record, recomputed.prediction):
                return recomputed, origin.name
            tried.append(f"{origin.says}: that gives seq {self._seq:,} to a later tick, so that some are missing")
        place = f"block {int(found.record['source_offset']):,} of partition {found.partition}"
        raise _TicksGone(
            f"the ticks of {self._symbol} up to {place} are not all stored any more; " + "; ".join(tried)
        )

    def _windows(self) -> Windows:
        settings = self._settings
        return Windows(
            int(settings.lateness_s * NS_PER_S),
            int(settings.future_s * NS_PER_S),
            1,
            outlier_bps=settings.outlier_bps,
            outlier_scale=settings.outlier_scale,
            periods=self._periods,
        )

    def _origins(self, found: _Found) -> Iterator[_Origin]:
        oldest = 0 if self._kafka is None else self._kafka.oldest(TICKS, found.partition)
        in_kafka = f"Kafka has the blocks from {oldest:,} on"
        if self._kafka is not None and oldest == 0:
            yield _Origin(InKafka.name, "Kafka has all blocks", self._kafka.blocks(found.partition), True)
        if self._tables is not None:
            stored, blocks = self._tables.span(found.partition, found.epoch), self._tables.blocks
            yield _Origin(InClickHouse.name, stored, blocks(found.partition, found.epoch), False)
        if self._kafka is not None and oldest > 0:
            yield _Origin(InKafka.name, in_kafka, self._kafka.blocks(found.partition), False)

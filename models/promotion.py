"""What goes over the compacted topic ``models``: promotions, challengers, swaps of lanes, and what workers have.

    champion               a `Promotion`: the model that all lanes are to serve
    challenger/MODELID     a `Promotion`: a model that runs in shadow; a tombstone removes it
    swap/PARTITION/OFFSET  an `agents.swaps.Swap`: from which block on a lane serves which model; kept for ever
    worker/NAME            what a worker serves, what it refused and why
    retrain/NIGHT          a `models.night.Night`: who retrains, how far it is, and what came of it

The registry's aliases say the same of roles; each change goes there first, where of two at the same time the second
sees the first, and then here. Both carry the same generation, and the highest one counts.
"""

import asyncio
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from agents.swaps import SWAP_KEY, Swap
from models.artifact import load
from models.night import NIGHT_KEY, Night
from models.registry import Aliases, Registry, Version
from stream.clock import Clock, wall_ns
from stream.ending import end_consumer
from stream.errors import RecordError, RegistryError, ServerError
from stream.topics import MODELS

logger = logging.getLogger(__name__)

CHAMPION_KEY: Final = "champion"
CHALLENGER_KEY: Final = "challenger/"
WORKER_KEY: Final = "worker/"
_POLL_MS: Final = 200
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True)
class Promotion:
    """A version that is to serve, or to run in shadow."""

    version: str  # and its path in the registry
    model_id: int
    sha256: str  # of the model file
    generation: int  # of the registry's aliases
    previous: str | None  # the champion before
    reason: str
    by: str
    at_ns: int
    urgent: bool = False  # the one before must go: symbols switch as quickly as ticks can bear

    def to_json(self) -> bytes:
        """Return the value of the message."""
        return json.dumps({**vars(self), "model_id": f"{self.model_id:016x}"}).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Return the promotion that `to_json` wrote.

        Raises:
            RecordError: it is none.
        """
        try:
            value: dict[str, Any] = json.loads(raw)
            promotion = cls(**{**value, "model_id": int(value["model_id"], 16)})
            if Version.parse(promotion.version).model_id != promotion.model_id:
                raise ValueError(f"version {promotion.version} is not of model {promotion.model_id:016x}")
            if type(promotion.generation) is not int or type(promotion.sha256) is not str:
                raise ValueError(f"generation {promotion.generation!r}, SHA-256 {promotion.sha256!r}")
        except (ValueError, TypeError, KeyError, RegistryError) as error:
            raise RecordError(f"{raw[:200]!r} is no promotion: {error!r}") from None
        return promotion


@dataclass
class ModelsTopic:
    """What the topic says, message after message."""

    champion: Promotion | None = None
    challengers: dict[int, Promotion] = field(default_factory=dict)  # by model id
    swaps: dict[tuple[int, int], Swap] = field(default_factory=dict)  # by partition and offset
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    nights: dict[str, Night] = field(default_factory=dict)  # by date
    refused: int = 0  # messages that are none of these

    def take(self, key: bytes | None, value: bytes | None) -> Promotion | Swap | None:
        """Take one message; return the promotion or the swap that is news. What is none of ours is counted."""
        name = (key or b"").decode("utf-8", "replace")
        try:
            if name == CHAMPION_KEY and value is not None:
                return self._take_champion(Promotion.from_json(value))
            if name.startswith(CHALLENGER_KEY):
                return self._take_challenger(int(name.removeprefix(CHALLENGER_KEY), 16), value)
            if name.startswith(SWAP_KEY):
                return self._take_swap(name, value)
            if name.startswith(WORKER_KEY) and value is not None:
                self.workers[name.removeprefix(WORKER_KEY)] = dict(json.loads(value))
                return None
            if name.startswith(NIGHT_KEY) and value is not None:
                self._take_night(Night.from_json(value))
                return None
            raise RecordError("a key that this tickloom does not know")
        except (RecordError, ValueError, TypeError) as error:
            self.refused += 1
            logger.error("%s: message %r is ignored: %s", MODELS, name, error)
            return None

    def swaps_of(self, partition: int) -> list[Swap]:
        """Return the swaps of a partition by offset."""
        return [self.swaps[key] for key in sorted(self.swaps) if key[0] == partition]

    def versions(self) -> set[str]:
        """Return the versions that a role, or the last swap of a partition, names."""
        last = {partition: self.swaps[partition, offset].version for partition, offset in sorted(self.swaps)}
        roles = [self.champion, *self.challengers.values()]
        return set(last.values()) | {role.version for role in roles if role is not None}

    def _take_champion(self, promotion: Promotion) -> Promotion | None:
        if self.champion is not None and promotion.generation < self.champion.generation:
            return None
        self.champion = promotion
        return promotion

    def _take_challenger(self, model_id: int, value: bytes | None) -> Promotion | None:
        if value is None:
            return self.challengers.pop(model_id, None)
        self.challengers[model_id] = Promotion.from_json(value)
        return self.challengers[model_id]

    def _take_night(self, night: Night) -> None:
        held = self.nights.get(night.night)
        if held is None or night.attempt >= held.attempt:  # else of an owner who does not know that it is over
            self.nights[night.night] = night

    def _take_swap(self, name: str, value: bytes | None) -> Swap | None:
        partition, _, offset = name.removeprefix(SWAP_KEY).partition("/")
        if value is None:
            return self.swaps.pop((int(partition), int(offset)), None)
        swap = Swap.from_json(value)
        if swap.key != name:
            raise RecordError(f"its value is of {swap.key}")
        self.swaps[swap.partition, swap.offset] = swap
        return swap


async def read_models(bootstrap: str) -> ModelsTopic:
    """Return what the topic says now.

    Raises:
        ServerError: no broker answers, or there is no such topic.
    """
    said = ModelsTopic()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    where = TopicPartition(MODELS, 0)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await consumer.start()
            consumer.assign([where])
            await consumer.seek_to_beginning(where)
            end = (await consumer.end_offsets([where]))[where]
            while await consumer.position(where) < end:
                for message in (await consumer.getmany(where, timeout_ms=_POLL_MS)).get(where, []):
                    said.take(message.key, message.value)
    except (KafkaError, TimeoutError, OSError) as error:
        raise ServerError(f"cannot read the topic {MODELS} at {bootstrap}: {error!r}") from None
    finally:
        await end_consumer(consumer)
    return said


async def send_models(bootstrap: str, messages: list[tuple[str, bytes | None]]) -> None:
    """Send messages, (key, value), in their order, and wait until all in-sync replicas have them.

    Raises:
        ServerError: no broker takes them.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await producer.start()
            for key, value in messages:
                await producer.send_and_wait(MODELS, value, key=key.encode(), partition=0)
    except (KafkaError, TimeoutError, OSError) as error:
        raise ServerError(f"cannot write to the topic {MODELS} at {bootstrap}: {error!r}") from None
    finally:
        await producer.stop()


def removable(registry: Registry, said: ModelsTopic, keep: int, since_ns: int) -> list[str]:
    """Return the versions that nobody needs any more.

    Args:
        registry: where they are.
        said: what the topic says.
        keep: how many of the newest versions of each name stay in any case.
        since_ns: what had a role, or what a lane has swapped to, from then on stays: ticks of that time may come
            again after a crash or in a replay, and are then for the model that they were for.
    """
    needed = said.versions() | registry.aliases().named()
    for each in registry.history():
        if each.at_ns >= since_ns:
            needed |= each.named()
    for partition in {partition for partition, _ in said.swaps}:
        swaps = said.swaps_of(partition)
        # The one before the first recent swap served until then.
        first = next((number for number, swap in enumerate(swaps) if swap.at_ns >= since_ns), len(swaps))
        needed |= {swap.version for swap in swaps[max(first - 1, 0) :]}
    by_name: dict[str, list[str]] = {}
    for version in registry.versions():
        by_name.setdefault(version.partition("/")[0], []).append(version)
    return [version for each in by_name.values() for version in each[:-keep] if version not in needed]


async def promote(
    registry: Registry,
    bootstrap: str,
    version: str,
    *,
    reason: str,
    by: str,
    base: Path | None = None,
    available: tuple[str, ...],
    expected: str | None = None,
    urgent: bool = False,
    clock: Clock = wall_ns,
) -> Promotion:
    """Make a version champion and tell all workers. To promote the champion again tells them again.

    Args:
        registry: where it is.
        bootstrap: brokers.
        version: which.
        reason: why, for whoever asks later.
        by: who.
        base: the model that workers serve while nothing was ever promoted: published, to be the first ``previous``.
        available: the features that the engine computes.
        expected: the version that must be champion now, else somebody was quicker and nothing is done.
        urgent: the present one must go: symbols switch as quickly as ticks can bear.
        clock: of now.

    Raises:
        ModelError: it must not serve.
        RegistryError: there is no such version, or the champion is not the expected one.
        ServerError: no broker answers. The registry says what was wanted; promote it again.
    """
    artifact = await asyncio.to_thread(lambda: load(registry.fetch(version), available))
    if artifact.sha256 != registry.manifest(version).get("sha256"):
        raise RegistryError(f"{version} was changed while it was read")
    first = None
    if base is not None and registry.aliases().champion is None:
        first = await asyncio.to_thread(registry.publish, base, by=by, available=available, clock=clock)

    def change(held: Aliases) -> Aliases:
        if expected is not None and held.champion != expected:
            raise RegistryError(f"the champion is {held.champion}, not {expected}: somebody was quicker")
        if held.champion == version:
            return held
        others = tuple(challenger for challenger in held.challengers if challenger != version)
        previous = held.champion if held.champion is not None else first
        return dataclasses.replace(held, champion=version, previous=previous, challengers=others)

    # Workers go by the highest generation: a registry that was made anew must not begin below it.
    told = (await read_models(bootstrap)).champion
    beyond = 0 if told is None else told.generation
    aliases = await asyncio.to_thread(registry.update, change, reason=reason, by=by, clock=clock, beyond=beyond)
    return await _tell_champion(registry, bootstrap, aliases, urgent)


async def rollback(
    registry: Registry,
    bootstrap: str,
    *,
    reason: str,
    by: str,
    available: tuple[str, ...],
    expected: str | None = None,
    clock: Clock = wall_ns,
) -> Promotion:
    """Make the previous champion serve again, urgently: see `promote`.

    Raises:
        RegistryError: there is no previous one, or the champion is not the expected one.
    """
    held = registry.aliases()
    if held.previous is None or held.champion is None:
        raise RegistryError(f"nothing to go back to: champion {held.champion}, previous {held.previous}")
    return await promote(
        registry,
        bootstrap,
        held.previous,
        reason=reason,
        by=by,
        available=available,
        expected=held.champion if expected is None else expected,
        urgent=True,
        clock=clock,
    )


async def challenge(
    registry: Registry, bootstrap: str, version: str, *, reason: str, by: str, clock: Clock = wall_ns
) -> Promotion:
    """Let a version run in shadow beside the champion, in all workers.

    Raises:
        RegistryError: there is no such version.
        ServerError: no broker answers.
    """
    manifest = registry.manifest(version)

    def change(held: Aliases) -> Aliases:
        return dataclasses.replace(held, challengers=(*(set(held.challengers) - {version}), version))

    aliases = await asyncio.to_thread(registry.update, change, reason=reason, by=by, clock=clock)
    model_id = Version.parse(version).model_id
    challenger = Promotion(
        version, model_id, str(manifest["sha256"]), aliases.generation, aliases.champion, reason, by, aliases.at_ns
    )
    await send_models(bootstrap, [(f"{CHALLENGER_KEY}{model_id:016x}", challenger.to_json())])
    return challenger


async def retire(
    registry: Registry, bootstrap: str, version: str, *, reason: str, by: str, clock: Clock = wall_ns
) -> None:
    """Stop a challenger in all workers. One that is none is told again.

    Raises:
        RegistryError: that names no version.
        ServerError: no broker answers.
    """
    model_id = Version.parse(version).model_id

    def change(held: Aliases) -> Aliases:
        left = tuple(challenger for challenger in held.challengers if challenger != version)
        return dataclasses.replace(held, challengers=left)

    await asyncio.to_thread(registry.update, change, reason=reason, by=by, clock=clock)
    await send_models(bootstrap, [(f"{CHALLENGER_KEY}{model_id:016x}", None)])


async def _tell_champion(registry: Registry, bootstrap: str, aliases: Aliases, urgent: bool) -> Promotion:
    """Tell the workers; where another promotion came between, tell that one too, so that the last word is right."""
    while True:
        assert aliases.champion is not None  # noqa: S101  (only called after a promotion)
        version = Version.parse(aliases.champion)
        promotion = Promotion(
            aliases.champion,
            version.model_id,
            str(registry.manifest(aliases.champion)["sha256"]),
            aliases.generation,
            aliases.previous,
            aliases.reason,
            aliases.by,
            aliases.at_ns,
            urgent,
        )
        retired = (f"{CHALLENGER_KEY}{version.model_id:016x}", None)
        await send_models(bootstrap, [(CHAMPION_KEY, promotion.to_json()), retired])
        newest = await asyncio.to_thread(registry.aliases)
        if newest.champion == aliases.champion:
            return promotion
        aliases = newest

"""aiokafka's sender without a task, a timer and a set of futures for each request.

Between the answer of a broker and whoever waits for it aiokafka has a task for the request, a timer, and two rounds
of `asyncio.wait`: several turns of the event loop, and a good part of what a request costs. Here an answer is
worked off in the turn in which it comes, by aiokafka's own handlers. What is not as it should be (no connection, an
error, no answer) goes aiokafka's way, in a task. So what is sent again, in which order and with which sequence
numbers stays aiokafka's. `stream.kafka_fetcher` does the same for what is fetched.
"""

import asyncio
import logging
from functools import partial
from typing import Any

import aiokafka.consumer.consumer
import aiokafka.producer.producer
from aiokafka import errors
from aiokafka.producer.sender import Sender, SendProduceReqHandler

from stream.kafka_connection import Answered, connection_to, use_lean_connections
from stream.kafka_fetcher import LeanFetcher

logger = logging.getLogger(__name__)


class LeanSender(Sender):
    """Sends the batches of a producer."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._failure: Exception | None = None

    async def _sender_routine(self) -> None:
        if self._txn_manager is not None and self._txn_manager.transactional_id is not None:
            await super()._sender_routine()
            return
        try:
            while self._failure is None:
                await self._maybe_wait_for_pid()
                await self._send_what_waits()
            raise self._failure
        except asyncio.CancelledError:
            await self._settle()
        except errors.KafkaError:
            raise
        except Exception as failure:
            logger.exception("a producer can no longer send")
            raise errors.KafkaError("Unexpected error during batch delivery") from failure

    async def _send_what_waits(self) -> None:
        """Send what can be sent now, and wait until there may be more."""
        waiting = self._message_accumulator
        drained, no_leader = waiting.drain_by_nodes(self._in_flight, self._muted_partitions)
        for node, batches in drained.items():
            self._in_flight.add(node)
            self._muted_partitions.update(batches)
            handler = SendProduceReqHandler(self, batches)
            then = partial(self._on_answer, node, handler)
            connection = connection_to(self.client, node) if self._acks else None
            if connection is None or not connection.post(handler.create_request(), then):
                self._spawn(node, handler)
        if no_leader:
            newer = self.client.force_metadata_update()
            await asyncio.wait({waiting.waiter(), newer}, return_when=asyncio.FIRST_COMPLETED)
        else:
            await waiting.waiter()

    async def _settle(self) -> None:
        """Wait for all requests that are under way; cancelled again, cancel them."""
        try:
            while self._in_flight:
                self._settled.clear()
                await self._settled.wait()
        finally:
            for task in self._tasks:
                task.cancel()

    def _on_answer(self, node: int, handler: Any, answer: Any, error: Exception | None) -> None:
        if self._sender_task is None or self._sender_task.done():
            return
        if error is None and all(not told[1] for _, partitions in answer.topics for told in partitions):
            try:
                handler.handle_response(answer)
            except Exception as failure:  # noqa: BLE001  (the routine raises it)
                self._failure = failure
            self._done(node, handler)
        else:
            handler._client = Answered(self.client, answer, error)  # noqa: SLF001
            self._spawn(node, handler)

    def _spawn(self, node: int, handler: Any) -> None:
        task = asyncio.create_task(self._do(node, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, node: int, handler: Any) -> None:
        try:
            await handler.do(node)
        except Exception as failure:  # noqa: BLE001  (the routine raises it)
            self._failure = failure
        self._done(node, handler)

    def _done(self, node: int, handler: Any) -> None:
        self._in_flight.remove(node)
        self._muted_partitions.difference_update(handler._batches)  # noqa: SLF001
        self._settled.set()
        waiter = self._message_accumulator.waiter()
        if not waiter.done():
            waiter.set_result(None)


def use_lean_clients() -> None:
    """Let every client of Kafka that this process makes from now on be lean: its connections and its loops."""
    use_lean_connections()
    aiokafka.producer.producer.Sender = LeanSender
    aiokafka.consumer.consumer.Fetcher = LeanFetcher

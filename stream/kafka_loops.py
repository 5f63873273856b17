"""aiokafka's sender and fetcher without a task, a timer and a set of futures for each request.

Between the answer of a broker and whoever waits for it aiokafka has a task for the request, a timer, and two rounds
of `asyncio.wait`: several turns of the event loop, and a good part of what a request costs. Here an answer is
worked off in the turn in which it comes, by aiokafka's own handlers. What is not as it should be (no connection, an
error, no answer) goes aiokafka's way, in a task. So what is sent again, in which order and with which sequence
numbers, and where a partition is read on, stays aiokafka's.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

import aiokafka.consumer.consumer
import aiokafka.producer.producer
from aiokafka import errors
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.producer.sender import Sender, SendProduceReqHandler

from stream.kafka_connection import LeanConnection, use_lean_connections

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
            if self._acks == 0 or not _post(self.client, node, handler.create_request(), then):
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
            handler._client = _Answered(self.client, answer, error)  # noqa: SLF001
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


class LeanFetcher(Fetcher):
    """Fetches for a consumer."""

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        self._client: Any = client
        self._pending_tasks: set[asyncio.Task[bool]] = set()
        self._watched: set[asyncio.Future[Any]] = set()
        self._failure: BaseException | None = None
        super().__init__(client, *args, **kwargs)

    async def fetched_records(self, partitions: Any, timeout: float = 0, max_records: int | None = None) -> Any:
        """Return what has been fetched, by partition; else wait up to ``timeout`` seconds for news."""
        found = await super().fetched_records(partitions, 0, max_records)
        if not timeout:
            return found
        if found:
            await asyncio.sleep(0)  # there may be more at once, and others want to run
            return found
        news = self._create_fetch_waiter()
        timer = self._loop.call_later(timeout, self._notify, news)
        try:
            await news
        finally:
            timer.cancel()
        return {} if self._closed else await super().fetched_records(partitions, 0, max_records)

    async def _fetch_requests_routine(self) -> None:
        try:
            while True:
                assignment = await self._assigned()
                self._watch(assignment.unassign_future)
                while assignment.active:
                    await self._fetch_what_is_missing(assignment)
                await self._forget()
        except asyncio.CancelledError:
            pass
        except Exception as failure:
            logger.exception("a consumer can no longer fetch")
            raise errors.KafkaError("Unexpected error during data retrieval") from failure

    async def _assigned(self) -> Any:
        """Wait until partitions are assigned; return the assignment."""
        while True:
            subscription = self._subscriptions.subscription
            if subscription is not None and subscription.assignment is not None and subscription.assignment.active:
                return subscription.assignment
            try:
                await self._subscriptions.wait_for_assignment()
            except errors.KafkaError:
                continue  # whoever reads is told

    async def _forget(self) -> None:
        """Let go of what was fetched: it is not ours any more."""
        for task in self._pending_tasks:
            task.cancel()
        await asyncio.gather(*self._pending_tasks, return_exceptions=True)
        self._pending_tasks.clear()
        self._watched.clear()
        self._records.clear()

    async def _fetch_what_is_missing(self, assignment: Any) -> None:
        """Ask for what can be asked for now, and wait until there may be more."""
        self._pending_tasks = {task for task in self._pending_tasks if not task.done()}
        happened = self._wait_consume_future = self._loop.create_future()
        fetches, resets, timeout_s, no_leader, resumed = self._get_actions_per_node(assignment)
        for node, request in fetches:
            self._in_flight.add(node)
            if not _post(self._client, node, request, partial(self._on_answer, assignment, node, request)):
                self._spawn(node, self._proc_fetch_request(assignment, node, request))
        for node, partitions in resets.items():
            self._in_flight.add(node)
            self._spawn(node, self._update_fetch_positions(assignment, node, partitions))
        for future in resumed:
            self._watch(future)
        if no_leader:
            self._watch(self._client.force_metadata_update())
        timer = self._loop.call_later(timeout_s, self._notify, happened)
        try:
            await happened
        finally:
            timer.cancel()
        if self._failure is not None:
            raise self._failure

    def _on_answer(self, assignment: Any, node: int, request: Any, answer: Any, error: Exception | None) -> None:
        if self._closed:
            return
        if error is not None:
            self._spawn(node, self._fail(node, request, error))
            return
        client, self._client = self._client, _Answered(self._client, answer, None)
        try:
            # It awaits nothing but the answer, which is there.
            self._proc_fetch_request(assignment, node, request).send(None)
        except StopIteration as stop:
            self._on_fetched(node, stop.value)
        except Exception as failure:  # noqa: BLE001  (the routine raises it)
            self._failure = failure
            self._on_fetched(node, False)
        finally:
            self._client = client

    async def _fail(self, node: int, request: Any, error: Exception) -> bool:
        logger.error("node %s does not answer a fetch: %s", node, error)
        self._invalidate_preferred_read_replica_for_node(node, request)
        await asyncio.sleep(self._retry_backoff)
        return False

    def _spawn(self, node: int, doing: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.create_task(doing)
        self._pending_tasks.add(task)
        task.add_done_callback(partial(self._on_task_done, node))

    def _on_task_done(self, node: int, task: "asyncio.Task[bool]") -> None:
        has_news = False
        if not task.cancelled():
            self._failure = self._failure or task.exception()
            has_news = self._failure is None and task.result()
        self._on_fetched(node, has_news)

    def _on_fetched(self, node: int, has_news: bool) -> None:
        self._in_flight.discard(node)
        if has_news:
            for waiter in self._fetch_waiters:
                self._notify(waiter)
        else:  # else it is for the reader to take what has come; then there is room for more
            self._notify(self._wait_consume_future)

    def _watch(self, future: "asyncio.Future[Any]") -> None:
        """Ask for more once something is done that aiokafka tells by a future."""
        if future not in self._watched:
            self._watched.add(future)
            future.add_done_callback(self._on_watched)

    def _on_watched(self, future: "asyncio.Future[Any]") -> None:
        self._watched.discard(future)
        self._notify(self._wait_consume_future)


class _Answered:
    """A client that has the answer to the one request that it is given."""

    def __init__(self, client: Any, answer: Any, error: Exception | None) -> None:
        self._client, self._answer, self._error = client, answer, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._answer


def _post(client: Any, node: int, request: Any, then: Any) -> bool:
    """Send a request where there is a connection for it; return whether there was."""
    connection = client._conns.get((node, ConnectionGroup.DEFAULT))  # noqa: SLF001
    return isinstance(connection, LeanConnection) and connection.post(request, then)


def use_lean_clients() -> None:
    """Let every client of Kafka that this process makes from now on be lean: its connections and its loops."""
    use_lean_connections()
    aiokafka.producer.producer.Sender = LeanSender
    aiokafka.consumer.consumer.Fetcher = LeanFetcher

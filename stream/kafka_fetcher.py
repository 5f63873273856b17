"""aiokafka's fetcher without a task, a timer and a set of futures for each request.

Where all goes well, which is nearly always, the one request for what a broker has for us is sent again with other
offsets, and its answer is decoded in the turn in which it comes: few steps, because what a step costs on a machine
that does other things meanwhile is the memory that it has to fetch. Whatever is not as it should be (no connection,
no position, an error, a transaction to be left out, a batch that cannot be read) goes aiokafka's way, with
aiokafka's own handlers. So where a partition is read on, and when somebody is told, stays aiokafka's.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiokafka import errors
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, Fetcher, FetchError
from aiokafka.structs import TopicPartition

from stream.kafka_connection import Answered, connection_to
from stream.kafka_fetch import Fetch

logger = logging.getLogger(__name__)


class _Bell:
    """What aiokafka takes for a future that is done when there may be something to fetch."""

    def __init__(self, fetcher: "LeanFetcher") -> None:
        self._fetcher = fetcher

    def done(self) -> bool:
        return False

    def set_result(self, _: None) -> None:
        self._fetcher.look_soon()


class LeanFetcher(Fetcher):
    """Fetches for a consumer."""

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        self._client: Any = client
        self._pending_tasks: set[asyncio.Task[bool]] = set()
        self._watched: set[asyncio.Future[Any]] = set()
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._assignment: Any = None
        self._again: dict[int, Fetch] = {}  # by node, as long as nothing but positions changes
        self._untaken: set[TopicPartition] = set()  # not asked for, because nobody takes what has come of them
        self._is_whole = False  # whether all other partitions are paused
        self._asking: asyncio.Handle | None = None
        self._looking: asyncio.TimerHandle | None = None
        super().__init__(client, *args, **kwargs)
        self._wait_consume_future = _Bell(self)
        self._is_plain = (
            self._isolation_level == READ_UNCOMMITTED
            and not self._client_rack
            and self._key_deserializer is None
            and self._value_deserializer is None
        )

    async def close(self) -> None:
        """Stop fetching."""
        for handle in (self._asking, self._looking):
            if handle is not None:
                handle.cancel()
        await super().close()

    async def fetched_records(self, partitions: Any, timeout: float = 0, max_records: int | None = None) -> Any:
        """Return what has been fetched, by partition; else wait up to ``timeout`` seconds for news."""
        if self._subscriptions.reassignment_in_progress:
            await self._subscriptions.wait_for_assignment()
        found = self._take(partitions, max_records)
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
        return {} if self._closed else await self.fetched_records(partitions, 0, max_records)

    async def next_record(self, partitions: Any) -> Any:
        """Return one record.

        Raises:
            ConsumerStoppedError: the consumer was stopped.
        """
        while not self._closed:
            for records in (await self.fetched_records(partitions, self._fetcher_timeout, 1)).values():
                return records[0]
        raise errors.ConsumerStoppedError

    def look_soon(self) -> None:
        """Find out anew what can be asked for, and ask for it, once whoever runs now has done."""
        self._forget_how()
        self._ask_soon()

    def _ask_soon(self) -> None:
        if self._asking is None:
            self._asking = self._loop.call_soon(self._ask)

    def _take(self, partitions: Any, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        left = max_records
        for tp in list(self._records):
            if left == 0:
                break
            if partitions and tp not in partitions:
                if not self._subscriptions.is_assigned(tp):
                    del self._records[tp]
                continue
            try:
                records = self._pop(tp, left)
            except errors.KafkaError as error:
                if not taken:
                    raise
                # What was taken is not lost for it: the next call raises it.
                self._records[tp] = FetchError(error=error, backoff=self._prefetch_backoff)
                break
            if records:
                taken[tp] = records
                left = None if left is None else left - len(records)
        return taken

    def _pop(self, tp: TopicPartition, limit: int | None) -> list[Any]:
        """Return what came of a partition, or raise what went wrong there; that is read again from where we are."""
        fetched = self._records[tp]
        is_over = True
        try:
            if type(fetched) is FetchError:
                fetched.check_raise()
            records: list[Any] = fetched.getall(limit)
            is_over = not fetched.has_more()
        finally:
            if is_over:
                del self._records[tp]
                if tp in self._untaken:
                    self._forget_how()
                self._ask_soon()
        return records

    async def _fetch_requests_routine(self) -> None:
        try:
            while True:
                self._assignment = assignment = await self._assigned()
                self._ask()
                await asyncio.wait({assignment.unassign_future, self._failed}, return_when=asyncio.FIRST_COMPLETED)
                if self._failed.done():
                    raise self._failed.result()
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
        self._forget_how()
        for task in self._pending_tasks:
            task.cancel()
        await asyncio.gather(*self._pending_tasks, return_exceptions=True)
        self._pending_tasks.clear()
        self._watched.clear()
        self._records.clear()

    def _forget_how(self) -> None:
        self._again.clear()
        self._is_whole = False

    def _ask(self) -> None:
        """Ask for what can be asked for now."""
        self._asking = None
        if self._closed or self._assignment is None or not self._assignment.active:
            return
        try:
            if not (self._is_whole and self._ask_again()):
                self._look()
        except Exception as failure:  # noqa: BLE001  (the routine raises it)
            self._fail(failure)

    def _ask_again(self) -> bool:
        """Send what was sent before to nodes that have answered; return whether nothing else is to be done."""
        records, assignment = self._records, self._assignment
        for node, fetch in self._again.items():
            if node in self._in_flight or not fetch.partitions.isdisjoint(records):
                continue
            connection = connection_to(self._client, node)
            if connection is None or not fetch.turn():
                return False
            then = partial(self._on_answer, assignment, fetch)
            if not connection.post_built(fetch.built, fetch.body, then):
                return False
            self._in_flight.add(node)
        return True

    def _look(self) -> None:
        """Find out what is to be done as aiokafka does, and do it; look again in a while, whatever happens."""
        assignment = self._assignment
        self._pending_tasks = {task for task in self._pending_tasks if not task.done()}
        fetches, resets, timeout_s, no_leader, resumed = self._get_actions_per_node(assignment)
        for node, request in fetches:
            self._in_flight.add(node)
            fetch = self._post(node, request)
            if fetch is not None:
                self._again[node] = fetch
            else:
                self._again.pop(node, None)
                self._spawn(node, self._proc_fetch_request(assignment, node, request))
        for node, partitions in resets.items():
            self._in_flight.add(node)
            self._spawn(node, self._update_fetch_positions(assignment, node, partitions))
        for future in resumed:
            self._watch(future)
        if no_leader:
            self._watch(self._client.force_metadata_update())
        again = frozenset[TopicPartition]().union(*(fetch.partitions for fetch in self._again.values()))
        self._untaken = set(self._records) - again
        self._is_whole = len(again) + len(self._untaken) + len(resumed) == len(assignment.tps)
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self._loop.call_later(timeout_s, self._look_afresh)

    def _post(self, node: int, request: Any) -> Fetch | None:
        """Send a request; return it as it can be sent again, or None where it has to go aiokafka's way."""
        connection = connection_to(self._client, node) if self._is_plain else None
        built = None if connection is None else connection.prepared(request)
        if connection is None or built is None:
            return None
        fetch = Fetch(node, built, self._assignment)
        then = partial(self._on_answer, self._assignment, fetch)
        return fetch if connection.post_built(built, fetch.body, then) else None

    def _look_afresh(self) -> None:
        self._looking = None
        self._forget_how()
        self._ask()

    def _on_answer(self, assignment: Any, fetch: Fetch, answer: Any, error: Exception | None) -> None:
        if self._closed:
            return
        if error is not None:
            self._forget_how()
            self._spawn(fetch.node, self._wait_after(fetch, error))
            return
        fetched = fetch.read(answer, self._check_crcs, self._prefetch_backoff)
        if fetched is None:
            self._forget_how()
            self._work_off(assignment, fetch, answer)
        else:
            self._records.update(fetched)
            self._on_fetched(fetch.node, bool(fetched))

    def _work_off(self, assignment: Any, fetch: Fetch, answer: Any) -> None:
        """Let aiokafka see to an answer."""
        client, self._client = self._client, Answered(self._client, answer, None)
        try:
            # It awaits nothing but the answer, which is there.
            self._proc_fetch_request(assignment, fetch.node, fetch).send(None)
        except StopIteration as stop:
            self._on_fetched(fetch.node, stop.value)
        except Exception as failure:  # noqa: BLE001  (the routine raises it)
            self._fail(failure)
        finally:
            self._client = client

    async def _wait_after(self, fetch: Fetch, error: Exception) -> bool:
        logger.error("node %s does not answer a fetch: %s", fetch.node, error)
        self._invalidate_preferred_read_replica_for_node(fetch.node, fetch)
        await asyncio.sleep(self._retry_backoff)
        return False

    def _fail(self, failure: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_result(failure)

    def _spawn(self, node: int, doing: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.create_task(doing)
        self._pending_tasks.add(task)
        task.add_done_callback(partial(self._on_task_done, node))

    def _on_task_done(self, node: int, task: "asyncio.Task[bool]") -> None:
        has_news = False
        if not task.cancelled():
            failure = task.exception()
            if failure is None:
                has_news = task.result()
            else:
                self._fail(failure)
        self._on_fetched(node, has_news)

    def _on_fetched(self, node: int, has_news: bool) -> None:
        self._in_flight.discard(node)
        if has_news:
            for waiter in self._fetch_waiters:
                self._notify(waiter)
        else:  # else it is for the reader to take what has come; then there is room for more
            self._ask_soon()

    def _watch(self, future: "asyncio.Future[Any]") -> None:
        """Look again once something is done that aiokafka tells by a future."""
        if future not in self._watched:
            self._watched.add(future)
            future.add_done_callback(self._on_watched)

    def _on_watched(self, future: "asyncio.Future[Any]") -> None:
        self._watched.discard(future)
        self.look_soon()

"""The ticks that ClickHouse has, for training on more days than Kafka holds.

Symbol after symbol, each in the order of arrival: by Kafka cluster (epoch), block, and place in it. So they give
the features that the lanes had, as those of `models/kafka_history.py` do. Memory holds one page at a time.
"""

from collections.abc import Iterator
from typing import Any, Final

from clickhouse_driver import Client, errors
from clickhouse_driver.util.helpers import parse_url

from models.kafka_history import Told
from stream.errors import SettingsError, SourceError
from stream.records import Records, empty_ticks

_PAGE_ROWS: Final = 500_000  # 50 MB
_SETTINGS: Final = {"use_numpy": True, "do_not_merge_across_partitions_select_final": 1}
_WHEN: Final = (
    "event_time >= fromUnixTimestamp64Nano(%(from_ns)s) AND event_time < fromUnixTimestamp64Nano(%(to_ns)s)"
)
_COUNTS: Final = f"SELECT symbol, epoch, count() FROM ticks FINAL WHERE {_WHEN} GROUP BY symbol, epoch"  # noqa: S608
_EPOCHS: Final = "SELECT epoch, min(number) FROM epochs GROUP BY epoch"
_FIELDS: Final = {
    "event_ns": "toUnixTimestamp64Nano(event_time)",
    "recv_ns": "toUnixTimestamp64Nano(recv_time)",
    "kind": "toInt8(kind)",
    **{name: name for name in ("source_seq", "price", "size", "bid", "ask", "bid_size", "ask_size")},
    **{name: name for name in ("stream_id", "side")},
}
_PAGE: Final = f"""
SELECT source_offset, source_index, {", ".join(_FIELDS.values())}
FROM ticks FINAL
WHERE symbol = %(symbol)s AND epoch = %(epoch)s AND {_WHEN}
    AND (source_offset, source_index) > (%(offset)s, %(index)s)
ORDER BY source_offset, source_index
LIMIT %(rows)s
"""  # noqa: S608


def clickhouse_ticks(
    url: str, from_ns: int, to_ns: int, told: Told, page_rows: int = _PAGE_ROWS
) -> Iterator[Records]:
    """Yield ``TICK[N]`` of [from_ns, to_ns) of event time.

    Args:
        url: ``clickhouse[s]://USER:PASSWORD@HOST:PORT/DATABASE``.
        from_ns: of event time.
        to_ns: likewise.
        told: shows progress: ticks done, and how many there are.
        page_rows: ticks that are read at a time.

    Raises:
        SourceError: the server does not answer, or has no ticks of that time.
        SettingsError: not such a URL.
    """
    try:
        host, options = parse_url(url)
    except ValueError as error:
        raise SettingsError(f"setting 'clickhouse' is not a ClickHouse URL: {error}") from None
    settings = _SETTINGS | options.pop("settings", {})
    client = Client(host, settings=settings, **options)
    try:
        yield from _ticks(client, {"from_ns": from_ns, "to_ns": to_ns}, told, page_rows)
    except (errors.Error, EOFError, OSError) as error:
        message = " ".join(str(error).split("Stack trace:")[0].split())
        raise SourceError(f"ClickHouse at {host}: its ticks cannot be read: {message}") from None
    finally:
        client.disconnect()


def _ticks(client: Client, when: dict[str, int], told: Told, page_rows: int) -> Iterator[Records]:
    number = dict(client.execute(_EPOCHS))
    counts = sorted(client.execute(_COUNTS, when), key=lambda row: (row[0], number.get(row[1], 0)))
    total, done = sum(int(count) for _, _, count in counts), 0
    if total == 0:
        raise SourceError("ClickHouse has no ticks of that time; `tickloom export clickhouse` stores them")
    for symbol, epoch, _ in counts:
        place = {"offset": -1, "index": 0}
        while True:
            wanted: dict[str, Any] = {"symbol": symbol, "epoch": epoch, "rows": page_rows}
            offsets, indices, *columns = client.execute(_PAGE, when | place | wanted, columnar=True) or ([], [])
            if len(offsets):
                ticks = empty_ticks(len(offsets))
                ticks["symbol"] = str(symbol).encode()
                for name, column in zip(_FIELDS, columns, strict=True):
                    ticks[name] = column
                done += len(ticks)
                told(done, total)
                yield ticks
            if len(offsets) < page_rows:
                break
            place = {"offset": int(offsets[-1]), "index": int(indices[-1])}

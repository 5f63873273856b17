"""Blocks of ClickHouse's Native format, made of whole columns: what the wire wants is what numpy has in memory.

clickhouse-driver converts column by column, in ways that cost several times as much as all else that we do to a
row: it looks for nulls in every number, and for each symbol it makes a text and sorts it into categories. So the
driver keeps the connection, the protocol and its errors, and the bytes of a block are made here.

Source: https://clickhouse.com/docs/interfaces/specs/native-format (the format), and for the dictionary of a
LowCardinality column the server's `SerializationLowCardinality`.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from clickhouse_driver import Client, defines
from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str
from numpy.typing import NDArray

from exporters.clickhouse.distinct import distinct_symbols
from stream.errors import SinkRejected

# The block is no overflow block and belongs to no bucket: field 1, 0; field 2, -1; end.
_BLOCK_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_KEYS_VERSION: Final = struct.pack("<q", 1)
# The dictionary comes with the keys (bit 9), and is not that of the block before (bit 10).
_OWN_DICTIONARY: Final = 1 << 9 | 1 << 10
_KEY_TYPES: Final = (np.uint8, np.uint16, np.uint32)


@dataclass(frozen=True)
class Column:
    """A column of a block."""

    name: str
    type: str  # of the bytes; where the table's is another, the server converts
    data: bytes

    def header(self) -> bytes:
        """Return what stands before the bytes."""
        return _text(self.name.encode()) + _text(self.type.encode())


def numbers(name: str, type_name: str, values: NDArray[Any]) -> Column:
    """Return a column of fixed width; ``values`` are little-endian and as wide as the type."""
    return Column(name, type_name, values.tobytes())


def times(name: str, values_ns: NDArray[np.int64]) -> Column:
    """Return a column of ns since 1970 UTC."""
    return numbers(name, "DateTime64(9, 'UTC')", values_ns)


def texts(name: str, values: Iterable[bytes]) -> Column:
    """Return a column of texts that are all different: no dictionary."""
    return Column(name, "String", b"".join(map(_text, values)))


def one_text(name: str, value: str, rows: int) -> Column:
    """Return a column that says the same in every row."""
    return _dictionary(name, [value.encode()], np.zeros(rows, np.int32))


def symbols(name: str, values: NDArray[np.bytes_]) -> Column:
    """Return a column of ``S24[N]`` with a dictionary."""
    firsts, codes = distinct_symbols(values)
    return _dictionary(name, values[firsts].tolist(), codes)


def _dictionary(name: str, entries: Sequence[bytes], codes: NDArray[np.int32]) -> Column:
    width = 0 if len(entries) <= 1 << 8 else 1 if len(entries) <= 1 << 16 else 2
    parts = (
        _KEYS_VERSION,
        struct.pack("<qq", _OWN_DICTIONARY | width, len(entries)),
        *map(_text, entries),
        struct.pack("<q", len(codes)),
        codes.astype(_KEY_TYPES[width]).tobytes(),
    )
    return Column(name, "LowCardinality(String)", b"".join(parts))


def _text(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def insert(client: Client, table: str, columns: Sequence[Column], rows: int, settings: dict[str, Any]) -> None:
    """Insert one block into a table, and wait until the server has it.

    Args:
        client: connected or not; used by nobody else meanwhile.
        table: its name.
        columns: at least one, of ``rows`` rows each.
        rows: at least one.
        settings: of the query.

    Raises:
        clickhouse_driver.errors.Error, EOFError, OSError: as `Client.execute` does.
        SinkRejected: the server wants no data.
    """
    names = ", ".join(f"`{column.name}`" for column in columns)
    statement = f"INSERT INTO {table} ({names}) FORMAT Native"
    with client.disconnect_on_error(statement, settings):
        connection = client.connection
        connection.send_query(statement)
        connection.send_external_tables(None)
        if not client.receive_sample_block():
            raise SinkRejected(f"the server answers {statement!r} without asking for data")
        write_varint(ClientPacketTypes.DATA, connection.fout)
        write_binary_str("", connection.fout)
        # With compression this is not the stream above, but what that is made of.
        stream = connection.block_out
        for part in _block(columns, rows, connection.server_info.used_revision):
            stream.fout.write(part)
        stream.finalize()
        client.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # the end
        client.receive_profile_events()
        client.receive_end_of_insert_query()


def _block(columns: Sequence[Column], rows: int, revision: int) -> Iterable[bytes]:
    # One byte says that the column is written the plain way.
    plain = b"\x00" if revision >= defines.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION else b""
    yield _BLOCK_INFO + _varint(len(columns)) + _varint(rows)
    for column in columns:
        yield column.header() + plain
        yield column.data

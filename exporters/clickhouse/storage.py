"""What the tables take on disk."""

from dataclasses import dataclass
from typing import Any, Final

from clickhouse_driver import Client

_QUERY: Final = """
SELECT
    name,
    ifNull(parts.rows, 0),
    ifNull(parts.bytes_on_disk, 0),
    ifNull(parts.uncompressed_bytes, 0),
    ifNull(parts.parts, 0)
FROM system.tables
LEFT JOIN
(
    SELECT
        table AS name,
        sum(rows) AS rows,
        sum(bytes_on_disk) AS bytes_on_disk,
        sum(data_uncompressed_bytes) AS uncompressed_bytes,
        count() AS parts
    FROM system.parts
    WHERE active AND database = currentDatabase()
    GROUP BY table
) AS parts USING (name)
WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name != 'tickloom_migrations'
ORDER BY name
"""


@dataclass(frozen=True)
class Storage:
    """A table. Rows that wait to be replaced count as well."""

    table: str
    rows: int
    bytes_on_disk: int
    uncompressed_bytes: int
    parts: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, with those that follow from them."""
        per_row = round(self.bytes_on_disk / self.rows, 2) if self.rows else None
        ratio = round(self.uncompressed_bytes / self.bytes_on_disk, 2) if self.bytes_on_disk else None
        return {**vars(self), "bytes_per_row": per_row, "compression": ratio}


def storage(client: Client) -> list[Storage]:
    """Return the tables of the client's database, by name.

    Raises:
        clickhouse_driver.errors.Error: the server refused.
    """
    return [Storage(*row) for row in client.execute(_QUERY)]

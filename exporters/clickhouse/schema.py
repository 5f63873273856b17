"""The tables of tickloom in ClickHouse: numbered SQL files, each applied once, in order.

A file that has been released is never changed; a change is a new file. Statements must do no harm when two
exporters start at once, or when one was killed before it noted what it did (``IF NOT EXISTS``, ``OR REPLACE``).
"""

import logging
import re
from importlib.resources import files
from typing import Any

from stream.errors import InvariantError

logger = logging.getLogger(__name__)

_NOTES = """
CREATE TABLE IF NOT EXISTS tickloom_migrations (version UInt32, name String, applied_time DateTime DEFAULT now())
ENGINE = ReplacingMergeTree ORDER BY version
"""


def migrate(client: Any) -> list[str]:
    """Apply the files that the database of ``client`` (of clickhouse-driver) does not have; return their names.

    Raises:
        clickhouse_driver.errors.Error: the server refused.
    """
    # Not simply "IF NOT EXISTS": a user who may only insert must not need the right to create.
    if not client.execute("EXISTS TABLE tickloom_migrations")[0][0]:
        client.execute(_NOTES)
    has = {int(version) for (version,) in client.execute("SELECT version FROM tickloom_migrations")}
    applied = []
    for version, name, statements in migrations():
        if version not in has:
            for statement in statements:
                if "REPLACE DICTIONARY" in statement:
                    _make_dictionary(client, statement)
                else:
                    client.execute(statement)
            note = {"version": version, "name": name}
            client.execute("INSERT INTO tickloom_migrations (version, name) SELECT %(version)s, %(name)s", note)
            logger.info("ClickHouse schema: applied %s", name)
            applied.append(name)
    return applied


def _make_dictionary(client: Any, statement: str) -> None:
    """A dictionary asks its own server, as us (nobody else is known to be there), and of a database that is named."""
    connection = client.connection
    database = str(connection.database).replace("`", "``")
    whole = statement.replace("current_database.", f"`{database}`.")
    client.execute(whole, {"user": connection.user, "password": connection.password})


def migrations() -> list[tuple[int, str, list[str]]]:
    """Return number, name and statements of every file, in order.

    Raises:
        InvariantError: a file's name does not start with its number.
    """
    found = []
    for file in (files("exporters.clickhouse") / "migrations").iterdir():
        if file.name.endswith(".sql"):
            number = re.match(r"(\d{4})_", file.name)
            if number is None:
                raise InvariantError(f"a migration is named like 0001_predictions.sql, not {file.name}")
            statements = [part.strip() for part in file.read_text("utf-8").split(";\n") if part.strip()]
            found.append((int(number[1]), file.name, statements))
    return sorted(found)

"""Many small files of a day become few: `tickloom archive compact`, and the archiver once an hour.

Whoever reads the folders without the log, as Spark does, may for a moment see rows twice while a day is compacted:
in the new file and in the ones that it stands for.
"""

from typing import Final

from exporters.archive.columns import to_parquet
from exporters.archive.reading import join_tables, read_table
from exporters.archive.vault import Chain, Compacted, File, History, Vault, data_path
from stream.errors import ArchiveError

MOST_ROWS: Final = 1 << 20
_FEWEST_FILES: Final = 2


def compact(vault: Vault, chain: Chain, before_day: str, writer: str) -> int:
    """Join the small files of each day of a chain, and delete those; return how many files there are fewer.

    Args:
        vault: the archive.
        chain: which.
        before_day: only days before this one, YYYY-MM-DD: later ones still grow.
        writer: a name that no other writer has.

    Raises:
        ArchiveError: the archive cannot be read or written.
    """
    history = vault.history(chain)
    by_day: dict[str, list[File]] = {}
    for file in history.files():
        if file.day < before_day:
            by_day.setdefault(file.day, []).append(file)
    before = len(history.files())
    for day, files in by_day.items():
        runs = _runs(files)
        if len(runs) < len(files):
            _join(vault, chain, history, day, runs, writer)
    after = len(vault.history(chain).files())
    vault.sweep(chain)
    return before - after


def _runs(files: list[File]) -> list[list[File]]:
    """Cut files, in order, into runs that each become one file."""
    runs: list[list[File]] = []
    rows = MOST_ROWS
    for file in files:
        if rows + file.rows > MOST_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(file)
        rows += file.rows
    return runs


def _join(vault: Vault, chain: Chain, history: History, day: str, runs: list[list[File]], writer: str) -> None:
    files, data = [], {}
    for run in runs:
        if len(run) < _FEWEST_FILES:
            files += run
            continue
        table = join_tables(read_table(vault, file.path) for file in run).unify_dictionaries()
        if table.num_rows != sum(file.rows for file in run):
            raise ArchiveError(f"{run[0].path} to {run[-1].path} have {table.num_rows} rows, not what the log says")
        path = data_path(chain, day, run[0].span[0], run[-1].span[1], writer)
        data[path] = to_parquet(table)
        files.append(File(path, day, table.num_rows, len(data[path])))
    last = history.compacted.get(day)
    number = 1 if last is None else last.number + 1
    upto = history.next
    vault.add_compacted(chain, Compacted(day, upto or 0, number, tuple(files)), data, writer)

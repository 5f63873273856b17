"""An archive whose writers are cut off anywhere, and race."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.archive.compaction import compact
from exporters.archive.ranges import OpenRange
from exporters.archive.restore import messages
from exporters.archive.vault import Chain, Vault
from stream.errors import ArchiveError
from stream.records import PREDICTION, PREDICTION_WITHOUT_SPREAD, encode_block

CHAIN = Chain("ticks", "epoch-1", 2)


class Killed(Exception):
    """The writer is dead: nothing that it would have done any more is done."""


class Mortal:
    """A store whose user dies at its n-th change."""

    def __init__(self, store: Any, changes: int) -> None:
        self._store, self.left = store, changes

    def __getattr__(self, name: str) -> Any:
        there = getattr(self._store, name)
        if name not in ("create", "remove_file"):
            return there

        def mortal(*arguments: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return there(*arguments)

        return mortal


def write(vault: Vault, sent: list[Any], writer: str, chain: Chain = CHAIN) -> bool:
    """Archive messages from where the archive ends, as one range."""
    start = vault.history(chain).next or 0
    each = OpenRange(chain, start)
    each.add([message for message in sent if message.offset >= start])
    if each.empty:
        return True
    closed, data = each.close(writer)
    return vault.add_range(chain, closed, data, writer)


def read_back(vault: Vault, chain: Chain = CHAIN) -> list[tuple[int, int, bytes]]:
    """Everything that our own reader finds."""
    history = vault.history(chain)
    return [
        (message.offset, message.timestamp_ms, message.value)
        for _, found in messages(vault, chain, history)
        for message in found
    ]


def told(sent: list[Any]) -> list[tuple[int, int, bytes]]:
    return [(message.offset, message.timestamp, message.value or b"") for message in sent]


def globbed(root: Path) -> list[tuple[int, int]]:
    """What a reader finds that knows nothing of the log."""
    table = ds.dataset(root / "ticks", format="parquet", partitioning="hive").to_table()
    return sorted(zip(table["kafka_offset"].to_pylist(), table["kafka_index"].to_pylist(), strict=True))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deaths=st.lists(st.integers(0, 9), max_size=6),
    cuts=st.lists(st.integers(1, 9), min_size=3, max_size=12),
    compactions=st.sets(st.integers(0, 11), max_size=4),
)
def test_every_message_is_there_once_wherever_writers_die(
    make_messages: Callable[..., list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
    deaths: list[int],
    cuts: list[int],
    compactions: set[int],
) -> None:
    root = tmp_path_factory.mktemp("archive")
    sent = make_messages(30)
    lives = iter(deaths)
    upto = 0
    for turn, cut in enumerate(cuts):
        upto = min(30, upto + cut)
        vault = Vault(str(root))
        vault._store = Mortal(vault._store, next(lives, -1))
        try:
            write(vault, sent[:upto], f"{turn:08x}")
            if turn in compactions:
                compact(vault, CHAIN, "2999-01-01", f"{turn + 100:08x}")
        except Killed:
            continue
    vault = Vault(str(root))
    assert write(vault, sent, "ffffffff")
    compact(vault, CHAIN, "2999-01-01", "eeeeeeee")
    assert read_back(vault) == told(sent)
    rows = globbed(root)
    assert len(set(rows)) == len(rows) == sum(each.rows for each in vault.history(CHAIN).ranges)


def test_of_two_writers_one_wins_and_the_other_leaves_nothing(
    make_messages: Callable[..., list[Any]], tmp_path: Path
) -> None:
    vault, sent = Vault(str(tmp_path)), make_messages(20)
    first, second = OpenRange(CHAIN, 0), OpenRange(CHAIN, 0)
    first.add(sent[:12])
    second.add(sent)
    for each, writer, wins in ((first, "aaaaaaaa", True), (second, "bbbbbbbb", False)):
        closed, data = each.close(writer)
        assert vault.add_range(CHAIN, closed, data, writer) is wins
    assert read_back(vault) == told(sent[:12])
    assert [path.name for path in tmp_path.rglob("*bbbbbbbb*")] == []


def test_compacted_days_hold_the_same_in_fewer_files(
    make_messages: Callable[..., list[Any]], tmp_path: Path
) -> None:
    vault, sent = Vault(str(tmp_path)), make_messages(60, days=3)
    for upto in (10, 20, 30):
        assert write(vault, sent[:upto], f"{upto:08x}")
    before = globbed(tmp_path)
    assert compact(vault, CHAIN, "2013-07-15", "c" * 8) == 2  # 15,900 days after 1970 is 2013-07-14
    assert globbed(tmp_path) == before
    for upto in (40, 50, 60):
        assert write(vault, sent[:upto], f"{upto:08x}")
    compact(vault, CHAIN, "2999-01-01", "d" * 8)
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    assert read_back(vault) == told(sent)


def test_predictions_from_before_spreads_are_given_back_as_they_were_beside_newer_ones(
    make_messages: Callable[..., list[Any]], tmp_path: Path
) -> None:
    vault, chain, sent = Vault(str(tmp_path)), Chain("predictions", "epoch-1", 2), []
    for message in make_messages(30, days=1):
        rows = np.zeros(2, PREDICTION)
        rows["symbol"], rows["seq"], rows["spread_bps"] = b"AIG", message.offset, (0.0, np.nan)
        old = message.offset < 20
        sent.append(replace(message, value=encode_block(rows, PREDICTION_WITHOUT_SPREAD if old else None)))
    assert write(vault, sent[:10], "a" * 8, chain)
    # As it was written before there were spreads.
    (file,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(file)
    place = table.column_names.index("spread_bps")
    pq.write_table(table.set_column(place, "reserved", pa.array(np.zeros(len(table), np.int32))), file)
    assert write(vault, sent[:25], "b" * 8, chain)  # old and new ones in a range
    assert write(vault, sent, "c" * 8, chain)
    assert read_back(vault, chain) == told(sent)
    assert compact(vault, chain, "2999-01-01", "d" * 8) == 2
    assert read_back(vault, chain) == told(sent)
    (file,) = tmp_path.rglob("*.parquet")
    assert pq.read_table(file)["spread_bps"].null_count == 2 * 20


def test_an_archive_in_an_object_store_reads_back(make_messages: Callable[..., list[Any]], tmp_path: Path) -> None:
    vault, sent = Vault(f"memory://{tmp_path.name}-archive"), make_messages(30)
    for upto in (10, 30):
        assert write(vault, sent[:upto], f"{upto:08x}")
    compact(vault, CHAIN, "2999-01-01", "c" * 8)
    assert read_back(Vault(vault.url)) == told(sent)
    assert vault.chains(["ticks", "predictions"]) == [CHAIN]


def test_damage_is_told(make_messages: Callable[..., list[Any]], tmp_path: Path) -> None:
    vault, sent = Vault(str(tmp_path)), make_messages(30)
    for upto in (10, 20, 30):
        assert write(vault, sent[:upto], f"{upto:08x}")
    victim = next(iter(sorted(tmp_path.rglob("*.parquet"))))
    whole = victim.read_bytes()
    table = pq.read_table(victim)
    changed = pa.array(table["price"].to_numpy() + 1e-9)
    pq.write_table(table.set_column(table.column_names.index("price"), "price", changed), victim)
    with pytest.raises(ArchiveError, match="not what was archived"):
        read_back(vault)
    victim.write_bytes(whole[:-20])
    with pytest.raises(ArchiveError, match="is damaged"):
        read_back(vault)
    victim.unlink()
    with pytest.raises(ArchiveError, match="is gone"):
        read_back(vault)
    victim.write_bytes(whole)
    (tmp_path / CHAIN.folder / "000000000010.json").unlink()
    with pytest.raises(ArchiveError, match="comes 20"):
        read_back(vault)

"""ClickHouse ends with each prediction once, however often and however cut it is written, and whatever dies."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trial_database import DAY_NS, KnownTicks, ask, batch_of, url_of

from exporters.batch import Batch
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.sink import ClickHouseSink
from exporters.intake import PLACED_TICK
from models.live_scores import HOUR_NS, rows_of_sums, scores_of
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.errors import SinkRejected, SinkUnavailable
from stream.records import MODEL_EVENT, OUTCOME, ModelEventKind, Records, empty_ticks


async def test_every_column_arrives_exactly(sink: PredictionSink, url: str, make_rows: Any) -> None:
    rows = make_rows(["AIG", "BAC"], 2, now_ns=1_700_000_001_123_456_789)
    rows["flags"][0] = 1
    rows["source_partition"], rows["source_index"] = 3, 7
    await sink.write(batch_of(rows))
    (row,) = ask(
        url,
        "SELECT seq, toUnixTimestamp64Nano(event_time), ref_price, horizon_ns, p_down, p_flat, p_up,"
        " expected_return_bps, spread_bps, model_id, feature_hash, flags,"
        " source_partition, source_offset, source_index,"
        " toUnixTimestamp64Nano(recv_time), toUnixTimestamp64Nano(published_time), epoch"
        " FROM predictions WHERE symbol = 'AIG' AND seq = 1",
    )
    assert row[:4] == (1, 1_700_000_000_001_000_000, 100.01, 1_000_000_000)
    assert np.array(row[4:9], np.float32).tolist() == np.array([0.2, 0.3, 0.5, 0.25, 2.5], np.float32).tolist()
    assert row[9:15] == (0xFEDCBA9876543210, 1, 1, 3, 1, 7)
    assert row[15:] == (1_700_000_001_123_456_789, 1_700_000_001_123_496_789, "one")
    assert ask(
        url,
        "SELECT symbol, seq, model, warming, source_to_consumed_us, publish_us, tick_to_prediction_us"
        " FROM v_predictions ORDER BY symbol, seq LIMIT 1",
    ) == [("AIG", 1, "fedcba9876543210", True, 10.0, 10.0, 40.0)]


async def test_the_same_batch_again_is_not_even_written(sink: PredictionSink, url: str, make_rows: Any) -> None:
    batch = batch_of(make_rows(["AIG", "BAC"], 50))
    for _ in range(3):
        await sink.write(batch)
    assert ask(url, "SELECT count() FROM predictions") == [(100,)]


@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_replays_that_are_cut_differently_leave_the_view_exact(
    clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str], make_rows: Any, data: st.DataObject
) -> None:
    url = url_of(clickhouse, fresh_name("db"))
    rows = make_rows(["AIG", "BAC", "SPY"], 20)
    rows["event_ns"][30:] += DAY_NS
    replays = data.draw(st.lists(st.lists(st.integers(1, len(rows) - 1), max_size=4, unique=True), min_size=1))
    sink = PredictionSink(url, KnownTicks())
    for cuts in replays[:3]:
        for piece in np.split(rows, sorted(cuts)):
            await sink.write(batch_of(piece))
    await sink.close()
    seen = ask(url, "SELECT symbol, seq FROM v_predictions")
    assert sorted(seen) == sorted(
        (symbol.decode(), seq) for symbol, seq in zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True)
    )


async def test_a_batch_over_thousands_of_days_is_taken(sink: PredictionSink, url: str, make_rows: Any) -> None:
    rows = make_rows(["SP500"], 250)
    rows["event_ns"] = np.arange(250) * DAY_NS
    await sink.write(batch_of(rows))
    await sink.write(batch_of(rows))
    assert ask(url, "SELECT count(), max(toUnixTimestamp64Nano(event_time)) FROM predictions") == [
        (250, 249 * DAY_NS)
    ]


async def test_rows_that_break_a_rule_of_the_table_are_rejected_and_others_are_not(
    sink: PredictionSink, url: str, make_rows: Any
) -> None:
    await sink.check()
    ask(url, "ALTER TABLE predictions ADD CONSTRAINT no_poison CHECK symbol != 'POISON'")
    with pytest.raises(SinkRejected, match="no_poison"):
        await sink.write(batch_of(make_rows(["AIG", "POISON"], 3)))
    await sink.write(batch_of(make_rows(["AIG"], 3)))
    assert ask(url, "SELECT count() FROM v_predictions") == [(3,)]


async def test_a_table_that_was_dropped_is_made_again(sink: PredictionSink, url: str, make_rows: Any) -> None:
    await sink.check()
    ask(url, "DROP TABLE predictions SYNC")
    ask(url, "DROP TABLE tickloom_migrations SYNC")
    batch = batch_of(make_rows(["AIG"], 3))
    with pytest.raises(SinkUnavailable, match="code 60"):
        await sink.write(batch)
    await sink.write(batch)
    assert ask(url, "SELECT count() FROM v_predictions") == [(3,)]


async def test_a_wrong_password_is_named_and_not_shown(clickhouse: EmbeddedClickHouse, make_rows: Any) -> None:
    sink = PredictionSink(clickhouse.url.replace("default@", "default:geheim@"), KnownTicks())
    with pytest.raises(SinkUnavailable, match=r"Authentication failed.*code 516") as caught:
        await sink.write(batch_of(make_rows(["AIG"], 1)))
    assert "geheim" not in str(caught.value)
    await sink.close()


async def test_a_user_who_may_only_read_is_told_so(clickhouse: EmbeddedClickHouse, make_rows: Any) -> None:
    sink = PredictionSink(clickhouse.url.replace("default@", "analyst@"), KnownTicks())
    with pytest.raises(SinkUnavailable, match=r"Not enough privileges.*code 497"):
        await sink.write(batch_of(make_rows(["AIG"], 1)))
    await sink.close()


async def test_a_server_that_is_killed_and_comes_back_has_the_same_totals(
    own: EmbeddedClickHouse, make_rows: Any, eventually: Any
) -> None:
    sink = PredictionSink(own.url, KnownTicks())
    rows = make_rows([f"S{n}" for n in range(50)], 400)
    written = asyncio.Event()

    async def write_all() -> int:
        failures = 0
        for start in range(0, len(rows), 1000):
            while True:
                try:
                    await sink.write(batch_of(rows[start : start + 1000]))
                    break
                except SinkUnavailable:
                    failures += 1
                    await asyncio.sleep(0.1)
            written.set()
        return failures

    writing = asyncio.create_task(write_all())
    for _ in range(3):
        written.clear()
        await eventually(lambda: written.is_set() or writing.done())
        await asyncio.to_thread(own.kill)
        await asyncio.to_thread(own.start)
    failures = await writing
    assert failures > 0
    assert ask(own.url, "SELECT count(), uniqExact(symbol, seq) FROM v_predictions") == [(20_000, 20_000)]
    assert ask(own.url, "SELECT count() FROM predictions") == [(20_000,)]
    await sink.close()


async def test_a_frozen_server_is_given_up_after_the_timeout_and_takes_the_batch_once(
    own: EmbeddedClickHouse, make_rows: Any
) -> None:
    sink = PredictionSink(f"{own.url}?send_receive_timeout=1", KnownTicks())
    await sink.check()
    batch = batch_of(make_rows(["AIG"], 100))
    os.kill(own.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SinkUnavailable, match="does not answer within 1"):
            await asyncio.wait_for(sink.write(batch), 12)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    await sink.write(batch)
    assert ask(own.url, "SELECT count() FROM predictions") == [(100,)]
    await sink.close()


def outcome_rows(count: int) -> Records:
    """Outcomes of two models and two symbols, over two hours; every third time it stays flat."""
    generator = np.random.default_rng(2)
    rows = np.zeros(count, OUTCOME)
    rows["symbol"], rows["model_id"] = (
        np.array([b"AIG", b"BAC"])[np.arange(count) % 2],
        7 + np.arange(count) // 2 % 2,
    )
    rows["seq"] = 1 + np.arange(count)
    rows["event_ns"] = rows["from_ns"] = 1_380_000_000_000_000_000 + np.arange(count) * 7_200_000_000_000 // count
    rows["p_down"], rows["p_flat"], rows["p_up"] = generator.dirichlet((1, 1, 1), count).T
    rows["return_bps"], rows["expected_return_bps"] = generator.normal(0, 3, (2, count))
    rows["realised"] = np.where(np.arange(count) % 3 == 0, 1, np.where(rows["return_bps"] > 0, 2, 0))
    rows["log_loss"], rows["brier"], rows["fallback_log_loss"] = generator.exponential(1, (3, count))
    rows["fallback_down"], rows["fallback_up"], rows["cost_bps"] = 0.4, 0.3, 0.5
    return rows


async def test_an_outcome_that_is_told_twice_counts_once_and_the_row_that_knows_more_stays(
    plain_sink: ClickHouseSink, url: str
) -> None:
    rows = outcome_rows(100)
    again = rows.copy()
    again["fallback_log_loss"] = again["fallback_down"] = again["fallback_up"] = np.nan
    for some in (rows[:60], again, rows[40:]):
        await plain_sink.write(Batch(some, ((0, 1, 2),), "one"))
    assert ask(url, "SELECT count(), countIf(isNaN(fallback_log_loss)) FROM v_outcomes") == [(100, 0)]


async def test_the_scores_in_clickhouse_are_those_of_the_formulas(plain_sink: ClickHouseSink, url: str) -> None:
    rows = outcome_rows(4_000)
    await plain_sink.write(Batch(rows, ((0, 1, 2),), "one"))
    names = ("outcomes", "moved", "hit_rate", "log_loss", "brier", "ic", "positions", "net_bps")
    names += ("fallback_outcomes", "fallback_hit_rate", "fallback_log_loss", "log_loss_beside_fallback")
    wanted = ", ".join(names)
    found = ask(url, f"SELECT model, symbol, toUnixTimestamp(hour), {wanted} FROM model_scores")  # noqa: S608
    assert len(found) == 12  # 2 models, 2 symbols, and the two hours begin within one
    for model, symbol, hour, *values in found:
        of = (rows["model_id"] == int(model, 16)) & (rows["symbol"] == symbol.encode())
        of &= rows["from_ns"] // HOUR_NS * 3600 == hour
        scores = scores_of(rows_of_sums(rows[of]).sum(axis=0))
        assert values == pytest.approx([scores[name] for name in names], rel=1e-5)


async def test_what_happened_to_models_is_told_in_words(plain_sink: ClickHouseSink, url: str) -> None:
    event = np.zeros(1, MODEL_EVENT)
    event["at_ns"], event["kind"], event["model_id"], event["detail"] = (
        10**18,
        ModelEventKind.ROLLED_BACK,
        255,
        b"why",
    )
    for token in ("one", "two"):
        await plain_sink.write(Batch(event, ((0, 1, 2),), token))
    assert ask(url, "SELECT kind, model, detail FROM v_model_events") == [
        ("rolled back", "00000000000000ff", "why")
    ]


async def test_a_row_that_is_put_aside_is_there_once_with_its_reason(
    sink: PredictionSink, url: str, make_rows: Any
) -> None:
    rows = make_rows(["POISON"], 1)
    for _ in range(2):
        await sink.put_aside(batch_of(rows), "symbol is not allowed")
    query = "SELECT table_name, reason, JSONExtractInt(record, 'seq'), raw, epoch FROM dead_letters"
    assert ask(url, query) == [("predictions", "symbol is not allowed", 1, rows.tobytes().hex(), "one")]


async def test_of_copies_of_a_tick_the_first_stays_whenever_it_is_written(
    plain_sink: ClickHouseSink, url: str
) -> None:
    rows = np.zeros(3, PLACED_TICK)
    rows["tick"] = empty_ticks(3)
    rows["tick"]["symbol"], rows["tick"]["event_ns"], rows["tick"]["recv_ns"] = b"\xffAIG", 10**18, [5, 6, 7]
    rows["source_offset"] = [9, 4, 6]
    for number in (2, 1, 0):
        await plain_sink.write(Batch(rows[number : number + 1], ((0, 1, number),), "one"))
    assert ask(url, "SELECT source_offset, isNaN(price) FROM v_ticks") == [(4, 1)]
    await plain_sink.write(Batch(rows[:1], ((0, 1, 1),), "two"))  # of a cluster that was made anew
    assert ask(url, "SELECT source_offset, epoch FROM v_ticks") == [(9, "two")]

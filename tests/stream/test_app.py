"""The Faust application: configured from the settings, with the repairs that lanes rely on."""

from pathlib import Path

import pytest

from stream.app import StateTable, create_app
from stream.errors import SettingsError
from stream.settings import Settings
from stream.topics import APP_ID


def settings(tmp_path: Path, **values: object) -> Settings:
    return Settings.model_validate({"kafka": "a:9092,b:9093", "data_dir": tmp_path, **values})


def test_without_a_broker_there_is_no_application(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TICKLOOM_KAFKA"):
        create_app(Settings(data_dir=tmp_path))


def test_the_settings_arrive_in_the_application(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, partitions=7, checkpoint_s=0.25, session_timeout_s=8.0, fetch_wait_ms=33))
    assert app.conf.id == APP_ID
    assert [str(url) for url in app.conf.broker] == ["kafka://a:9092", "kafka://b:9093"]
    assert app.bootstrap == ["a:9092", "b:9093"]
    assert app.conf.topic_partitions == 7
    assert app.conf.broker_commit_interval == 0.25
    assert app.conf.broker_session_timeout == 8.0
    assert app.fetch_wait_ms == 33


def test_nothing_is_discovered_and_every_acknowledgement_is_waited_for(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    assert not app.conf.autodiscover
    assert app.conf.producer_acks == -1
    assert app.conf.consumer_auto_offset_reset == "earliest"
    # It would wait for acknowledgements that only the last checkpoint gives, after the wait: SIGTERM never ended.
    assert not app.conf.stream_wait_empty
    assert app.conf.Table is StateTable


def test_each_worker_has_a_directory_of_its_own(tmp_path: Path) -> None:
    first = create_app(settings(tmp_path, worker_name="w1"))
    second = create_app(settings(tmp_path, worker_name="w2"))
    assert Path(first.conf.datadir) != Path(second.conf.datadir)
    assert (tmp_path / "workers" / "w1").is_dir()


async def test_resuming_a_flow_that_runs_throws_nothing_away(tmp_path: Path) -> None:
    # Faust resumes it a second time once tables are recovered; the blocks that had arrived by then were lost.
    app = create_app(settings(tmp_path))
    queue = app.FlowControlQueue(maxsize=10, clear_on_resume=True)
    app.flow_control.resume()
    queue.put_nowait("the first block after the committed offset")
    app.flow_control.resume()
    assert queue.qsize() == 1
    app.flow_control.suspend()
    app.flow_control.resume()
    assert queue.qsize() == 0

from pathlib import Path

import pytest

from models.journal import JOURNAL, Journal, read_journal
from stream.errors import SettingsError


def test_what_was_finished_is_there_after_a_new_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", lambda: 17)
    journal.begin({"days": 1.0, "names": ("a", "b")}, {"champion": None})
    journal.finish("collect", ticks=5)
    again = Journal(tmp_path / "run")
    again.begin({"days": 1.0, "names": ("a", "b")}, {"champion": "another meanwhile"})
    assert again.steps == {"collect": {"ticks": 5, "at_ns": 17}}
    assert again.plan["found"] == {"champion": None}


def test_a_run_that_was_begun_with_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    Journal(tmp_path).begin({"days": 1.0, "ticks": "Kafka"}, {})
    with pytest.raises(SettingsError, match="begun with other days, names; right"):
        Journal(tmp_path).begin({"days": 2.0, "ticks": "Kafka", "names": []}, {})


@pytest.mark.parametrize("raw", ["", "{", "[]", '{"plan": 1, "steps": {}}'])
def test_a_damaged_journal_is_named_and_not_begun_anew(tmp_path: Path, raw: str) -> None:
    (tmp_path / JOURNAL).write_text(raw)
    with pytest.raises(SettingsError, match=f"{JOURNAL} is no journal"):
        read_journal(tmp_path)

"""Settings: where each comes from, what is refused and in which words, and that secrets stay secret."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from stream.errors import SettingsError
from stream.settings import CONFIG_VARIABLE, PREFIX, Settings, load_settings, masked, to_environment

SECRETS = {
    "clickhouse": "clickhouse://desk:hunter2@db.example:9000/ticks",
    "redis": "redis://:swordfish@cache.example:6379/0",
    "feed_token": "open-sesame",
}
PASSWORDS = ("hunter2", "swordfish", "open-sesame")


def config_file(directory: Path, text: str) -> Path:
    path = directory / "tickloom.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(values, environ={})
    return str(caught.value)


def test_with_nothing_set_everything_is_a_default() -> None:
    loaded = load_settings(environ={})
    assert loaded.settings == Settings()
    assert set(loaded.origin) == set(Settings.model_fields)
    assert set(loaded.origin.values()) == {"default"}


def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    path = config_file(tmp_path, "partitions = 8\nlinger_ms = 2.5\nworker_port = 9101\n")
    environ = {f"{PREFIX}LINGER_MS": "3", f"{PREFIX}WORKER_PORT": "9102"}
    loaded = load_settings({"worker_port": 9103}, environ, path)
    assert loaded.settings.partitions == 8
    assert loaded.settings.linger_ms == 3.0
    assert loaded.settings.worker_port == 9103
    assert loaded.origin["partitions"] == "file"
    assert loaded.origin["linger_ms"] == "environment"
    assert loaded.origin["worker_port"] == "flag"
    assert loaded.origin["host"] == "default"


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    loaded = load_settings({"partitions": None}, {f"{PREFIX}PARTITIONS": "2"})
    assert loaded.settings.partitions == 2
    assert loaded.origin["partitions"] == "environment"


def test_a_flag_of_zero_was_given() -> None:
    loaded = load_settings({"linger_ms": 0, "worker_port": 0}, {f"{PREFIX}LINGER_MS": "7"})
    assert loaded.settings.linger_ms == 0.0
    assert loaded.origin["linger_ms"] == loaded.origin["worker_port"] == "flag"


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = config_file(tmp_path, "partitions = 8\n")
    assert load_settings(environ={CONFIG_VARIABLE: str(path)}).settings.partitions == 8
    other = tmp_path / "other.toml"
    other.write_text("partitions = 16\n")
    assert load_settings(environ={CONFIG_VARIABLE: str(path)}, config=other).settings.partitions == 16
    assert load_settings(environ={CONFIG_VARIABLE: ""}).settings.partitions == 4


def test_other_variables_of_the_environment_are_none_of_our_business() -> None:
    assert load_settings(environ={"PATH": "/bin", "PARTITIONS": "9", "tickloom_host": "x"}).settings == Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().partitions = 8  # type: ignore[misc]


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'partitons' .file.; did you mean 'partitions'"):
        load_settings(environ={}, config=config_file(tmp_path, "partitons = 8\n"))
    with pytest.raises(
        SettingsError, match=r"unknown setting 'clickhous' .environment.; did you mean 'clickhouse'"
    ):
        load_settings(environ={f"{PREFIX}CLICKHOUS": "x"})
    assert refusal(zzz=1) == "unknown setting 'zzz' (flag); `tickloom settings` lists them all"


BAD_VALUES = {
    "partitions": [0, 1025, "four", 2.5, [4]],
    "replication": [0, 10],
    "retention_hours": [0, -1, "nan", "inf", 1e12],
    "linger_ms": [-1, 1001, "nan"],
    "worker_name": ["", "two words", "../elsewhere", "a/b", "naïve"],
    "worker_port": [-1, 65536, "http"],
    "checkpoint_s": [0, 61, "inf", "nan", "soon"],
    "lateness_s": [-0.1, "inf", "nan", 1e12],
    "future_s": [-0.1, "inf", "nan", 1e12],
    "kafka": ["", "broker", "broker:", ":9092", "broker:port", "broker:0", "broker:65536", "a:1,,b:2", "a:1,b"],
    "log_level": ["", "LOUD", "WARN "],
    "redis_ttl_s": [-1],
    "gateway_queue": [15],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD_VALUES.items() for value in values])
def test_a_bad_value_is_refused_with_its_key_what_was_seen_and_what_is_right(key: str, value: Any) -> None:
    message = refusal(**{key: value})
    assert message.startswith(f"setting '{key}' (flag) is {value!r}; right would be: ")
    assert len(message.split("right would be: ")[1]) > 10


def test_all_bad_values_are_told_at_once() -> None:
    message = refusal(partitions=0, linger_ms=-1)
    assert "setting 'partitions' (flag) is 0" in message
    assert "setting 'linger_ms' (flag) is -1" in message


@pytest.mark.parametrize("level", ["debug", "Info", "WARNING", "error"])
def test_a_log_level_may_be_written_in_any_case(level: str) -> None:
    assert load_settings({"log_level": level}, {}).settings.log_level == level.upper()


@pytest.mark.parametrize("brokers", ["localhost:9092", "10.0.0.1:9092,10.0.0.2:9092", "[::1]:9092"])
def test_one_or_several_brokers_can_be_named(brokers: str) -> None:
    assert load_settings({"kafka": brokers}, {}).settings.kafka == brokers


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("redis", "clickhouse://localhost:9000/db"),
        ("clickhouse", "redis://localhost:6379/0"),
        ("redis", "localhost:6379"),
        ("clickhouse", "http://localhost:8123"),
        ("clickhouse", ""),
    ],
)
def test_a_url_of_another_server_is_refused(key: str, url: str) -> None:
    message = refusal(**{key: url})
    assert message.startswith(f"setting '{key}' (flag) is a secret value; right would be: ")
    assert f"{key}://" in message


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "engine.example"])  # noqa: S104
def test_others_may_reach_us_only_with_a_token(host: str) -> None:
    message = refusal(host=host)
    assert message.startswith(f"host is {host}, which others can reach, and feed_token is not set")
    assert "TICKLOOM_FEED_TOKEN" in message
    assert load_settings({"host": host, "feed_token": "open-sesame"}, {}).settings.host == host


@pytest.mark.parametrize("token", ["", " ", "\t\n"])
def test_a_blank_token_is_no_token(token: str) -> None:
    # A compose file with FEED_TOKEN=${UNSET} gives an empty one: that must not open the feed to everybody.
    message = refusal(host="0.0.0.0", feed_token=token)  # noqa: S104
    assert message.startswith("setting 'feed_token' (flag) is a secret value; right would be: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert load_settings({"host": host}, {}).settings.feed_token is None


@pytest.mark.parametrize("key", ["early_to", "early_at"])
def test_others_may_send_predictions_only_with_a_key(key: str) -> None:
    message = refusal(**{key: "gateway.example:8766"})
    assert message.startswith(f"{key} is gateway.example:8766, which others can reach, and early_key is not set")
    assert "TICKLOOM_EARLY_KEY" in message
    assert refusal(**{key: "gateway.example:8766", "early_key": " "}).startswith(
        "setting 'early_key' (flag) is a sec"
    )
    load_settings({key: "gateway.example:8766", "early_key": "shared"}, {})
    for host in ("127.0.0.1", "localhost", "[::1]"):
        load_settings({key: f"{host}:8766"}, {})


@pytest.mark.parametrize("address", ["", "gateway", "gateway:", ":8766", "gateway:port", "127.0.0.1:0", "a:1,"])
@pytest.mark.parametrize("key", ["early_to", "early_at"])
def test_addresses_of_early_copies_are_hosts_and_ports(key: str, address: str) -> None:
    assert refusal(**{key: address}).endswith(
        "right would be: HOST:PORT, or several with commas between; a port is 1 to 65535"
    )


def test_a_gateway_takes_copies_at_one_address() -> None:
    assert refusal(early_at="127.0.0.1:1,127.0.0.1:2").endswith("right would be: one HOST:PORT")
    load_settings({"early_to": "127.0.0.1:1,127.0.0.1:2"}, {})


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = load_settings(SECRETS, {}).settings
    shown = [repr(settings), str(settings), repr(masked(settings)), settings.model_dump_json(), f"{settings}"]
    for text in shown:
        assert not any(password in text for password in PASSWORDS)
    assert masked(settings)["redis"] == "**********"
    assert masked(settings)["partitions"] == 4
    assert masked(Settings())["redis"] is None
    assert masked(Settings())["data_dir"] == ".tickloom"


def test_secrets_are_masked_in_errors() -> None:
    message = refusal(clickhouse="https://desk:hunter2@db", redis="swordfish", feed_token=["open-sesame"])
    assert message.count("is a secret value") == 3
    assert not any(password in message for password in PASSWORDS)
    # A mistake elsewhere must not show them either, nor one in our own code that makes settings directly.
    message = refusal(partitions=0, **SECRETS)
    assert not any(password in message for password in PASSWORDS)
    with pytest.raises(ValidationError) as caught:
        Settings(clickhouse=SecretStr("https://desk:hunter2@db"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"clickhouse": "https://desk:hunter2@db"})
    assert "hunter2" not in str(caught.value)


def test_an_error_has_no_chain_that_shows_a_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"clickhouse": "https://desk:hunter2@db"}, {})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PORTS = st.integers(0, 65535)
ANY_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "data_dir": st.sampled_from(["/var/lib/tickloom", "relative/path", "with space", "ümlaut"]),
        "kafka": st.sampled_from(["localhost:9092", "a:1,b:2"]),
        "clickhouse": TEXT.map(lambda text: f"clickhouse://{text}@host"),
        "redis": TEXT.map(lambda text: f"rediss://{text}@host"),
        "partitions": st.integers(1, 1024),
        "retention_hours": st.floats(0.001, 100_000),
        "linger_ms": st.floats(0, 1000),
        "worker_name": st.from_regex(r"\A[A-Za-z0-9._-]{1,20}\Z").filter(lambda name: name.strip(".")),
        "worker_port": PORTS,
        "checkpoint_s": st.floats(0.05, 60),
        "lateness_s": st.floats(0, 1e6),
        "early_to": st.sampled_from(["127.0.0.1:1", "localhost:1,[::1]:2"]),
        "early_key": TEXT.filter(lambda text: text.strip(" ,\t\r\n")),
        "feed_token": TEXT.filter(lambda text: text.strip(" ,\t\r\n")),
        "log_level": st.sampled_from(["debug", "INFO"]),
    },
)


@given(ANY_SETTINGS)
def test_a_child_process_gets_the_same_settings_from_its_environment(values: dict[str, Any]) -> None:
    settings = load_settings(values, {}).settings
    environment = to_environment(settings)
    assert all(key.startswith(PREFIX) and isinstance(value, str) for key, value in environment.items())
    assert load_settings(environ=environment).settings == settings


def test_a_child_process_prefers_what_it_is_given_over_the_file_it_inherits(tmp_path: Path) -> None:
    path = config_file(tmp_path, "partitions = 8\n")
    settings = load_settings({"partitions": 2}, {CONFIG_VARIABLE: str(path)}).settings
    child = load_settings(environ={CONFIG_VARIABLE: str(path), **to_environment(settings)})
    assert child.settings == settings


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*missing\.toml: No such file"):
        load_settings(environ={}, config=tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*: Is a directory"):
        load_settings(environ={}, config=tmp_path)


@pytest.mark.parametrize(
    "content", [b"partitions: 8\n", b"partitions = \n", b"\xff\xfe", b"partitions = 1\npartitions = 2"]
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tickloom.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"the settings file .*tickloom\.toml is not TOML: "):
        load_settings(environ={}, config=path)


def test_a_table_in_the_file_is_an_unknown_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'worker' .file."):
        load_settings(environ={}, config=config_file(tmp_path, "[worker]\npartitions = 8\n"))


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_the_time_of_retraining_is_cron_or_nothing() -> None:
    assert load_settings(environ={"TICKLOOM_RETRAIN_AT": "30 2 * * *"}).settings.retrain_at == "30 2 * * *"
    assert load_settings(environ={"TICKLOOM_RETRAIN_AT": " "}).settings.retrain_at is None
    with pytest.raises(
        SettingsError, match=r"'retrain_at' \(environment\) is '02:30'; right would be: five fields"
    ):
        load_settings(environ={"TICKLOOM_RETRAIN_AT": "02:30"})

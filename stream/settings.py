"""One frozen `Settings`, from defaults, an optional TOML file, ``TICKLOOM_*`` variables and command flags.

Later wins: default < file < environment < flag. Unknown keys and bad values are refused with the key, what was
seen and what would be right. Secrets are `SecretStr`: they are masked wherever settings are shown or logged.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stream.addresses import LOOPBACK_HOSTS, parse_addresses
from stream.errors import SettingsError

PREFIX = "TICKLOOM_"
CONFIG_VARIABLE = "TICKLOOM_CONFIG"

# The model that comes with tickloom.
_CHAMPION = Path(__file__).resolve().parent.parent / "models" / "champion" / "model.onnx"

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """Everything that can be set. ``None`` for a server's address means: start the embedded one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    # Where things are.
    data_dir: Path = Field(Path(".tickloom"), description="everything that the embedded servers and workers keep")
    kafka: str | None = Field(None, description="HOST:PORT[,HOST:PORT] of a Kafka cluster")
    clickhouse: SecretStr | None = Field(None, description="clickhouse://USER:PASSWORD@HOST:PORT/DATABASE")
    clickhouse_analyst: SecretStr | None = Field(
        None,
        description="the same, of a user who may only look, for `tickloom sql` and the like; none is `clickhouse`",
    )
    redis: SecretStr | None = Field(None, description="redis://[:PASSWORD@]HOST:PORT/DB or rediss://")
    host: str = Field("127.0.0.1", description="address that the feed and the metrics listen on")

    # Topics.
    partitions: int = Field(4, ge=1, le=1024, description="partitions of every topic: the number of lanes")
    replication: int = Field(1, ge=1, le=9, description="replicas of every topic")
    retention_hours: float = Field(24.0, gt=0, le=1e6, description="how long ticks and predictions stay in Kafka")
    source_port: Port = Field(0, description="metrics and health of a source; 0 picks a free port")
    idempotent_producer: bool = Field(True, description="off only for a broker that cannot, such as Tansu")
    linger_ms: float = Field(
        1.0, ge=0, le=1000, description="least distance between two rounds of blocks of a source"
    )

    # Worker.
    model: Path = Field(_CHAMPION, description="the ONNX step model to serve")
    registry: str | None = Field(
        None, min_length=1, description="directory or URL (s3://BUCKET/PREFIX) of models; none is DATA_DIR/registry"
    )
    predictor: Literal["auto", "compiled", "onnxruntime"] = Field(
        "auto", description="what runs the model; auto compiles it where it can, and logs where it cannot"
    )
    worker_name: str = Field("worker-1", pattern=r"^[A-Za-z0-9._-]+$", description="unique among workers")
    worker_port: Port = Field(0, description="metrics and health of the worker; 0 picks a free port")
    checkpoint_s: float = Field(1.0, ge=0.05, le=60, description="how often state goes to the changelog")
    early_to: str | None = Field(
        None, description="HOST:PORT[,HOST:PORT] of gateways that get copies of predictions before Kafka has them"
    )
    fetch_wait_ms: int = Field(20, ge=1, le=1000, description="how long the broker may hold a fetch open")
    standby_replicas: int = Field(1, ge=0, le=4, description="workers that keep a copy of another's state")
    session_timeout_s: float = Field(10.0, ge=1, le=300, description="a silent worker loses its lanes after this")
    lateness_s: float = Field(
        5.0, ge=0, le=1e9, description="a tick older than its symbol's newest by more is late"
    )
    future_s: float = Field(5.0, ge=0, le=1e9, description="a tick this much ahead of our clock is refused")

    features_every_ms: int | None = Field(
        None,
        ge=0,
        le=86_400_000,
        description="publish feature rows: 0 all, else the first of a symbol in each so many ms; none: not at all",
    )

    # Ticks that are not to be believed, see agents/validate.py.
    outlier_bps: float = Field(500.0, gt=0, le=1e9, description="a price may always be this far from the last one")
    outlier_scale: float = Field(
        50.0, ge=0, le=1e6, description="or so many times its symbol's mean distance from tick to tick"
    )
    symbols: str | None = Field(
        None, min_length=1, description="the only symbols to accept: A,B,C or @FILE with one a line; none is any"
    )

    # Indicators; `agents/periods.py` says more, and a feature's name carries its period.
    tick_return_short: int = Field(8, description="ticks of the shorter return")
    tick_return_long: int = Field(64, description="ticks of the longer return, at most 64")
    tick_sma: int = Field(32, description="ticks of the simple moving average, at most 64")
    tick_ema_fast: int = Field(12, description="ticks of the faster exponential average, and of the MACD")
    tick_ema_slow: int = Field(26, description="ticks of the slower exponential average, and of the MACD")
    tick_macd_signal: int = Field(9, description="ticks of the MACD's signal line")
    tick_rsi: int = Field(14, description="ticks of the RSI")
    tick_bollinger: int = Field(20, description="ticks of the Bollinger bands, at most 64")
    tick_volatility: int = Field(64, description="ticks of the volatility, at most 64")
    tick_channel: int = Field(64, description="ticks of the high and the low, at most 64")
    tick_flow: int = Field(32, description="ticks of the averages of flows and of the time between ticks")
    bar_sma: int = Field(20, description="bars of the simple moving average, at most 64")
    bar_ema_fast: int = Field(12, description="bars of the exponential average, and of the MACD")
    bar_ema_slow: int = Field(26, description="bars of the MACD's slower average")
    bar_macd_signal: int = Field(9, description="bars of the MACD's signal line")
    bar_rsi: int = Field(14, description="bars of the RSI")
    bar_bollinger: int = Field(20, description="bars of the Bollinger bands, at most 64")
    bar_atr: int = Field(14, description="bars of the average true range")
    bar_roc: int = Field(10, description="bars of the rate of change, at most 64")
    bar_channel: int = Field(20, description="bars of the high and the low, at most 64")
    bar_volatility: int = Field(20, description="bars of the volatility, at most 64")
    windows_s: str = Field("1,10,60,300", description="seconds of the four windows by event time")
    bars_s: str = Field("1,60", description="seconds of the two lengths of bars")
    session_gap_s: float = Field(0.0, description="silence after which a symbol starts anew; 0 is never")

    # Ways out.
    exporter_port: Port = Field(0, description="metrics and health of an exporter; 0 picks a free port")
    archive_url: str | None = Field(
        None, min_length=1, description="directory or URL (s3://BUCKET/PREFIX) of the archive of Parquet files"
    )
    archive_every_s: float = Field(300.0, ge=1, le=86_400, description="the archive is this far behind at the most")
    redis_ttl_s: int = Field(86_400, ge=0, description="expiry of a symbol's latest prediction; 0 is never")
    redis_stream_maxlen: int = Field(10_000, ge=1, description="batches kept in the stream of predictions ...")
    redis_stream_rows: int = Field(500_000, ge=1, description="... and predictions, roughly: 160 bytes each")
    redis_conflate_after_s: float = Field(
        5.0, ge=0, le=1e6, description="Redis gets only the newest of what is older than this; 0 is all of it"
    )
    clickhouse_batch_rows: int = Field(20_000, ge=1, le=1_000_000, description="rows of an insert, at the most")
    clickhouse_flush_s: float = Field(0.5, gt=0, le=60, description="age at which a smaller batch is inserted")
    gateway_port: Port = Field(8765, description="WebSocket feed; 0 picks a free port")
    gateway_queue: int = Field(8192, ge=16, description="messages held for a slow client of a full feed")
    gateway_clients: int = Field(1000, ge=1, le=100_000, description="connections of a gateway, at the most")
    gateway_memory: int = Field(
        131_072, ge=1024, le=1 << 24, description="messages of each channel that a client can resume from at once"
    )
    early_at: str | None = Field(
        None, description="HOST:PORT where a gateway takes such copies; none: it has Kafka only"
    )
    early_key: SecretStr | None = Field(
        None, description="secret of these copies, shared by workers and gateways; not needed on 127.0.0.1"
    )
    gateway_shared_port: bool = Field(False, description="several gateways of one machine listen on one port")
    gateway_origins: str | None = Field(
        None, description="pages of other hosts that may connect, with commas between: https://desk.example"
    )
    feed_token: SecretStr | None = Field(
        None, description="token that feed clients must present; several with commas between"
    )
    feed_jwt_key: SecretStr | None = Field(
        None, description="of JWTs of clients: a secret (HS256), or @FILE with a public key in PEM"
    )
    feed_jwt_audience: str = Field("tickloom", min_length=1, description="the `aud` that a JWT must have")
    feed_jwt_issuer: str | None = Field(
        None, min_length=1, description="the `iss` that a JWT must have; none is any"
    )

    # The REST API and the page.
    api_port: Port = Field(8080, description="REST API and page; 0 picks a free one")
    api_title: str = Field("tickloom", min_length=1, max_length=80, description="what the page calls itself")
    api_feed_url: str | None = Field(
        None,
        pattern="^wss?://",
        description="ws[s]://HOST:PORT/feed as browsers reach it; none is the gateway's port",
    )
    api_timeout_s: float = Field(15.0, ge=0.1, le=600, description="an answer takes no longer than this")
    api_explain_timeout_s: float = Field(120.0, ge=1, le=3600, description="the same, of an explanation")
    api_queries: int = Field(4, ge=1, le=64, description="questions to ClickHouse at a time; others wait")
    api_rate_per_s: float = Field(
        100.0, gt=0, le=1e6, description="requests of a client (a token, else an address) in the long run"
    )
    api_origins: str | None = Field(
        None, description="pages of other sites that may read the API: https://HOST,...; none is none"
    )

    # What came of predictions.
    fees_bps: float = Field(
        0.0, ge=0, le=1e4, description="fees of a position, in and out again; it costs the spread besides"
    )
    cost_bps: float = Field(
        1.0, ge=0, le=1e4, description="what it costs in all where the spread is not known, in and out again"
    )
    outcome_patience_s: float = Field(
        600.0, gt=0, le=1e7, description="a silent symbol's predictions are given up so long after their horizon"
    )
    rollback: bool = Field(True, description="take a model out of service that is worse than the one before")
    rollback_false_alarms: float = Field(
        0.001, gt=0, lt=1, description="probability that a model which is no worse goes, in its whole life"
    )

    # Retraining; models/retrain.py.
    retrain_at: str | None = Field(
        None, description="when to retrain each night, UTC, as in cron: '30 2 * * *'; none or empty is never"
    )
    retrain_days: float = Field(1.0, gt=0, le=1e4, description="train on so many of the last days that Kafka holds")
    retrain_settings: Path | None = Field(None, description="settings of the training, as a search writes them")
    retrain_shadow_s: float = Field(
        3600.0,
        ge=0,
        le=1e6,
        description="a new model runs in shadow so long before it is promoted; 0 is not at all",
    )
    retrain_level: float = Field(
        0.01, gt=0, lt=1, description="a lead with a larger Diebold-Mariano p-value is not believed"
    )
    retrain_calibration_error: float = Field(
        0.05, gt=0, le=1, description="a new model's calibration error, at the most"
    )

    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError("DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("features_every_ms", mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        # An unset variable that a compose file passes on arrives as an empty one.
        return None if value == "" else value

    @field_validator("retrain_at")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        from croniter import croniter

        if not croniter.is_valid(value):
            raise ValueError("five fields as in cron, such as '30 2 * * *' for half past two, or nothing at all")
        return value

    @field_validator("kafka", "early_to")
    @classmethod
    def _host_port(cls, value: str | None) -> str | None:
        if value is not None:
            parse_addresses(value)
        return value

    @field_validator("early_at")
    @classmethod
    def _one_address(cls, value: str | None) -> str | None:
        if value is not None and len(parse_addresses(value)) != 1:
            raise ValueError("one HOST:PORT")
        return value

    @field_validator("clickhouse", "clickhouse_analyst", "redis")
    @classmethod
    def _url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # redis:// and rediss://, clickhouse:// and clickhouses://: with TLS where it ends in s.
        server = str(info.field_name).partition("_")[0]
        schemes = (f"{server}://", f"{server}s://")
        if value is not None and not value.get_secret_value().startswith(schemes):
            raise ValueError(f"a URL: {schemes[0]}... or, with TLS, {schemes[1]}...")
        return value

    @field_validator("feed_token", "feed_jwt_key", "early_key")
    @classmethod
    def _not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        # An unset variable that a compose file passes on arrives as an empty one.
        if value is not None and not value.get_secret_value().strip(" ,\t\r\n"):
            raise ValueError("one that is not blank, or none at all")
        return value

    @property
    def registry_url(self) -> str:
        """Where the registry of models is."""
        return str(self.data_dir / "registry") if self.registry is None else self.registry

    @model_validator(mode="after")
    def _whole(self) -> Self:
        is_open = self.feed_token is None and self.feed_jwt_key is None
        if self.host not in LOOPBACK_HOSTS and is_open:
            raise ValueError(
                f"host is {self.host}, which others can reach, and feed_token is not set; "
                f"set {PREFIX}FEED_TOKEN or {PREFIX}FEED_JWT_KEY, or bind to 127.0.0.1"
            )
        for name in ("early_to", "early_at"):
            addresses = parse_addresses(getattr(self, name) or "127.0.0.1:1")
            if self.early_key is None and any(host not in LOOPBACK_HOSTS for host, _ in addresses):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, which others can reach, and early_key is not set: anybody "
                    f"could send predictions; set {PREFIX}EARLY_KEY, the same for workers and gateways"
                )
        return self


@dataclass(frozen=True)
class LoadedSettings:
    """Settings with the origin of each value: ``default``, ``file``, ``environment`` or ``flag``."""

    settings: Settings
    origin: Mapping[str, str]


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> LoadedSettings:
    """Return the settings from all their origins.

    Args:
        flags: values given on the command line; ``None`` values count as not given.
        environ: the environment; `os.environ` when not given.
        config: a TOML file; ``$TICKLOOM_CONFIG`` when not given.

    Raises:
        SettingsError: an unknown key, a bad value, or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    layers = {
        "file": {} if config is None else _read_toml(config),
        "environment": _read_environment(environ),
        "flag": {key: value for key, value in (flags or {}).items() if value is not None},
    }
    values: dict[str, Any] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    for name, layer in layers.items():
        for key, value in layer.items():
            if key not in Settings.model_fields:
                raise SettingsError(f"unknown setting {key!r} ({name}){_did_you_mean(key)}")
            values[key], origin[key] = value, name
    try:
        return LoadedSettings(Settings.model_validate(values), origin)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item, origin) for item in error.errors())) from None


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the ``TICKLOOM_*`` variables that give a child process the same settings, secrets included."""
    variables: dict[str, str] = {}
    for key, value in settings.model_dump().items():
        if value is not None:
            raw = value.get_secret_value() if isinstance(value, SecretStr) else value
            variables[PREFIX + key.upper()] = str(raw)
    return variables


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values for showing, secrets masked."""
    return settings.model_dump(mode="json")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None


def _read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and key != CONFIG_VARIABLE
    }


def _did_you_mean(key: str) -> str:
    near = difflib.get_close_matches(key, Settings.model_fields, 1)
    return f"; did you mean {near[0]!r}?" if near else "; `tickloom settings` lists them all"


def _explain(item: Any, origin: Mapping[str, str]) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    if not key:
        return str(item["msg"]).removeprefix("Value error, ")
    secret = "SecretStr" in str(Settings.model_fields[key].annotation)
    seen = "a secret value" if secret else repr(item["input"])
    right = str(item["msg"]).removeprefix("Value error, ")
    return f"setting {key!r} ({origin[key]}) is {seen}; right would be: {right}"

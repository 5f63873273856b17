"""Who may come in, and what he may see: static tokens, and JWTs that say it themselves. No I/O but reading a key.

A JWT needs ``exp``, the audience, and the claims ``channels`` and ``symbols``: lists of names, prefixes such as
``BTC*``, or ``*``. What a claim does not name is not granted. The key decides on the algorithm, never the token.
"""

import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from pydantic import SecretStr

from stream.errors import SettingsError
from stream.settings import Settings

_LONGEST_TOKEN: Final = 8192  # characters; a JWT of ours has some hundreds
_LEEWAY_S: Final = (
    5  # between our clock and that of whoever signs, for `nbf` and `iat`; `exp` is kept to the second
)
_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "EdDSA"]


class NotAdmitted(Exception):
    """No, or not the right, token; the connection is closed with 4401."""


class NothingGranted(Exception):
    """A good token that grants nothing here; the connection is closed with 4403."""


@dataclass(frozen=True)
class Grant:
    """What a client may see."""

    channels: tuple[str, ...] = ("*",)
    symbols: tuple[str, ...] = ("*",)
    expires_ns: int | None = None

    def refusal(self, channel: str, symbols: tuple[str, ...]) -> str | None:
        """Return why some symbols of a channel may not be followed, or None where all may."""
        if not _covered(channel, self.channels):
            return f"the token grants the channels {', '.join(self.channels)}; not {channel}"
        for symbol in symbols:
            if not _covered(symbol, self.symbols):
                return f"the token grants the symbols {', '.join(self.symbols)[:200]}; not {symbol}"
        return None


def _covered(name: str, granted: tuple[str, ...]) -> bool:
    return any(name == one or (one[-1:] == "*" and name.startswith(one[:-1])) for one in granted)


class Door:
    """Judges tokens."""

    def __init__(self, settings: Settings) -> None:
        """Make it from ``feed_token`` and ``feed_jwt_*``.

        Raises:
            SettingsError: the key's file cannot be read, or is no key.
        """
        tokens = "" if settings.feed_token is None else settings.feed_token.get_secret_value()
        self._tokens = [token.strip().encode() for token in tokens.split(",") if token.strip()]
        self._key: Any = None
        self._algorithms: list[str] = []
        if settings.feed_jwt_key is not None:
            self._key, self._algorithms = _load_key(settings.feed_jwt_key)
        self._audience, self._issuer = settings.feed_jwt_audience, settings.feed_jwt_issuer

    @property
    def open(self) -> bool:
        """Whether everybody may come in; only on an address of this machine, see `Settings`."""
        return not self._tokens and self._key is None

    def judge(self, token: str) -> Grant:
        """Return what a token grants.

        Raises:
            NotAdmitted: it is not right, or its time is over.
            NothingGranted: it is right, and not for this feed.
        """
        presented = token.encode(errors="replace")
        # In constant time, and with every token: how long it takes must not tell how much of a guess was right.
        matches = [hmac.compare_digest(presented, ours) for ours in self._tokens]
        if any(matches):
            return Grant()
        if self._key is None or len(token) > _LONGEST_TOKEN:
            raise NotAdmitted("this is not the right token")
        return self._grant(self._claims(token))

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise NotAdmitted("the token's time is over") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError) as error:
            raise NothingGranted(f"the token is not for this feed: {error}") from None
        except jwt.MissingRequiredClaimError as error:
            raise NotAdmitted(f"the token lacks a claim: {error}") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise NotAdmitted("this is not the right token") from None
        return claims

    def _grant(self, claims: dict[str, Any]) -> Grant:
        channels, symbols = (_names(claims.get(name)) for name in ("channels", "symbols"))
        if not channels or not symbols:
            raise NothingGranted(
                'the token grants nothing: it needs the claims "channels" and "symbols", lists of names'
            )
        return Grant(channels, symbols, int(float(claims["exp"]) * 1e9))


def _names(claim: object) -> tuple[str, ...]:
    if not isinstance(claim, list):
        return ()
    return tuple(name for name in claim if isinstance(name, str) and name)


def _load_key(setting: SecretStr) -> tuple[Any, list[str]]:
    text = setting.get_secret_value()
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the key of the feed's JWTs from {path}: {error}") from None
    if "-----BEGIN" not in text:
        if len(text.strip()) < 32:
            raise SettingsError("feed_jwt_key is shorter than 32 characters: it could be guessed")
        return text.strip().encode(), ["HS256"]
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(text.encode()), _ALGORITHMS
    except ValueError as error:
        raise SettingsError(f"feed_jwt_key is not a public key in PEM: {error}") from None

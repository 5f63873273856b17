"""A token opens what it grants, while it lasts, and nothing else does."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from exporters.feed_auth import Door, Grant, NotAdmitted, NothingGranted
from stream.errors import SettingsError
from stream.settings import Settings

SECRET = "a-secret-of-more-than-64-characters, which is what HS512 would like to have"


def door(**changes: Any) -> Door:
    return Door(Settings(**{name: SecretStr(v) if "issuer" not in name else v for name, v in changes.items()}))


def token(secret: Any = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {"aud": "tickloom", "exp": time.time() + 60, "channels": ["*"], "symbols": ["*"]} | changes
    return jwt.encode({key: value for key, value in claims.items() if value is not None}, secret, algorithm)


def test_every_one_of_several_tokens_opens_and_no_part_of_one_does() -> None:
    several = door(feed_token="first, second")
    assert not several.open
    assert several.judge("first") == several.judge("second") == Grant()
    for wrong in ("", "firs", "first,", "first, second", "First", "first ", "\ud800"):
        with pytest.raises(NotAdmitted):
            several.judge(wrong)


def test_without_a_token_or_a_key_the_door_is_open() -> None:
    assert door().open
    assert not door(feed_jwt_key=SECRET).open


def test_a_jwt_grants_what_it_names() -> None:
    expires_s = int(time.time()) + 60
    grant = door(feed_jwt_key=SECRET).judge(
        token(exp=expires_s, channels=["tick", "bar.*"], symbols=["BTC*", "AIG"])
    )
    assert grant == Grant(("tick", "bar.*"), ("BTC*", "AIG"), expires_s * 1_000_000_000)
    assert grant.refusal("tick", ("BTCUSD", "BTC*", "BTCX*", "AIG")) is None
    assert grant.refusal("bar.1m", ("AIG",)) is None
    assert grant.refusal("prediction", ()) == "the token grants the channels tick, bar.*; not prediction"
    for symbol in ("*", "B*", "BT", "AIGX", "AIG*"):
        assert grant.refusal("tick", (symbol,)) == f"the token grants the symbols BTC*, AIG; not {symbol}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 4_102_444_800},  # the year 2100
        {"secret": "another-secret-of-more-than-32-characters"},
        {"algorithm": "HS512"},
        {"secret": "", "algorithm": "none"},
    ],
    ids=str,
)
def test_a_jwt_that_is_not_right_is_not_admitted(wrong: dict[str, Any]) -> None:
    with pytest.raises(NotAdmitted):
        door(feed_jwt_key=SECRET).judge(token(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another"},
        {"channels": None},
        {"channels": []},
        {"symbols": None},
        {"symbols": "*"},
        {"symbols": [7]},
    ],
    ids=str,
)
def test_a_jwt_that_grants_nothing_here_is_told_so(wrong: dict[str, Any]) -> None:
    with pytest.raises(NothingGranted):
        door(feed_jwt_key=SECRET).judge(token(**wrong))


def test_the_issuer_counts_where_one_is_set() -> None:
    strict = door(feed_jwt_key=SECRET, feed_jwt_issuer="desk")
    assert strict.judge(token(iss="desk")).channels == ("*",)
    with pytest.raises(NothingGranted):
        strict.judge(token(iss="another"))
    with pytest.raises(NotAdmitted):
        strict.judge(token())


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_public_key_admits_what_its_private_key_signed(algorithm: str, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    path = tmp_path / "feed.pem"
    path.write_text(public)
    asymmetric = door(feed_jwt_key=f"@{path}")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert asymmetric.judge(token(private, algorithm)).symbols == ("*",)
    # The classic: the public key, which everybody may know, taken for a secret.
    forged = jwt.api_jws.PyJWS().encode(b'{"aud":"tickloom","exp":9999999999}', b"x" * 32, "HS256")
    for wrong in (forged, token()):
        with pytest.raises(NotAdmitted):
            asymmetric.judge(wrong)


@given(st.text(max_size=200))
def test_no_other_text_opens(text: str) -> None:
    with pytest.raises(NotAdmitted):
        door(feed_jwt_key=SECRET, feed_token="open-sesame").judge(f"{text}.{text}.{text}")


def test_a_key_that_is_none_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="shorter than 32"):
        door(feed_jwt_key="hunter2")
    with pytest.raises(SettingsError, match="cannot read the key"):
        door(feed_jwt_key=f"@{tmp_path / 'none'}")
    with pytest.raises(SettingsError, match="not a public key"):
        door(feed_jwt_key="-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----")

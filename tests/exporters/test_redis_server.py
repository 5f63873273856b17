"""Ways to reach a Redis server: passwords, TLS, a Redis 7 where one is installed.

The embedded Valkey speaks no TLS, so a proxy does it in front of it. The tests of Redis itself want `redis-server`
7 on the PATH, or its path in TICKLOOM_TEST_REDIS_SERVER, and are left out elsewhere.
"""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis

from exporters.batch import Batch
from exporters.redis_reader import RedisReader
from exporters.redis_server import RedisServer
from exporters.redis_sink import RedisSink
from stream.embedded.ports import free_port
from stream.embedded.valkey import EmbeddedValkey
from stream.errors import SettingsError, SinkUnavailable

ROOT = Path(__file__).resolve().parents[2]
Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def make_certificate(home: Path, name: str, issuer: Signed | None = None) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .add_extension(loopback, critical=False)
        .sign(key if issuer is None else issuer[1], hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (home / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (home / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``ca``, ``server`` and ``client``, each ``.crt`` and ``.key``; and ``other``, of nobody."""
    home = tmp_path_factory.mktemp("tls")
    ca = make_certificate(home, "ca")
    for name in ("server", "client"):
        make_certificate(home, name, ca)
    make_certificate(home, "other")
    return home


async def write_and_read(url: str, make_rows: Any, prefix: str = "tl:") -> None:
    sink, reader = RedisSink(url, 3600, 1000, prefix), RedisReader(url, prefix)
    try:
        await sink.write(Batch(make_rows(["AIG", "BAC"], 3), ((0, 0, 0),), "one"))
        await sink.write(Batch(make_rows(["AIG"], 1), ((0, 0, 0),), "one"))
        assert {name: found["seq"] for name, found in (await reader.latest(["AIG", "BAC"])).items()} == {
            "AIG": 3,
            "BAC": 3,
        }
        assert await reader.symbols() == ["AIG", "BAC"]
    finally:
        await sink.close()
        await reader.close()


@pytest.fixture
async def tls_port(valkey: EmbeddedValkey, certificates: Path) -> AsyncIterator[int]:
    """A port where Valkey speaks TLS with whoever has a certificate of our CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        ways = pump(reader, inner_writer), pump(inner_reader, writer)
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, inner_writer):
            with contextlib.suppress(OSError):
                await end.wait_closed()

    connections: list[Any] = []
    async with await asyncio.start_server(join, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait_for(asyncio.gather(*connections), 10)  # the clients have closed theirs


def tls_url(port: int, home: Path, name: str = "client", ca: str = "ca") -> str:
    files = f"ssl_ca_certs={home}/{ca}.crt&ssl_certfile={home}/{name}.crt&ssl_keyfile={home}/{name}.key"
    return f"rediss://127.0.0.1:{port}/0?{files}"


async def test_tls_with_a_certificate_of_our_own(
    tls_port: int, certificates: Path, make_rows: Any, fresh_name: Any
) -> None:
    await write_and_read(tls_url(tls_port, certificates), make_rows, fresh_name("tl") + ":")


async def test_who_does_not_trust_the_server_or_is_not_trusted_stays_out(tls_port: int, certificates: Path) -> None:
    for url in (
        tls_url(tls_port, certificates, ca="other"),
        tls_url(tls_port, certificates, name="other"),
        f"rediss://127.0.0.1:{tls_port}/0",
        f"redis://127.0.0.1:{tls_port}/0",
    ):
        reader = RedisReader(url)
        with pytest.raises(SinkUnavailable, match=r"cannot be reached|does not answer"):
            await reader.latest(["AIG"])
        await reader.close()


# As docs/redis.md has it.
NEEDED = "+evalsha +script|load +hmget +hset +expire +publish +xadd +set +exists +hgetall +scan"


async def test_a_user_with_the_rights_of_the_documentation_can_do_everything_and_without_them_is_refused(
    valkey: EmbeddedValkey, make_rows: Any, fresh_name: Any
) -> None:
    prefix = fresh_name("tl") + ":"
    assert NEEDED in (ROOT / "docs" / "redis.md").read_text("utf-8")
    rights = ("reset", "on", ">pass word", f"~{prefix}*", f"&{prefix}*", *NEEDED.split())
    async with Redis.from_url(valkey.url) as client:
        await client.execute_command("ACL", "SETUSER", "desk", *rights)  # type: ignore[no-untyped-call]
        url = valkey.url.replace("redis://", "redis://desk:pass%20word@")
        await write_and_read(url, make_rows, prefix)
        sink = RedisSink(url, 3600, 1000, prefix)
        await sink.check()
        await sink.write(Batch(make_rows(["AIG"], 9), ((0, 0, 0),), "one", frozenset([b"AIG"])))
        await sink.close()
        await client.execute_command("ACL", "SETUSER", "desk", "-hgetall")  # type: ignore[no-untyped-call]
        reader = RedisReader(url, prefix)
        with pytest.raises(SinkUnavailable, match="refuses our user or password"):
            await reader.latest(["AIG"])
        await reader.close()
        await client.acl_deluser("desk")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://host:port", "Port could not be cast"),
        ("rediss://host:1/0?ssl_ca=/x", "unexpected keyword argument 'ssl_ca'"),
        ("rediss://host:1/0?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs is /nowhere/ca.pem, and there is no such"),
        ("redis://host:1/0?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_words(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        RedisServer(url)


@pytest.fixture(scope="module")
def redis_7(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[tuple[int, int]]:
    """Redis itself, with a password: its port without and with TLS."""
    binary = os.environ.get("TICKLOOM_TEST_REDIS_SERVER") or shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server on the PATH, nor in TICKLOOM_TEST_REDIS_SERVER")
    ports = free_port(), free_port()
    files = {"cert": "server.crt", "key": "server.key", "ca-cert": "ca.crt"}
    options: dict[str, Any] = {f"tls-{name}-file": certificates / file for name, file in files.items()}
    options |= {"port": ports[0], "tls-port": ports[1], "bind": "127.0.0.1"}
    options |= {"save": "", "requirepass": "open sesame"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    server = subprocess.Popen(
        [binary, *arguments], stdout=subprocess.PIPE, text=True, cwd=tmp_path_factory.mktemp("redis")
    )
    assert server.stdout is not None
    for line in server.stdout:
        if "Ready to accept connections" in line:
            break
    yield ports
    server.terminate()
    server.stdout.close()
    server.wait(10)


async def test_redis_7_does_the_same_as_valkey(
    redis_7: tuple[int, int], certificates: Path, make_rows: Any
) -> None:
    port, tls_port = redis_7
    await write_and_read(f"redis://:open%20sesame@127.0.0.1:{port}/0", make_rows)
    url = tls_url(tls_port, certificates).replace("rediss://", "rediss://:open%20sesame@").replace("/0?", "/1?")
    await write_and_read(url, make_rows)
    refused = RedisReader(tls_url(tls_port, certificates))
    with pytest.raises(SinkUnavailable, match="refuses our user or password"):
        await refused.latest(["AIG"])
    await refused.close()

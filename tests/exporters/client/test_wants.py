"""What a connection is asked for, so that it goes on where the last one was."""

import pytest

from exporters.client.continuity import Had
from exporters.client.wants import Ask, Names, Wants
from exporters.protocol import Mode
from stream.errors import FeedRefused

HAD = {b"AIG": Had(7, 70), b"BAC": Had(8, 80), b"BTCUSDT": Had(9, 90)}


def asks(wants: Wants, epoch: str | None = "e", had: dict[bytes, Had] | None = None) -> list[dict[str, object]]:
    newest_ns = 60_000_000_000
    found = wants.asks("prediction", epoch, HAD if had is None else had, newest_ns)
    return [
        {name: value for name, value in ask.message(1).items() if name not in ("op", "id", "channel")}
        for ask in found
    ]


def test_full_is_resumed_and_the_newest_is_asked_for_as_it_was() -> None:
    wants = Wants()
    wants.add(Ask("prediction", ("*",), "full"))
    wants.add(Ask("prediction", ("AIG",), "throttle", 100))
    wants.add(Ask("prediction", ("BTC*",), "latest"))
    assert asks(wants) == [
        {"symbols": ("*",), "mode": "full", "resume": {"epoch": "e", "seqs": {"BAC": 8}}},
        {"symbols": ("BTC*",), "mode": "latest"},
        {"symbols": ("AIG",), "mode": "throttle", "throttle_ms": 100},
    ]
    assert asks(wants, epoch=None)[0] == {"symbols": ("*",), "mode": "full"}
    wants.remove("prediction", ("*",))
    assert [ask["symbols"] for ask in asks(wants)] == [("BTC*",), ("AIG",)]
    assert wants.mode_of("prediction", b"BAC") is Mode.NONE


def test_what_a_replay_still_brings_is_not_asked_for_otherwise() -> None:
    wants = Wants()
    wants.add(Ask("prediction", ("AIG",), "full"))
    replay = Ask("prediction", ("A*",), "full", replay_from_ns=5, is_wanted=True)
    wants.add(replay)
    wants.add(Ask("prediction", ("BAC",), "full"))
    assert asks(wants) == [
        {"symbols": ("A*", "AIG"), "mode": "full", "replay_from_ns": 5},
        {"symbols": ("BAC",), "mode": "full", "resume": {"epoch": "e", "seqs": {"BAC": 8}}},
    ]
    assert wants.replayed(replay)
    assert not wants.replayed(replay)
    assert asks(wants) == [
        {"symbols": ("A*", "AIG", "BAC"), "mode": "full", "resume": {"epoch": "e", "seqs": {"AIG": 7, "BAC": 8}}}
    ]


def test_more_symbols_than_a_request_holds_are_asked_for_by_time() -> None:
    wants = Wants()
    wants.add(Ask("prediction", ("*",), "full"))
    many = {b"S%d" % number: Had(number, number) for number in range(2001)}
    assert asks(wants, had=many) == [{"symbols": ("*",), "mode": "full", "replay_from_ns": 50_000_000_000}]


def test_what_a_gateway_would_refuse_is_refused_before_it_is_asked() -> None:
    wants = Wants()
    for symbols, code in ((("",), "bad_symbol"), ((), "bad_request"), (tuple("AB" * 1001), "too_many_symbols")):
        with pytest.raises(FeedRefused) as refused:
            wants.add(Ask("prediction", symbols, "full"))
        assert refused.value.code == code
    assert not wants


def test_names_cover_symbols_and_prefixes() -> None:
    names = Names(("AIG", "BTC*"))
    assert [name for name in ("AIG", "AIGX", "BTCUSDT", "BTC*", "BTCU*", "B*", "*") if names.cover(name)] == [
        "AIG",
        "BTCUSDT",
        "BTC*",
        "BTCU*",
    ]
    assert Names(("*",)).cover("*")

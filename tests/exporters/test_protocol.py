"""The numbers of the protocol that do something."""

from exporters.protocol import MAX_INBOUND_PER_S, InboundRate


def test_messages_are_allowed_at_their_rate() -> None:
    rate = InboundRate(0.0)
    assert [rate.allows(0.0) for _ in range(MAX_INBOUND_PER_S + 1)] == [True] * MAX_INBOUND_PER_S + [False]
    assert rate.allows(1 / MAX_INBOUND_PER_S)
    assert not rate.allows(1 / MAX_INBOUND_PER_S)
    assert all(rate.allows(100 + n / MAX_INBOUND_PER_S) for n in range(200))

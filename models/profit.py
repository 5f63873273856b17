"""What a simple trader would have earned who believed the answers: net of half-spreads and fees.

The rule: where a symbol has no open position and the expected return is larger than what a round trip costs as
seen at that moment (the spread, and the fee twice), buy or sell one unit at the touch; close it at the touch at the
end of the horizon, whatever happens. No latency, no market impact, every order filled: an upper bound on what is
there to earn, not a promise. A row without a spread (no quote yet, or locked) is not traded. Where there is no book
at the end (a session that begins with trades), a trade costs what live outcomes then take.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.dataset import by_symbol
from models.overlap import mean_error
from stream.clock import NS_PER_S

_S_PER_HOUR: Final = 3600

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Market:
    """What trading on each of N rows would have met."""

    symbol_row: Integers  # [N] index of the symbol
    event_ns: Integers  # [N] never falling
    end_ns: Integers  # [N] when the horizon ends
    return_bps: Floats  # [N] of the mid until then
    spread_bps: Floats  # [N] at the row; 0 where it is locked, NaN where it is not known
    exit_spread_bps: Floats  # [N] at the end of the horizon, likewise


@dataclass(frozen=True)
class Trades:
    """K trades, in order of their rows."""

    row: Integers  # [K] of the market
    gross_bps: Floats  # [K] mid to mid
    net_bps: Floats  # [K]

    def within(self, rows: NDArray[np.bool_]) -> "Trades":
        """Return those that were opened on some rows, ``bool[N]``."""
        some = rows[self.row]
        return Trades(self.row[some], self.gross_bps[some], self.net_bps[some])


def trade(expected_bps: Floats, market: Market, fee_bps: float, unknown_bps: float) -> Trades:
    """Return the trades of somebody who follows the rule.

    Args:
        expected_bps: ``float64[N]``.
        market: N rows.
        fee_bps: of each of the two orders of a trade.
        unknown_bps: what a trade costs in all where the spread at its end is not known.
    """
    fees_bps = 2.0 * fee_bps
    wanted = (market.spread_bps > 0.0) & (np.abs(expected_bps) > market.spread_bps + fees_bps)
    opened = [
        where[_one_after_another(market.event_ns[where], market.end_ns[where])]
        for where in (group[wanted[group]] for group in by_symbol(market.symbol_row))
    ]
    row = np.sort(np.concatenate([np.zeros(0, np.int64), *opened]))
    gross_bps = np.sign(expected_bps[row]) * market.return_bps[row]
    cost_bps = 0.5 * (market.spread_bps[row] + market.exit_spread_bps[row]) + fees_bps
    return Trades(row, gross_bps, gross_bps - np.where(np.isnan(cost_bps), unknown_bps, cost_bps))


def earnings(trades: Trades, market: Market, rows: NDArray[np.bool_], horizon_ns: int) -> dict[str, float]:
    """Return what the trades on some rows came to.

    Args:
        trades: of the market.
        market: N rows.
        rows: ``bool[N]``: trades that were opened on these count.
        horizon_ns: about how long a position is held.

    Returns:
        ``trades``; ``turnover_per_hour``: units bought and sold in an hour in which there was a market;
        ``gross_bps`` and ``net_bps`` in sum; ``net_bps_per_trade`` and its t-statistic ``net_t``, 0 without trades.
    """
    some = trades.within(rows)
    count = len(some.row)
    # Hours are counted in seconds that had a row, so that nights and halts are none.
    hours = len(np.unique(market.event_ns[rows] // NS_PER_S)) / _S_PER_HOUR
    return {
        "trades": float(count),
        "turnover_per_hour": 2.0 * count / hours if hours else 0.0,
        "gross_bps": float(some.gross_bps.sum()),
        "net_bps": float(some.net_bps.sum()),
        "net_bps_per_trade": float(some.net_bps.mean()) if count else 0.0,
        "net_t": mean_error(some.net_bps, market.event_ns[some.row], horizon_ns).t if count > 1 else 0.0,
    }


def _one_after_another(event_ns: Integers, end_ns: Integers) -> Integers:
    """Return which of the rows are taken by somebody who is busy from each row taken until its end."""
    following = np.searchsorted(event_ns, end_ns, side="left").tolist()
    taken, at = [], 0
    while at < len(following):
        taken.append(at)
        at = max(following[at], at + 1)
    return np.array(taken, np.int64)

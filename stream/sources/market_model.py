"""The simulated market: what it is made of, and its parameters. `market_kernel` produces its ticks.

Each symbol is a self-exciting point process with a small order book; one heap merges the symbols in time.

**Arrivals.** Trades and quotes of a symbol excite further ones: a Hawkes process with the kernel
``jump * exp(-beta * t)``, where a trade excites more than a quote. Inter-arrival times are drawn exactly, without
rejection: the process is the sum of a decaying excited part and a Poisson part, and the next event is the earlier
one of both (Dassios and Zhao).

**Regimes.** The whole market is calm, normal or stressed, with exponential holding times. The regime sets how many
events there are, how volatile prices are, how wide spreads are and how many events are trades. When it changes, the
next event of every symbol is drawn anew from its intensity at that moment, which keeps the process exact.

**Price.** The fair log price is a random walk with a small drift. A latent pressure, an Ornstein-Uhlenbeck process
with unit variance, says who is in a hurry. It tilts the signs of trades and the sizes in the book at once; the
drift follows it with a lag. So order flow and book imbalance foretell returns, weakly, as Cont, Kukanov and Stoikov
find for real markets and as a model can learn. Everything else is noise.

**Book.** Best bid and ask stand on a grid of ticks around the fair price, at least one tick apart, and move when it
leaves them. Sizes revert to a log-normal level. A trade takes from the size at its side; when it takes all, that
side moves away by one tick.

Sources: Hawkes, "Spectra of some self-exciting and mutually exciting point processes", Biometrika 58(1), 1971.
Dassios, Zhao, "Exact simulation of Hawkes process with exponentially decaying intensity", Electronic Communications
in Probability 18, 2013. Cont, Kukanov, Stoikov, "The price impact of order book events", Journal of Financial
Econometrics 12(1), 2014. Steele, Lea, Flood, OOPSLA 2014 (SplitMix64, the random numbers).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Columns of the state of a symbol, float64[S, STATES].
EXCITED, PRESSURE, DRIFT, LOG_PRICE, BID, ASK, LOG_BID_SIZE, LOG_ASK_SIZE = range(8)
STATES: Final = 8
# Columns of the parameters of a symbol, float64[S, PARAMETERS]: events a second, ticks in a unit of price,
# volatility of a second, log of the mean size in the book, of a trade, spread beyond a tick.
RATE, PER_UNIT, SIGMA, LOG_DEPTH, LOG_SIZE, SPREAD = range(6)
PARAMETERS: Final = 6
# Scalars that change, int64: regime, when it ends (ns), ticks so far.
REGIME, REGIME_END_NS, COUNT = range(3)

# Regimes: calm, normal, stressed.
HOLDING_S: Final = (600.0, 900.0, 180.0)
NEXT_REGIME: Final = ((0.0, 1.0, 0.0), (0.6, 0.0, 0.4), (0.2, 0.8, 0.0))
ACTIVITY: Final = (0.5, 1.0, 3.0)
VOLATILITY: Final = (0.6, 1.0, 2.5)
EXTRA_SPREAD: Final = (0.4, 1.0, 3.0)
TRADE_SHARE: Final = (0.15, 0.20, 0.30)

BETA_PER_S: Final = 5.0  # excitement lasts some tenths of a second
TRADE_OFFSPRING: Final = 0.9  # events that one trade causes directly, on average
QUOTE_OFFSPRING: Final = 0.5

PRESSURE_S: Final = 8.0  # how long an imbalance of interest lasts
LAG_S: Final = 2.0  # how far the drift is behind it
DRIFT_SHARE: Final = 0.15  # drift at a pressure of 1, in volatilities of one second
SIGN_TILT: Final = 0.7  # log-odds of a buyer at a pressure of 1
BOOK_TILT: Final = 0.4  # log of bid size at a pressure of 1, and minus log of ask size


def mean_offspring(regime: int) -> float:
    """Return how many events one event causes directly, on average; below 1 in each regime."""
    return TRADE_SHARE[regime] * TRADE_OFFSPRING + (1 - TRADE_SHARE[regime]) * QUOTE_OFFSPRING


def regime_shares() -> Floats:
    """Return the share of time that the market spends in each regime, ``float64[3]``."""
    chain = np.array(NEXT_REGIME)
    visits = np.linalg.lstsq(
        np.vstack([chain.T - np.eye(3), np.ones(3)]), np.array([0.0, 0.0, 0.0, 1.0]), rcond=None
    )[0]
    time_s: Floats = visits * np.array(HOLDING_S)
    shares: Floats = time_s / time_s.sum()
    return shares


def base_rate_factors() -> Floats:
    """Return, per regime, the Poisson rate for a long-run mean rate of 1 over all regimes, ``float64[3]``."""
    activity = np.array(ACTIVITY)
    offspring = np.array([mean_offspring(regime) for regime in range(3)])
    factors: Floats = activity * (1 - offspring) / (regime_shares() @ activity)
    return factors

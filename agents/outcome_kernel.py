"""The compiled loop that joins predictions with what came of them; `agents/outcomes.py` says what it does."""

from typing import Any, Final

import numpy as np

from agents.symbol_table import EMPTY_SLOT, find_slot
from stream.compiled import compiled
from stream.records import FLAG_WARMING, OUTCOME_WARMING

# 100 bytes each: 100 MiB of a partition at the most. A symbol may hold 2,000 ticks/s of a horizon of 2 minutes.
MAX_PENDING: Final = 1 << 20
MAX_PENDING_OF_SYMBOL: Final = 1 << 18
FALLBACK_HORIZONS: Final = 60.0
# The frequencies of all cases count as so many horizons of each case, and one third as so many horizons of all.
# Horizons and not outcomes: a thousand outcomes of one horizon tell the same.
_SHRINK_CASE: Final = 5.0
SHRINK_ALL: Final = 3.0

NEVER_NS: Final = -(1 << 62)
NONE: Final = -1
_INDEX_BITS: Final = 16  # a block holds less than 2**16 records, an offset stays below 2**47
_BPS: Final = 1e4
_LEAST_PROBABILITY: Final = 1e-7
# Counts of outcomes by case (the outcome before) and class, 3 x 3; horizons of each case; the case that comes next.
HORIZONS: Final = 9
CASE: Final = 12
_NO_CASE: Final = 3  # of a prediction that came again after a restart: what was known then is not known any more
COUNT_COLUMNS: Final = CASE + 1

SYMBOL: Final = np.dtype(
    [
        ("newest_ns", "<i8"),
        ("ref_price", "<f8"),
        ("spread_bps", "<f8"),
        ("seq", "<u8"),
        ("position", "<i8"),  # of the tick: it rises also where the engine numbers anew
        ("first", "<i8"),  # of its books
    ]
)
# One symbol and model, and its predictions that wait: a chain from the oldest to the newest.
BOOK: Final = np.dtype(
    [
        ("symbol_row", "<i8"),
        ("next", "<i8"),  # book of the same symbol
        ("model", "<i8"),
        ("head", "<i8"),
        ("tail", "<i8"),
        ("pending", "<i8"),
        ("settled_position", "<i8"),  # of the last prediction whose outcome was given, or given up
        ("known_position", "<i8"),  # after a restart: the fallback says nothing on predictions up to here
        ("last_position", "<i8"),
        ("from_ns", "<i8"),  # of the last prediction; after a restart, least of those to come
        ("counted_ns", "<i8"),  # when the fallback's counts faded last
    ]
)
PENDING: Final = np.dtype(
    [
        ("next", "<i8"),
        ("seq", "<u8"),
        ("event_ns", "<i8"),
        ("from_ns", "<i8"),
        ("horizon_ns", "<i8"),
        ("ref_price", "<f8"),
        ("position", "<i8"),
        ("offset", "<i8"),  # of its block of predictions
        ("p_down", "<f4"),
        ("p_flat", "<f4"),
        ("p_up", "<f4"),
        ("expected_return_bps", "<f4"),
        ("spread_bps", "<f4"),
        ("fallback_down", "<f4"),
        ("fallback_flat", "<f4"),
        ("fallback_up", "<f4"),
        ("case", "<u2"),
        ("flags", "<u2"),
    ]
)

TALLIES: Final = ("settled", "pended", "duplicates", "unknown_model", "overflowed", "abandoned", "settled_before")
_SETTLED, _PENDED, _DUPLICATES, _UNKNOWN, _OVERFLOWED, ABANDONED, _BEFORE = range(len(TALLIES))
# Scalars that the kernel keeps.
SYMBOLS, BOOKS, FREE, USED, CLOCK = range(5)


def wider(rows: Any, least: int) -> Any:
    """Return a copy of an array with room for ``least`` rows, and for twice as many as before."""
    wide = np.zeros((max(2 * len(rows), least), *rows.shape[1:]), rows.dtype)
    wide[: len(rows)] = rows
    return wide


@compiled
def take_predictions(
    rows: Any,
    words: Any,
    offsets: Any,
    start: int,
    tables: Any,
    scalars: Any,
    tallies: Any,
    model_ids: Any,
    dead_bands_bps: Any,
    out: Any,
    room: int,
) -> Any:
    """Take rows from ``start`` on until ``out`` is full; return where to go on, and how many outcomes there are."""
    keys, slots, symbols, books, counts, pending = tables
    count = 0
    for at in range(start, len(rows)):
        row = rows[at]
        symbol_row = symbol_row_of(words[at], keys, slots, symbols, scalars)
        symbol = symbols[symbol_row]
        position = (row.source_offset << _INDEX_BITS) + row.source_index
        if row.seq <= symbol.seq:
            if position <= symbol.position:
                tallies[_DUPLICATES] += 1
                continue
            # The engine lost its state and numbers anew: what waits will never be told.
            tallies[ABANDONED] += _abandon(symbol, books, pending, scalars)
        model = _model_row(row.model_id, model_ids)
        book_row = _find_book(symbol, model, books)
        from_ns = max(symbol.newest_ns, row.event_ns)
        if book_row >= 0 and position > books[book_row].settled_position:
            from_ns = max(from_ns, books[book_row].from_ns)
        # With `out` full the same row is taken up again, and goes on with what is still due.
        other = symbol.first
        while other >= 0:
            count = _settle(
                other,
                from_ns,
                row,
                symbol,
                books,
                counts,
                pending,
                scalars,
                dead_bands_bps,
                model_ids,
                out,
                count,
            )
            other = books[other].next
        if count == len(out):
            tallies[_SETTLED] += count
            return at, count
        symbol.newest_ns, symbol.seq, symbol.position = from_ns, row.seq, position
        symbol.ref_price, symbol.spread_bps = row.ref_price, row.spread_bps
        scalars[CLOCK] = max(scalars[CLOCK], from_ns)
        if model < 0:
            tallies[_UNKNOWN] += 1
            continue
        if book_row < 0:
            book_row = add_book(symbol_row, model, symbols, books, scalars)
        if position <= books[book_row].settled_position:
            tallies[_BEFORE] += 1
            continue
        pended = _pend(
            row, from_ns, position, offsets[at], books[book_row], counts[book_row], pending, scalars, room
        )
        tallies[_PENDED if pended else _OVERFLOWED] += 1
    tallies[_SETTLED] += count
    return len(rows), count


@compiled
def symbol_row_of(words: Any, keys: Any, slots: Any, symbols: Any, scalars: Any) -> Any:
    slot = find_slot(words, keys, slots)
    row = slots[slot]
    if row == EMPTY_SLOT:
        row = scalars[SYMBOLS]
        scalars[SYMBOLS] += 1
        slots[slot] = row
        keys[row, 0], keys[row, 1], keys[row, 2] = words[0], words[1], words[2]
        symbols[row].newest_ns, symbols[row].position, symbols[row].first = NEVER_NS, -1, NONE
    return np.int64(row)


@compiled
def _model_row(model_id: Any, model_ids: Any) -> Any:
    for row in range(len(model_ids)):
        if model_ids[row] == model_id:
            return row
    return NONE


@compiled
def _find_book(symbol: Any, model: int, books: Any) -> Any:
    row = symbol.first
    while row >= 0 and books[row].model != model:
        row = books[row].next
    return row


@compiled
def add_book(symbol_row: int, model: int, symbols: Any, books: Any, scalars: Any) -> Any:
    row = scalars[BOOKS]
    scalars[BOOKS] += 1
    book = books[row]
    book.symbol_row, book.model, book.next = symbol_row, model, symbols[symbol_row].first
    book.head = book.tail = NONE
    book.settled_position = book.known_position = book.last_position = -1
    book.from_ns = book.counted_ns = NEVER_NS
    symbols[symbol_row].first = row
    return row


@compiled
def _pend(
    row: Any,
    from_ns: int,
    position: int,
    offset: int,
    book: Any,
    counts: Any,
    pending: Any,
    scalars: Any,
    room: int,
) -> bool:
    """Put a prediction behind the last one of its book; return False where there is no room."""
    place = scalars[FREE]
    if place >= 0:
        scalars[FREE] = pending[place].next
    elif scalars[USED] < len(pending):
        place = scalars[USED]
        scalars[USED] += 1
    if place < 0 or book.pending >= min(room, MAX_PENDING_OF_SYMBOL):
        if place >= 0:
            _free(place, pending, scalars)
        return False
    entry = pending[place]
    entry.next = NONE
    entry.seq, entry.event_ns, entry.from_ns, entry.horizon_ns = row.seq, row.event_ns, from_ns, row.horizon_ns
    entry.ref_price, entry.position, entry.offset = row.ref_price, position, offset
    entry.p_down, entry.p_flat, entry.p_up = row.p_down, row.p_flat, row.p_up
    entry.expected_return_bps, entry.spread_bps = row.expected_return_bps, row.spread_bps
    entry.flags = OUTCOME_WARMING if row.flags & FLAG_WARMING else 0
    entry.case = int(counts[CASE])
    if position <= book.known_position:
        entry.case = _NO_CASE
        entry.fallback_down = entry.fallback_flat = entry.fallback_up = np.nan
    else:
        _ask_fallback(entry, counts)
    if book.tail >= 0:
        pending[book.tail].next = place
    else:
        book.head = place
    book.tail = place
    book.pending += 1
    book.last_position, book.from_ns = position, from_ns
    return True


@compiled
def _ask_fallback(entry: Any, counts: Any) -> None:
    case = int(counts[CASE])
    of_case, of_all = counts[3 * case : 3 * case + 3], counts[0:3] + counts[3:6] + counts[6:9]
    horizons = counts[HORIZONS : HORIZONS + 3]
    share = _shrunk(of_all, horizons.sum(), np.full(3, 1.0 / 3.0), SHRINK_ALL)
    share = _shrunk(of_case, horizons[case], share, _SHRINK_CASE)
    entry.fallback_down, entry.fallback_flat, entry.fallback_up = share[0], share[1], share[2]


@compiled
def _shrunk(counts: Any, horizons: float, prior: Any, weight: float) -> Any:
    total = counts.sum()
    if total <= 0.0:
        return prior
    return (horizons * counts / total + weight * prior) / (horizons + weight)


@compiled
def _free(place: int, pending: Any, scalars: Any) -> None:
    pending[place].next = scalars[FREE]
    scalars[FREE] = place


@compiled
def _drop_head(book: Any, pending: Any, scalars: Any) -> None:
    place = book.head
    book.head = pending[place].next
    if book.head < 0:
        book.tail = NONE
    book.pending -= 1
    book.settled_position = pending[place].position
    _free(place, pending, scalars)


@compiled
def _abandon(symbol: Any, books: Any, pending: Any, scalars: Any) -> Any:
    dropped = 0
    row = symbol.first
    while row >= 0:
        while books[row].head >= 0:
            _drop_head(books[row], pending, scalars)
            dropped += 1
        books[row].from_ns = NEVER_NS
        row = books[row].next
    symbol.newest_ns = NEVER_NS
    return dropped


@compiled
def give_up(before_ns: int, books: Any, pending: Any, scalars: Any) -> Any:
    dropped = 0
    for row in range(scalars[BOOKS]):
        book = books[row]
        while book.head >= 0 and pending[book.head].from_ns + pending[book.head].horizon_ns < before_ns:
            _drop_head(book, pending, scalars)
            dropped += 1
    return dropped


@compiled
def _settle(
    row: int,
    now_ns: int,
    teller: Any,
    symbol: Any,
    books: Any,
    counts: Any,
    pending: Any,
    scalars: Any,
    dead_bands_bps: Any,
    model_ids: Any,
    out: Any,
    count: int,
) -> Any:
    """Write the outcomes of one book that are due before ``now_ns``; return how many there are in ``out`` then.

    ``symbol`` is as the last prediction before ``teller`` left it. The cost is that of the spreads alone, NaN where
    one is not known.
    """
    book, later_price = books[row], symbol.ref_price
    while count < len(out) and book.head >= 0:
        entry = pending[book.head]
        if entry.from_ns + entry.horizon_ns >= now_ns:
            break
        change_bps = (later_price / entry.ref_price - 1.0) * _BPS
        band_bps = dead_bands_bps[book.model]
        realised = 1 + (1 if change_bps > band_bps else 0) - (1 if change_bps < -band_bps else 0)
        _write(out[count], entry, teller.symbol, later_price, change_bps, realised)
        out[count].model_id, out[count].resolved_ns = model_ids[book.model], now_ns
        out[count].cost_bps = 0.5 * (np.float64(entry.spread_bps) + symbol.spread_bps)
        count += 1
        _count_outcome(counts[row], book, entry.case, realised, now_ns, entry.horizon_ns)
        _drop_head(book, pending, scalars)
    return count


@compiled
def _write(outcome: Any, entry: Any, name: Any, later_price: float, change_bps: float, realised: int) -> None:
    outcome.symbol = name
    outcome.seq, outcome.event_ns, outcome.from_ns = entry.seq, entry.event_ns, entry.from_ns
    outcome.horizon_ns, outcome.ref_price, outcome.later_price = entry.horizon_ns, entry.ref_price, later_price
    outcome.return_bps, outcome.expected_return_bps = change_bps, entry.expected_return_bps
    outcome.p_down, outcome.p_flat, outcome.p_up = entry.p_down, entry.p_flat, entry.p_up
    outcome.fallback_down, outcome.fallback_flat = entry.fallback_down, entry.fallback_flat
    outcome.fallback_up = entry.fallback_up
    outcome.realised, outcome.flags = realised, entry.flags
    given, fallback = entry.p_flat, entry.fallback_flat
    if realised == 0:
        given, fallback = entry.p_down, entry.fallback_down
    elif realised == 2:
        given, fallback = entry.p_up, entry.fallback_up
    down, flat, up = np.float64(entry.p_down), np.float64(entry.p_flat), np.float64(entry.p_up)
    outcome.log_loss = -np.log(max(np.float64(given), _LEAST_PROBABILITY))
    outcome.fallback_log_loss = -np.log(np.float64(fallback))
    outcome.brier = (down - (realised == 0)) ** 2 + (flat - (realised == 1)) ** 2 + (up - (realised == 2)) ** 2


@compiled
def _count_outcome(counts: Any, book: Any, case: int, realised: int, now_ns: int, horizon_ns: int) -> None:
    passed = 1.0
    if book.counted_ns != NEVER_NS:
        passed = (now_ns - book.counted_ns) / horizon_ns
        fade = np.exp(-passed / FALLBACK_HORIZONS)
        for column in range(CASE):
            counts[column] *= fade
    book.counted_ns = now_ns
    if case != _NO_CASE:
        counts[3 * case + realised] += 1.0
        counts[HORIZONS + case] += min(passed, 1.0)
    counts[CASE] = realised

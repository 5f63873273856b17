"""Which rows a model learns from, which choose its best epoch, and which it is judged by.

Three spans of event time follow one another: training, validation, test. A label looks ahead, so the last labels of
a span tell what happened in the next one. They are *purged*: a label counts only where it ends before the next span
starts, and the *embargo* asks for a distance on top of that, because what happens a minute after the training span
looks much like its end. Nothing is drawn at random: neighbouring rows share most of their future.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.dataset import HistoryRows, Labels
from stream.clock import NS_PER_S
from stream.errors import ModelError

_DAY_NS: Final = 86_400 * NS_PER_S
_FEWEST_ROWS: Final = 2_000  # below this a test span tells nothing

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """Rows whose labels count, ``bool[A]`` each, and the moments between the spans, in ns of event time.

    The spans are [from_ns, validation_ns), [validation_ns, test_ns) and [test_ns, to_ns). They also hold rows whose
    labels do not count: those still build a model's state up.
    """

    train: Flags
    validation: Flags
    test: Flags
    from_ns: int
    validation_ns: int
    test_ns: int
    to_ns: int


def split_at(
    rows: HistoryRows,
    labels: Labels,
    from_ns: int,
    validation_ns: int,
    test_ns: int,
    to_ns: int,
    embargo_ns: int = 0,
) -> Split:
    """Split a recording at given moments of event time.

    Args:
        rows: A rows.
        labels: of them.
        from_ns: start of the training span.
        validation_ns: its end.
        test_ns: end of the validation span.
        to_ns: end of the test span; its labels end before it, too.
        embargo_ns: a label of training ends at least this long before the validation span, one of validation this
            long before the test span.

    Raises:
        ModelError: a span has no label that counts.
    """

    def counting(start_ns: int, end_ns: int, distance_ns: int) -> Flags:
        inside = (rows.event_ns >= start_ns) & (rows.event_ns < end_ns) & labels.known
        # Subtracted here: the end of a label that is not known is the largest number there is.
        return inside & (labels.end_ns < end_ns - distance_ns)

    split = Split(
        train=counting(from_ns, validation_ns, embargo_ns),
        validation=counting(validation_ns, test_ns, embargo_ns),
        test=counting(test_ns, to_ns, 0),
        from_ns=from_ns,
        validation_ns=validation_ns,
        test_ns=test_ns,
        to_ns=to_ns,
    )
    for name, start_ns, end_ns in (
        ("train", from_ns, validation_ns),
        ("validation", validation_ns, test_ns),
        ("test", test_ns, to_ns),
    ):
        if not getattr(split, name).any():
            inside = int(((rows.event_ns >= start_ns) & (rows.event_ns < end_ns)).sum())
            raise ModelError(
                f"no label counts in the span {name} of {(end_ns - start_ns) / NS_PER_S:.1f} s and {inside} rows; "
                f"right would be a longer recording, a shorter horizon, or less embargo than "
                f"{embargo_ns / NS_PER_S:g} s"
            )
    return split


def by_shares(
    rows: HistoryRows, labels: Labels, validation_share: float, test_share: float, embargo_ns: int = 0
) -> Split:
    """Split a recording such that the spans have their shares of the rows; training gets what is left.

    By rows and not by hours: a recorded day may end with hours in which next to nothing trades.

    Raises:
        ModelError: too few rows, or a span has no label that counts.
    """
    if len(rows.event_ns) < _FEWEST_ROWS:
        raise ModelError(f"{len(rows.event_ns)} accepted ticks to train on; right would be {_FEWEST_ROWS} or more")
    in_time = np.sort(rows.event_ns)
    test_ns = int(in_time[-int(test_share * len(in_time))])
    validation_ns = int(in_time[-int((test_share + validation_share) * len(in_time))])
    return split_at(
        rows, labels, int(in_time[0]), validation_ns, test_ns, int(in_time[-1]) + 1, embargo_ns=embargo_ns
    )


def walk_forward(
    rows: HistoryRows,
    labels: Labels,
    validation_share: float = 0.15,
    embargo_ns: int = 0,
    fewest_labels: int = _FEWEST_ROWS,
) -> tuple[Split, ...]:
    """Return a split for each UTC day that can be judged: it learns from the days before, and is tested on the day.

    Args:
        rows: A rows.
        labels: of them.
        validation_share: of the rows before the day: the last of them choose the best epoch.
        embargo_ns: see `split_at`.
        fewest_labels: a day with fewer labels that end on it is not judged, nor the first to learn from.

    Raises:
        ModelError: fewer than two days have enough labels.
    """
    day = rows.event_ns // _DAY_NS
    same_day = labels.known & (labels.end_ns // _DAY_NS == day)
    numbers, counts = np.unique(day[same_day], return_counts=True)
    days = [int(number) for number, count in zip(numbers, counts, strict=True) if count >= fewest_labels]
    if len(days) < 2:
        seen = ", ".join(f"{np.datetime64(int(n), 'D')}: {c}" for n, c in zip(numbers, counts, strict=True))
        raise ModelError(
            f"{len(days)} UTC days with {fewest_labels} labels or more (seen: {seen or 'none'}); right would be "
            "two or more, to learn from one and to be judged by the next"
        )
    in_time = np.sort(rows.event_ns)
    splits = []
    for judged in days[1:]:
        before = in_time[(in_time >= days[0] * _DAY_NS) & (in_time < judged * _DAY_NS)]
        validation_ns = int(before[-max(1, int(validation_share * len(before)))])
        splits.append(
            split_at(
                rows,
                labels,
                int(before[0]),
                validation_ns,
                judged * _DAY_NS,
                (judged + 1) * _DAY_NS,
                embargo_ns=embargo_ns,
            )
        )
    return tuple(splits)

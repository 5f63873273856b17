"""The table of codecs is of the columns that the tables have, with the codecs that they have."""

from bench.codecs import told


def test_the_best_of_the_others_is_told_beside_the_codec_of_a_column() -> None:
    of = {
        "ZSTD(1)": {"bytes": 0.5, "read_ns": 1.0},
        "Delta, ZSTD(1)": {"bytes": 0.75, "read_ns": 2.0},
        "LZ4": {"bytes": 1.5, "read_ns": 0.5},
    }
    lines = told([{"table": "ticks", "column": "rank", "codec": "Delta, ZSTD(1)", "of": of}]).splitlines()
    assert lines[2:] == ["| `ticks.rank` | Delta, ZSTD(1) | 0.75 | 2.0 | ZSTD(1) | 0.50 | 1.0 |"]
    [line] = told([{"table": "ticks", "column": "rank", "codec": "ZSTD(1)", "of": of}]).splitlines()[2:]
    assert line == "| `ticks.rank` | ZSTD(1) | 0.50 | 1.0 | Delta, ZSTD(1) | 0.75 | 2.0 |"

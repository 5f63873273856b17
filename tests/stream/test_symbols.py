"""The symbols to accept: from a list or a file, and what is neither is refused."""

from pathlib import Path

import pytest

from stream.errors import SettingsError
from stream.symbols import read_symbols


def test_symbols_come_from_the_setting_or_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("AIG\n\nBRK.B \n")
    for setting in ("AIG,BRK.B", "AIG, BRK.B,", f"@{path}"):
        symbols = read_symbols(setting)
        assert symbols is not None
        assert symbols.tolist() == [b"AIG", b"BRK.B"]
    assert read_symbols(None) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (",", "names none"),
        ("@/nowhere", "cannot read the file"),
        ("A,B C", "not 'B C'"),
        ("A" * 25, "1 to 24"),
        ("ÄIG", "not 'ÄIG'"),
    ],
)
def test_what_names_no_symbol_is_refused(setting: str, said: str) -> None:
    with pytest.raises(SettingsError, match="'symbols'") as caught:
        read_symbols(setting)
    assert said in str(caught.value)


def test_an_empty_file_does_not_mean_any_symbol(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("\n")
    with pytest.raises(SettingsError, match="names none"):
        read_symbols(f"@{path}")

import copy
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from models.model_card_page import page

VOID = {"meta", "br"}


class _Reader(HTMLParser):
    """Checks that what is opened is closed, and gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_asks_nobody_else(make_card: Callable[..., Any]) -> None:
    text = page(make_card())
    seen = read(text).seen
    assert "script" not in seen
    assert not re.search(r"https?:|@import|url\(|src=|href=", text)
    assert seen["svg"] == 6
    assert seen["table"] == 4  # all rows, two symbols, regimes


def test_what_the_model_does_not_beat_comes_before_the_table(make_card: Callable[..., Any]) -> None:
    card = make_card(share=0.2)
    text = read(page(card)).text
    assert card["verdicts"]
    for each in card["verdicts"]:
        assert each["words"] in text
        assert text.index(each["words"]) < text.index("Beside the baselines")
    assert "lstm is worse than logistic" in text


def test_a_model_that_wins_everywhere_is_said_to(make_card: Callable[..., Any]) -> None:
    text = read(page(make_card(share=0.6))).text
    assert "Nowhere here" in text


def test_numbers_in_the_table_are_those_of_the_card(make_card: Callable[..., Any]) -> None:
    card = make_card()
    text = read(page(card)).text
    for entry in card["forecasters"]:
        assert f"{entry['scores'][0]['mean']['log_loss']:.4f}" in text
    deviation = card["forecasters"][2]["scores"][0]["deviation"]["mcc"]
    assert f"±{deviation:.4f}" in text
    difference = next(each for each in card["comparisons"] if each["against"] == "majority")
    assert f"{difference['mean_difference']:+.4f}".replace("-", "−") in text


def test_names_are_text_and_never_markup(make_card: Callable[..., Any]) -> None:
    text = page(make_card(name="<b onload='x'>"))
    assert "<b onload" not in text
    assert "<b onload='x'>" in read(text).text


@pytest.mark.parametrize("symbols", [1, 40])
def test_one_symbol_is_not_shown_twice_and_many_are_folded_away(
    make_card: Callable[..., Any], symbols: int
) -> None:
    text = page(make_card(symbols=symbols))
    read(text)
    assert text.count("<details open>") == (0 if symbols == 1 else 3)


def test_a_card_without_hours_and_regimes_is_a_page_still(make_card: Callable[..., Any]) -> None:
    card = copy.deepcopy(make_card())
    card["slices"] = card["slices"][:1]
    for entry in card["forecasters"]:
        entry["scores"] = entry["scores"][:1]
    assert read(page(card)).seen["svg"] == 6

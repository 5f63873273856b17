import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from models.model_card_table import tables


def test_the_terminal_shows_every_forecaster_with_spread_and_test(make_card: Callable[..., Any]) -> None:
    card = make_card()
    console = Console(width=250, file=io.StringIO(), record=True)
    found = list(tables(card))
    for each in found:
        console.print(each)
    text = console.export_text()
    assert [str(each.title) for each in found] == ["all judged rows", "SYM0", "SYM1"]
    for entry in card["forecasters"]:
        assert f"{entry['scores'][0]['mean']['log_loss']:.4f}" in text
    assert f"±{card['forecasters'][2]['scores'][0]['deviation']['log_loss']:.4f}" in text
    assert f"{card['comparisons'][0]['mean_difference']:+.4f}" in text

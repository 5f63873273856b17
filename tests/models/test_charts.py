import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.charts import Axis, Series, dot_chart, line_chart


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("text")]  # noqa: S314


def places(svg: str) -> list[tuple[float, float]]:
    points = re.search(r'points="([^"]+)"', svg)
    assert points is not None
    return [tuple(map(float, pair.split(","))) for pair in points.group(1).split()]  # type: ignore[misc]


def test_points_are_where_their_values_say() -> None:
    svg = line_chart(
        [Series("a", "c0", [0.0, 5.0, 10.0], [1.0, 3.0, 2.0])],
        Axis("x", low=0.0, high=10.0),
        Axis("y", low=1.0, high=3.0),
    )
    (x0, y0), (x1, y1), (x2, y2) = places(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y2 > y1  # up is up
    assert y0 - y2 == pytest.approx(y2 - y1, abs=0.2)


def test_ticks_are_round_and_within_the_range() -> None:
    svg = line_chart([Series("a", "c0", [0.0, 1.0], [-0.13, 0.32])], Axis("x"), Axis("y"))
    beside_y = [each.text for each in ElementTree.fromstring(svg).iter("text") if each.get("text-anchor") == "end"]  # noqa: S314
    assert beside_y == ["-0.1", "0.0", "0.1", "0.2", "0.3"]


def test_names_are_text_and_never_markup() -> None:
    svg = dot_chart([("<script>&", "c0", [1.0])], Axis('"loss"'))
    assert "<script>" not in svg
    assert "<script>&" in texts(svg)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_any_values_make_a_chart_within_its_frame(values: list[float]) -> None:
    x = [float(place) for place in range(len(values))]
    series: Any = [Series("a", "c0", x, values, points=True)]
    root = ElementTree.fromstring(line_chart(series, Axis("x"), Axis("y")))  # noqa: S314
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    circles = list(root.iter("circle"))
    assert len(circles) == len(values)
    for each in circles:
        assert 0.0 <= float(each.attrib["cx"]) <= width
        assert 0.0 <= float(each.attrib["cy"]) <= height

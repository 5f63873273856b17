"""The tree of errors: policy is data on the class, and the tree that is drawn is the tree that is."""

import inspect
import re

import pytest

from stream import errors
from stream.errors import TickloomError

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, TickloomError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    parents: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)\b", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        del parents[depth:]
        drawn[found[2]] = parents[-1] if parents else None
        parents.append(found[2])
    assert drawn == {cls.__name__: None if cls is TickloomError else cls.__base__.__name__ for cls in ALL}


def test_the_exit_codes_in_the_docstring_are_those_of_the_classes() -> None:
    told = {name: int(code) for name, code in re.findall(r"(\w+Error) .*\(exit code (\d+)\)", errors.__doc__ or "")}
    own = {cls.__name__: cls.exit_code for cls in ALL if "exit_code" in vars(cls) and cls is not TickloomError}
    assert told == own
    assert all(1 <= cls.exit_code <= 125 for cls in ALL)


def test_exactly_what_may_succeed_later_is_retriable() -> None:
    assert [cls.__name__ for cls in ALL if cls.retriable] == ["SinkUnavailable"]
    assert "(retriable)" in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", ALL)
def test_an_error_keeps_its_words(cls: type[TickloomError]) -> None:
    with pytest.raises(TickloomError, match="seen 3, right would be 4"):
        raise cls("seen 3, right would be 4")

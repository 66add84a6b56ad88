"""Workers take the longest files first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import longest_first

TESTS = Path(longest_first.__file__).parents[1]


@pytest.mark.parametrize("file", longest_first.LONGEST)
def test_each_file_that_goes_first_is_there(file: str) -> None:
    assert (TESTS / file).is_file()


def test_the_longest_go_in_their_order_and_the_short_ones_of_the_unit_tests_at_the_end() -> None:
    first, second, *_ = longest_first.LONGEST
    others = ["unit/test_house.py", "integration/test_top.py", second, "contract/test_store.py", first]
    assert sorted(others, key=longest_first.turn) == [
        first, second, "integration/test_top.py", "contract/test_store.py", "unit/test_house.py"
    ]  # fmt: skip

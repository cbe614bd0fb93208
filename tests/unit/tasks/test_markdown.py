"""Markdown pieces: text of any kind stays inside its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.markdown import fenced, inline, table


@given(text=st.text(alphabet=st.sampled_from("`a\n\x00\t|"), max_size=40))
def test_fence_is_not_ended_by_the_text(text: str) -> None:
    first, *body, last = fenced(text).split("\n")
    assert first == f"{last}text"
    assert set(last) == {"`"}
    assert all(last not in line for line in body)
    assert "\x00" not in "".join(body)


@pytest.mark.parametrize("text", ["a|b", "two\nlines", "<script>", "`code`", "[x](y)"])
def test_inline_text_keeps_a_table_row_whole(text: str) -> None:
    row = table([{"name": text, "bytes": 1234567}]).splitlines()[2]
    assert row.endswith(" | 1,234,567 |")
    assert row.replace("\\|", "").count("|") == 3
    assert "\n" not in inline(text)


def test_table_without_rows_says_so() -> None:
    assert table([]) == "(none)"


def test_numbers_are_set_to_the_right_and_rounded() -> None:
    rows = [{"subset": "code", "bits": 1.0}, {"subset": "all", "bits": 2.34567}]
    assert table(rows).splitlines() == [
        "| subset | bits |",
        "| --- | ---: |",
        "| code | 1.0000 |",
        "| all | 2.3457 |",
    ]

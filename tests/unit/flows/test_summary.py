import pytest

from flows.summary import describe
from flows.tables import counted, size, text_table


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(0, "files", "0 files"), (1, "damaged files", "1 damaged file"), (2000, "files", "2,000 files")],
)
def test_counted_agrees_in_number(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


def test_describe_shows_the_main_counts_in_their_order() -> None:
    counts = {"dropped": 3, "text_bytes": 1500, "documents": 1, "documents.prose": 1}
    assert describe(counts) == "1 document, 1.5 kB of text, 3 dropped"


@pytest.mark.parametrize(
    ("count", "said"), [(999, "999 B"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (7e15, "7000.0 TB")]
)
def test_size_is_in_powers_of_ten(count: float, said: str) -> None:
    assert size(count) == said


def test_text_table_aligns_numbers_to_the_right_and_keeps_rows_on_one_line() -> None:
    rows = [{"name": "a", "n": 5}, {"name": "two\nlines", "n": 1000}]
    assert text_table(rows).split("\n") == ["name           n", "a              5", "two lines  1,000"]
    assert text_table([]) == "(none)"

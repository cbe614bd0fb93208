from flows.summary import describe
from flows.tables import text_table


def test_describe_shows_the_main_counts_in_their_order() -> None:
    counts = {"dropped": 3, "text_bytes": 1500, "documents": 1, "documents.prose": 1}
    assert describe(counts) == "1 document, 1.5 kB of text, 3 dropped"


def test_text_table_aligns_numbers_to_the_right_and_keeps_rows_on_one_line() -> None:
    rows = [{"name": "a", "n": 5}, {"name": "two\nlines", "n": 1000}]
    assert text_table(rows).split("\n") == ["name           n", "a              5", "two lines  1,000"]
    assert text_table([]) == "(none)"

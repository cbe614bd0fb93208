import pytest

from tasks.labels.field import FIELD_OF_SUBSET, FIELDS, field_label

# The names in The Pile, in the order of table 1 of arXiv:2101.00027.
SUBSETS = """Pile-CC,PubMed Central,Books3,OpenWebText2,ArXiv,Github,FreeLaw,StackExchange,USPTO Backgrounds,
PubMed Abstracts,Gutenberg (PG-19),OpenSubtitles,Wikipedia (en),DM Mathematics,Ubuntu IRC,BookCorpus2,EuroParl,
HackerNews,YoutubeSubtitles,PhilPapers,NIH ExPorter,Enron Emails"""


def test_field_labels_know_every_collection_of_the_pile() -> None:
    assert set(FIELD_OF_SUBSET) == {name.strip() for name in SUBSETS.split(",")}
    assert set(FIELD_OF_SUBSET.values()) == {*FIELDS, None}
    assert len(FIELDS) == 12


@pytest.mark.parametrize(
    ("subset", "label"),
    [
        ("NIH ExPorter", 0),
        ("ArXiv", 1),
        ("DM Mathematics", 2),
        ("HackerNews", 3),
        ("FreeLaw", 4),
        ("Enron Emails", 11),
    ],
)
def test_field_label_is_the_number_of_the_field(subset: str, label: int) -> None:
    assert field_label(subset, {}) == label


@pytest.mark.parametrize("subset", ["Pile-CC", "OpenWebText2", "arxiv", "", "Russian Novels"])
def test_field_label_of_web_text_and_of_unknown_collections_is_none(subset: str) -> None:
    assert field_label(subset, {}) is None


def test_field_label_is_refined_by_the_recipe() -> None:
    refined = {"Books3": None, "Russian Novels": "literature", "ArXiv": "philosophy"}
    assert field_label("Books3", refined) is None
    assert field_label("Russian Novels", refined) == FIELDS.index("literature")
    assert field_label("ArXiv", refined) == FIELDS.index("philosophy")
    assert field_label("FreeLaw", refined) == FIELDS.index("law")

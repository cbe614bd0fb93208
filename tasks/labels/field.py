"""Field labels: which of 12 fields of knowledge a document belongs to, told from its collection in The Pile.

The label is the source and not the content: a head that learns it may go by formats (LaTeX, citations, mail
headers). StackExchange, HackerNews and Books3 are mixed; a recipe refines or withdraws any of it with `field_map`.
"""

from collections.abc import Mapping
from typing import Literal, get_args

FieldName = Literal[
    "biomedicine",
    "physics_maths_cs_papers",
    "mathematics_exercises",
    "software",
    "law",
    "engineering_patents",
    "philosophy",
    "literature",
    "politics",
    "encyclopaedic",
    "screen_speech",
    "business_mail",
]

FIELDS: tuple[FieldName, ...] = get_args(FieldName)
"""The classes of the field head, in the order of their numbers."""

FIELD_OF_SUBSET: Mapping[str, FieldName | None] = {
    "PubMed Central": "biomedicine",
    "PubMed Abstracts": "biomedicine",
    "NIH ExPorter": "biomedicine",
    "ArXiv": "physics_maths_cs_papers",
    "DM Mathematics": "mathematics_exercises",
    "Github": "software",
    "Ubuntu IRC": "software",
    "StackExchange": "software",
    "HackerNews": "software",
    "FreeLaw": "law",
    "USPTO Backgrounds": "engineering_patents",
    "PhilPapers": "philosophy",
    "Gutenberg (PG-19)": "literature",
    "Books3": "literature",
    "BookCorpus2": "literature",
    "EuroParl": "politics",
    "Wikipedia (en)": "encyclopaedic",
    "OpenSubtitles": "screen_speech",
    "YoutubeSubtitles": "screen_speech",
    "Enron Emails": "business_mail",
    "Pile-CC": None,
    "OpenWebText2": None,
}
"""The 22 collections, by the exact names in `meta.pile_set_name`; the two web crawls belong to no field.

Source: Gao et al., The Pile, arXiv:2101.00027, table 1."""


def field_label(subset: str, field_map: Mapping[str, FieldName | None]) -> int | None:
    """Return the number of a collection's field in FIELDS, or None if it has none or is not known.

    `field_map` goes before FIELD_OF_SUBSET.
    """
    field = field_map[subset] if subset in field_map else FIELD_OF_SUBSET.get(subset)
    return None if field is None else FIELDS.index(field)

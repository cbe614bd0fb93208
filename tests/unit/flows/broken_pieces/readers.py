"""Readers that are none."""

from storage.sources.readers.jsonl import JsonLinesReader

nothing = None


class SameSuffix(JsonLinesReader):
    name = "same-suffix"


class SuffixText(JsonLinesReader):
    name = "suffix-text"
    suffixes = ".csv"  # type: ignore[assignment]


class VersionText(JsonLinesReader):
    name = "version-text"
    version = "1"  # type: ignore[assignment]


class OtherName(JsonLinesReader):
    suffixes = (".csv",)

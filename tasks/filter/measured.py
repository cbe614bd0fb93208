"""A sample of what rules measure, of kept and of dropped documents, so that one sees what their bounds part."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.filter.rules.base import Measure, Rule
from tasks.filter.rules.view import DocumentView

MOST_DOCUMENTS = 2000
"""Of a corpus, spread over its shards; a picture shows no more, and part records hold the numbers."""
MOST_OF_SHARD = 100
STEP = 40
"""Every so manieth document of a shard is measured: what that costs is below 2 % of the filter's time."""


def shares(shards: Sequence[str]) -> dict[str, int]:
    """Return how many documents of each shard are measured at most, whoever filters it."""
    ends = [place * MOST_DOCUMENTS // max(1, len(shards)) for place in range(len(shards) + 1)]
    return {
        shard: min(end - begin, MOST_OF_SHARD)
        for shard, begin, end in zip(shards, ends[:-1], ends[1:], strict=True)
    }


def is_measured(index: int, share: int) -> bool:
    """Return whether the document at this place of its shard is in the sample."""
    return index % STEP == 0 and index // STEP < share


class MeasuredValues:
    """The values and bounds of one shard's sample, by rule and reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, rules: Iterable[Rule[Any]], view: DocumentView) -> None:
        """Ask all rules of a policy about a document, those behind the one that drops it too."""
        for rule in rules:
            for measure in rule.measures(view):
                found = self._entry(rule.config.rule, measure)
                # Four digits are more than a picture shows.
                found["values"].append(f"{measure.value:.4g}")
                if measure.bound not in found["bounds"]:
                    found["bounds"].append(measure.bound)

    def _entry(self, rule: str, measure: Measure) -> dict[str, Any]:
        named = {"rule": rule, "reason": measure.reason, "is_least": measure.is_least}
        return self._found.setdefault((rule, measure.reason), {**named, "bounds": [], "values": []})

    def info(self) -> list[dict[str, Any]]:
        """Return them as JSON values, for the record of the part."""
        # One text each: a record of thousands of numbers takes as long as a megabyte of documents.
        return [{**found, "values": " ".join(found["values"])} for found in self._found.values()]


def read_values(entry: Mapping[str, Any]) -> list[float]:
    """Return the values of an entry of `MeasuredValues.info`."""
    return [float(value) for value in entry["values"].split()]

"""Rules that are filters of datatrove."""

from functools import cached_property
from typing import Any, ClassVar

from storage.registry import LazyFunction
from tasks.filter.rules.base import KEEP, ConfigT, Drop, Judgement, Rule
from tasks.filter.rules.view import DocumentView


class StockRule(Rule[ConfigT]):
    """Asks a filter of datatrove that takes the fields of the config, with words between white space."""

    stock: ClassVar[LazyFunction]
    """The class of the filter."""

    def judge(self, view: DocumentView) -> Judgement:
        """Return what the filter says, with its reason."""
        # These filters read nothing of a document but `text`.
        found = self._filter.filter(view)
        return KEEP if found is True else Drop(found[1])

    @cached_property
    def _filter(self) -> Any:
        from tasks.filter.words import WhitespaceTokenizer  # noqa: PLC0415 - datatrove, not needed for planning

        settings = {name: value for name, value in self.config if name != "rule"}
        return self.stock(**settings, language=WhitespaceTokenizer())

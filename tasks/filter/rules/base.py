"""What a filter rule promises: it looks at one document and keeps, drops or rewrites it.

A rule is one file beside this one, or in another package, and one line in `registry.py` (or an entry point of the
group `pile_pipeline.rules`). `tests/conformance/rule_checks.py` checks each promise on every one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from storage.config import Config
from tasks.filter.rules.places import Place
from tasks.filter.rules.view import DocumentView


@dataclass(frozen=True)
class Keep:
    """The rule has nothing against the document."""


@dataclass(frozen=True)
class Drop:
    """The document goes; the rules behind this one are not asked."""

    reason: str
    """Names the bound that was broken, with letters, digits, `-` and `_`: it becomes the name of a count."""
    value: float | None = field(default=None, compare=False)
    """What was measured, if it was a number; written down with every dropped document."""
    bound: float | None = field(default=None, compare=False)
    """What the value had to keep: it was below a lower bound, or above an upper one."""


@dataclass(frozen=True)
class Rewrite:
    """The document stays with another text, which the rules behind this one judge."""

    text: str


Judgement = Keep | Drop | Rewrite


class Measure(NamedTuple):
    """A number that a rule compares with a bound; of kept documents too."""

    reason: str
    """Of the drop if the bound is broken."""
    value: float
    bound: float
    is_least: bool = False
    """Whether the bound is the least value that is allowed; otherwise it is the largest."""

    @property
    def is_broken(self) -> bool:
        """Whether the value is beyond its bound."""
        return self.value < self.bound if self.is_least else self.value > self.bound


KEEP = Keep()
EMPTY = "empty"
"""Reason for dropping a document of nothing but white space, whatever the rules of its policy."""


class RuleConfig(Config):
    """What a user may choose about a rule; a member of the union `rules` of a policy.

    A subclass has a field `rule: Literal["..."]` with the name in the registry as its default. All its fields
    shape the result and are part of the key of the filter, together with the version.
    """

    version: ClassVar[int] = 1
    """Raised when the same fields give other judgements."""

    rule: str

    def identity(self) -> dict[str, Any]:
        """Return name, version and fields as plain JSON values."""
        return {**super().identity(), "version": self.version}


ConfigT = TypeVar("ConfigT", bound=RuleConfig)


class Rule(ABC, Generic[ConfigT]):
    """A rule, made from its config alone; asked in the order of the policy.

    - It judges any text without raising: none at all, one line of megabytes, any writing system.
    - The judgement follows from the config and the text: no other document, clock, random number or machine has
      a part in it. A model that it asks comes with a pinned package, or its SHA-256 is a field.
    - A reason says which bound was broken and never what was measured: the reasons of a config are few.
    - What it has rewritten it keeps when asked again.
    - What it measures and what it judges agree: the first measure that breaks its bound is the drop, with reason,
      value and bound, unless the document is dropped for something that is no number.
    - It changes nothing that the view returns.
    - It can be pickled, before and after it has judged.
    - Places lie in the text, ascend and do not overlap, whatever the text and whatever it was dropped for.
    - Importing it is quick: recipes do. datatrove and other large packages are imported when it judges.
    """

    config_type: ClassVar[type[RuleConfig]]

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[ConfigT, list[tuple[str, Judgement]]]:
        """Return a config, and texts with the judgement that it gives: some kept, some not."""

    @abstractmethod
    def judge(self, view: DocumentView) -> Judgement:
        """Return `KEEP`, why the document is dropped, or its new text."""

    def measures(self, view: DocumentView) -> Iterable[Measure]:
        """Yield what the rule compares with its bounds, in the order in which it does; all of it, whether or not
        a bound is broken, and nothing if it measures nothing. A sample of it is drawn beside the bounds."""
        return ()

    def places(self, view: DocumentView, drop: Drop) -> Sequence[Place]:
        """Return where in `view.text` stands what the document was dropped for, to be marked for people.

        Nowhere by default, as for a length. It is asked about single documents: slow is fine.
        """
        return ()


def first_broken(measures: Iterable[Measure]) -> Judgement:
    """Return the drop for the first measure that breaks its bound, `KEEP` if none does; asks for no more."""
    for measure in measures:
        if measure.is_broken:
            return Drop(measure.reason, measure.value, measure.bound)
    return KEEP


class Judged(NamedTuple):
    """A document that all rules of its policy have been asked about."""

    document: DocumentView
    """As they leave it."""
    drop: Drop | None
    """Why it goes; None if it is kept."""
    rule: str
    """The name of the rule that drops it, EMPTY if it needs none."""


def judge_document(rules: Iterable[Rule[Any]], text: str, *, keep_numbers: bool = False) -> Judged:
    """Ask rules in order; the first that drops the document decides."""
    view = DocumentView(text, keep_numbers=keep_numbers)
    if not view.characters:
        return Judged(view, Drop(EMPTY, 0, 1), EMPTY)
    for rule in rules:
        judgement = rule.judge(view)
        if isinstance(judgement, Drop):
            return Judged(view, judgement, rule.config.rule)
        if isinstance(judgement, Rewrite):
            view = DocumentView(judgement.text, keep_numbers=keep_numbers)
            if not view.characters:
                return Judged(view, Drop(EMPTY, 0, 1), EMPTY)
    return Judged(view, None, "")

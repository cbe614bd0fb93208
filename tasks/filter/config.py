"""What a user may choose about filtering."""

from collections.abc import Mapping

from pydantic import model_validator

from storage.config import Config
from storage.formats.shingling import Shingles
from tasks.filter.policies import POLICIES, SUBSETS, Policy
from tasks.reports.drop_counts import dropped_by_subset, kept_by_subset

UNKNOWN_SUBSET = "unknown_subset"
"""Count of the documents of a subset that `FilterConfig.subsets` does not name."""


class FilterConfig(Config):
    """Which documents are worth training on."""

    policies: dict[str, Policy] = POLICIES
    """Rules by policy name."""
    subsets: dict[str, str] = SUBSETS
    """Subset name -> policy name."""
    default_policy: str = "mild"
    """Policy of subsets that are not named; their documents are counted as `unknown_subset.<name>`."""
    shingles: Shingles = Shingles()
    """What `dedup` compares documents by."""

    @model_validator(mode="after")
    def _named_policies_exist(self) -> "FilterConfig":
        missing = {*self.subsets.values(), self.default_policy} - set(self.policies)
        if missing:
            raise ValueError(
                f"subsets and default_policy must name one of the policies {sorted(self.policies)}, "
                f"found {sorted(missing)}"
            )
        return self

    def policy_name(self, subset: str) -> str:
        """Return the name of the policy that decides about a subset."""
        return self.subsets.get(subset, self.default_policy)

    def policy(self, subset: str) -> Policy:
        """Return the policy that decides about a subset."""
        return self.policies[self.policy_name(subset)]

    def unknown_subsets(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts of the documents, kept and dropped, whose subset is not named here."""
        found = kept_by_subset(counts)
        for subset, reasons in dropped_by_subset(counts).items():
            found[subset] += reasons.total()
        return {f"{UNKNOWN_SUBSET}.{subset}": n for subset, n in found.items() if subset not in self.subsets}

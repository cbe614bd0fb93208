"""The rules that a policy can name in `filter.policies.<policy>.rules`.

A package adds one with an entry point of the group `pile_pipeline.rules`, named as the rule.
"""

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from storage.member_checks import check_class, check_tag, check_version
from storage.registry import Registry
from tasks.filter.rules.base import Rule, RuleConfig


def check_rule(name: str, rule: Any) -> None:
    """Raise InputError unless this is a class of rules whose config has the name in `rule`."""
    check_class(rule, Rule)
    check_tag(rule.config_type, RuleConfig, "rule", name)
    check_version(rule.config_type.version)


RULES: Registry[type[Rule[Any]]] = Registry(
    "filter rule",
    "pile_pipeline.rules",
    {
        "length": "tasks.filter.rules.length:LengthRule",
        "plain-text": "tasks.filter.rules.plain_text:PlainTextRule",
        "code": "tasks.filter.rules.code:CodeRule",
        "gopher-quality": "tasks.filter.rules.gopher_quality:GopherQualityRule",
        "gopher-repetition": "tasks.filter.rules.gopher_repetition:GopherRepetitionRule",
        "fineweb-quality": "tasks.filter.rules.fineweb_quality:FineWebQualityRule",
    },
    check_rule,
)


def make_rule(config: RuleConfig) -> Rule[Any]:
    """Return the rule that a config describes. Raises: InputError."""
    return RULES.get(config.rule)(config)


def rule_config(rule: str, **fields: Any) -> RuleConfig:
    """Return the config of a rule by its name. Raises: InputError for an unknown one, ValidationError."""
    return RULES.get(rule).config_type.model_validate({"rule": rule, **fields})


class _AnyOfRegistry:
    """Makes the type of a field the union of all registered configs, told apart by `rule`."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        configs = [rule.config_type for _, rule in RULES.members()]
        return handler.generate_schema(Annotated[reduce(or_, configs), Field(discriminator="rule")])


AnyRuleConfig = Annotated[RuleConfig, _AnyOfRegistry()]
"""The type of a policy's rules: built from the registry when a config class with such a field is made."""

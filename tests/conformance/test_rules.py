"""Every registered filter rule, and the example plug-in's, keeps every promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.filter.policies import Policy
from tasks.filter.rules.registry import RULES, make_rule
from tests.conformance.rule_checks import CHECKS, Member

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "example_plugin"))  # where it is not installed

from example_plugin.rules import BoilerplateRule  # noqa: E402

HEAVY = ("datatrove", "torch", "pyarrow", "pandas", "loguru")
MEMBERS: dict[str, Member] = {**dict(RULES.members()), "boilerplate": BoilerplateRule}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("check", CHECKS)
def test_rule(check: str, member: Member) -> None:
    CHECKS[check](member)


@pytest.mark.parametrize("name", RULES.names())
def test_policy_with_the_rule_survives_json_and_makes_it(name: str) -> None:
    config = RULES.get(name).examples()[0]
    policy = Policy(rules=(config,))

    read_back = Policy.model_validate_json(policy.model_dump_json())

    assert config.rule == name
    assert read_back == policy
    assert type(make_rule(read_back.rules[0])) is RULES.get(name)


def test_config_of_the_filter_loads_nothing_heavy() -> None:
    code = (
        "import sys; from tasks.filter.config import FilterConfig; FilterConfig(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.decode().strip() == "[]"

"""Recipe files as text: JSON is JSON, YAML is YAML 1.2, and what is lost or another thing elsewhere is refused."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.registry import RECIPES
from flows.recipes.schema import Recipe
from flows.recipes.text_values import read_json
from flows.recipes.yaml_core import Plain, read_yaml
from storage.artifacts.records import Run, encode_record
from storage.canonical import canonical_json
from storage.config import Config
from storage.errors import CorruptRecordError, InputError


def written(tmp_path: Path, content: str | bytes, name: str = "mine.yaml") -> Recipe:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return find_recipe(str(path))


def refusal(tmp_path: Path, content: str | bytes, name: str = "mine.yaml") -> str:
    with pytest.raises(InputError) as caught:
        written(tmp_path, content, name)
    return str(caught.value)


def identities(recipe: Recipe) -> dict[str, bytes]:
    return {name: canonical_json(value.identity()) for name, value in recipe if isinstance(value, Config)}


def as_yaml_1_2(value: Any) -> str:
    """Write block YAML as tools for YAML 1.2 do: numbers like JSON, texts without quotes where they may."""

    def lines(value: Any, indent: str) -> list[str]:
        if isinstance(value, dict) and value:
            return [
                line
                for name, item in value.items()
                for line in [f"{indent}{json.dumps(name)}:{scalar(item)}", *nested(item, indent + "  ")]
            ]
        return [line for item in value for line in [f"{indent}-{scalar(item)}", *nested(item, indent + "  ")]]

    def nested(value: Any, indent: str) -> list[str]:
        return lines(value, indent) if isinstance(value, dict | list) and value else []

    def scalar(value: Any) -> str:
        if isinstance(value, str) and value.isalpha() and value not in ("true", "false", "null"):
            return f" {value}"
        return "" if isinstance(value, dict | list) and value else f" {json.dumps(value)}"

    return "\n".join(lines(value, "")) + "\n"


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("write", "file"),
    [
        (lambda fields: json.dumps(fields, indent=1), "r.json"),
        (lambda fields: json.dumps(fields, indent="\t"), "r.JSON"),
        (lambda fields: "\ufeff" + json.dumps(fields, ensure_ascii=False), "r.json"),
        (lambda fields: json.dumps(fields), "r.yaml"),
        (lambda fields: yaml.safe_dump(fields), "r.yaml"),
        (lambda fields: yaml.safe_dump(fields, default_flow_style=True, allow_unicode=True), "r.yml"),
        (as_yaml_1_2, "r.yaml"),
    ],
    ids=["json", "json-tabs", "json-bom", "json-as-yaml", "yaml", "yaml-flow", "yaml-1.2"],
)
def test_every_recipe_comes_back_from_a_file_with_equal_keys(
    name: str, write: Any, file: str, tmp_path: Path
) -> None:
    recipe = find_recipe(name)
    again = written(tmp_path, write(json.loads(recipe.model_dump_json())), file)
    assert identities(again) == identities(recipe)
    assert again == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-05), ("6e-4", 6e-4), ("1.5e+3", 1500.0), (".5", 0.5), ("5.", 5.0), ("-1E3", -1000.0),
        ("0100", 100), ("08", 8), ("+3", 3), ("0o14", 12), ("0x1F", 31), ("-0", 0), ("-.INF", float("-inf")),
        ("true", True), ("FALSE", False),
    ],
)  # fmt: skip
def test_scalar_without_quotes_has_its_type_of_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(text, "x")
    assert found == Plain(text, value)
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    "text",
    ["1:30", "1:30:00", "yes", "no", "on", "off", "Y", "1_000", "0b11", "0o8", "2026-01-01", "2026-01-01 10:00:00",
     "=", "1e", "tRUE", "1.2.3", "0x", "1e-3s"],
)  # fmt: skip
def test_scalar_that_yaml_1_1_reads_as_something_else_is_text(text: str) -> None:
    assert read_yaml(text, "x") == text


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_null(text: str) -> None:
    assert read_yaml(f"a: {text}", "x") == {"a": None}


def test_names_are_text_whatever_they_look_like() -> None:
    assert read_yaml("{no: 1, 0100: 2, null: 3, 1e3: 4}", "x").keys() == {"no", "0100", "null", "1e3"}


def test_merge_keys_take_over_what_is_not_given() -> None:
    text = "a: &a {x: one, y: one}\nb: &b {y: two, z: two}\nc: {<<: [*a, *b], x: own}\nd: {'<<': text}\n"
    found = read_yaml(text, "x")
    assert found["c"] == {"x": "own", "y": "one", "z": "two"}
    assert found["d"] == {"<<": "text"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "x, line 3, column 1: 'a' must stand once"),
        ("a:\n  b: {c: 1, 'c': 2}\n", "x, line 2, column 13: 'c' must stand once"),
        ("a: [{b: 1, b: 1}]\n", "column 12: 'b' must stand once"),
        ("a: &a\n  b: *a\n", "x, line 1, column 4: a value must not contain itself"),
        ("a: &a [*a]\n", "must not contain itself"),
        ("a: &a {<<: *a}\n", "must not contain itself"),
        ("a: !!set {b, c}\n", "a tag must be one of"),
        ("a: !!timestamp 2026-01-01\n", "a tag must be one of"),
        ("a: !!binary aGk=\n", "a tag must be one of"),
        ("a: !!python/object/apply:os.getcwd []\n", "a tag must be one of"),
        ("a: !env HOME\n", "found !env"),
        ("a: !!int many\n", "cannot be read as a number"),
        (f"a: {'9' * 5000}\n", "cannot be read as a number"),
        ("? [a]\n: 1\n", "a name must be text"),
        ("a: {<<: 3}\n", "<< must take over a map"),
        ("a: 1\n---\nb: 2\n", "one recipe into a file"),
        ("a:\n\tb: 1\n", "indent with spaces"),
        ("a: *.txt\n", "into quotes"),
        ("a: [\n", "line 2, column 1 must be YAML"),
        ("a: b: c\n", "line 1, column 5 must be YAML"),
        ("a: \x01\n", "U\\+0001 at position 3"),
        ("[" * 5000, "nested this deeply"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ), "fewer than 100,000 values"),
    ],
)  # fmt: skip
def test_yaml_that_loses_or_hides_something_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_yaml(text, "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 1}', "x: 'a' must stand once"),
        ('{"a": [0, {"b": {"c": 1, "c": 2}}]}', r"x: 'a\[1\].b.c' must stand once"),
        ('{"a": {"b": 1}, "a": {"c": 1}}', "x: 'a' must stand once"),
        ('{"a": NaN}', "found NaN"),
        ('{"a": -Infinity}', "found -Infinity"),
        ('{"a": %s}' % ("1" * 5000), "one of 5,000 digits"),
        ('{"a": 1,}', "line 1, column"),
        ('{"a": 1} // why', "line 1, column 10"),
        ("{'a': 1}", "line 1, column 2"),
        ("[" * 100_000, "nested this deeply"),
    ],
)  # fmt: skip
def test_json_that_is_none_or_loses_something_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_json(text, "x")


@pytest.mark.parametrize("name", ["mine.json", "mine.yaml"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}".encode("utf-16"), "must be UTF-8, found UTF-16"),
        ("{}".encode("utf-16-le"), "must be UTF-8, found UTF-16"),
        (codecs.BOM_UTF16_BE + "{}".encode("utf-16-be"), "must be UTF-8, found UTF-16"),
        ("{}".encode("utf-32"), "must be UTF-8, found UTF-32"),
        (b'{\n"name": "\xe9"}', "must be UTF-8, found the byte 0xe9 in line 2"),
        (b"", "found nothing in it"),
        (b"\xef\xbb\xbf\n ", "found nothing in it"),
        (b"[]", "found a list"),
        (b"3", "found one value"),
        (b'"demo"', "found one word"),
    ],
)  # fmt: skip
def test_file_that_holds_no_recipe_says_what_it_holds(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path, content, name)


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "large.json").write_bytes(b" " * (17 << 20))
    (tmp_path / "mine.toml").write_text("")
    for name, said in (
        ("folder.json", "is a folder"),
        ("nowhere.json", "there is no"),
        ("large.json", "at most 16 MiB"),
        ("mine.toml", "ends in .yaml, .yml or .json"),
    ):
        with pytest.raises(InputError, match=said):
            find_recipe(str(tmp_path / name))
    with pytest.raises(InputError, match="on this machine"):
        find_recipe("s3://bucket/runs/x.json")


def test_record_of_a_run_is_a_recipe(tmp_path: Path) -> None:
    recipe = find_recipe("world-1m", {"train.learning_rate": 1e-05, "dedup": None})
    fields = json.loads(recipe.model_dump_json())
    run = Run(
        run_id="1", recipe_name="world-1m", recipe=fields, target="all", state="done", stages=(), host="h",
        started="2026-01-01T00:00:00.000+00:00",
    )  # fmt: skip
    data = encode_record(run)
    assert written(tmp_path, data, "1.json") == recipe
    with pytest.raises(CorruptRecordError, match="checksum"):
        written(tmp_path, data.replace(b"world-1m", b"world-2m"), "1.json")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("name: 2026-01-01", "name", "2026-01-01"),
        ("publish: {description: 0100}", "publish.description", "0100"),
        ("publish: {description: true}", "publish.description", "true"),
        ("publish: {description: 1e3}", "publish.description", "1e3"),
        ("publish: {languages: [no, on, 1e3]}", "publish.languages", ("no", "on", "1e3")),
        ("publish: {languages: no}", "publish.languages", ("no",)),
        ("evaluate: {prompts: Return}", "evaluate.prompts", ("Return",)),
        ("train: {max_steps: 0100}", "train.max_steps", 100),
        ("train: {max_steps: 1e3}", "train.max_steps", 1000),
        ("train: {learning_rate: 6e-4}", "train.learning_rate", 6e-4),
    ],
)
def test_plain_scalar_is_what_the_field_wants(text: str, field: str, value: object, tmp_path: Path) -> None:
    found: Any = written(tmp_path, f"based_on: demo\n{text}\n")
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pack: {probe_tokens: yes}", "pack.probe_tokens: must be true or false, found 'yes'; write true"),
        ("pack: {probe_tokens: 'off'}", "pack.probe_tokens: must be true or false, found 'off'; write false"),
        ("dedup: on", "found 'on'; leave the line out to keep the stage as it is"),
        ("dedup: true", "found true; leave the line out"),
        ("execution: off", "execution: must be a section with its fields"),
        ("train: {max_steps: 1_000}", "found '1_000'; write 1000"),
        ("train: {learning_rate: '6e-4'}", "found '6e-4'; write it without quotes"),
        ("train: {learning_rate: 1:30}", "must be a number above 0, found '1:30'"),
        ("train: {learning_rate: .nan}", "train.learning_rate: must be a finite number"),
        ("train: {max_steps: 2.5}", "must be a whole number of at least 1, found 2.5"),
        ("train: {max_steps: 1e300}", "must be a whole number of at least 1, found 1e\\+300"),
    ],
)
def test_word_or_number_of_another_kind_says_what_to_write(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        written(tmp_path, f"based_on: demo\n{text}\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.learning_rate=1e-3", 1e-3),
        ("download.source.subset=1e3", "1e3"),
        ("download.source.subset='1e3'", "1e3"),
        ("download.source.patterns=data/*.jsonl", ["data/*.jsonl"]),
        ("download.source.patterns=*.jsonl", ["*.jsonl"]),
        ("download.source.patterns=[a, 'b*']", ["a", "b*"]),
        ("publish.description=[draft] a: b # c", "[draft] a: b # c"),
        ("publish.description=", ""),
        ("download.shard_bytes=1e6", 1_000_000),
        ("train.max_steps=0100", 100),
        ("filter.subsets={}", {}),
        ("filter.subsets={2020: web}", {"2020": "web"}),
        ("filter.policies.web.near_duplicates=false", False),
        ("dedup=off", None),
        ("pack.field_map={\t\"a\": null}", {"a": None}),
        ("filter.subsets.Github=null", None),
    ],
)  # fmt: skip
def test_option_is_what_its_field_wants(text: str, value: object) -> None:
    field, found = parse_override(text)
    assert (field, found) == (text.partition("=")[0], value)
    assert type(found) is type(value)
    json.dumps(found)

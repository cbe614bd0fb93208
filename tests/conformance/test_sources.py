"""Every registered source keeps every promise; the mirror also over HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from storage.sources.base import SourceConfig
from storage.sources.http.server import serve_folder
from storage.sources.mirror.source import MirrorConfig, MirrorSource
from storage.sources.registry import SOURCES, AnySourceConfig, make_source
from tests.conformance.source_checks import CHECKS, Corpus
from tests.conformance.source_mistake_checks import MISTAKE_CHECKS

OVER_HTTP = "mirror over HTTP"


@pytest.fixture(params=[*SOURCES.names(), OVER_HTTP])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Corpus]:
    with ExitStack() as stack:

        def served(folder: Path) -> MirrorConfig:
            MirrorSource.example(folder)
            return MirrorConfig(url=stack.enter_context(serve_folder(folder)), retries=0)

        if request.param == OVER_HTTP:
            yield Corpus(MirrorSource, tmp_path, served, lambda folder: stack.close())
        else:
            yield Corpus(SOURCES.get(request.param), tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_source(check: str, corpus: Corpus) -> None:
    CHECKS[check](corpus)


@pytest.mark.parametrize("check", MISTAKE_CHECKS)
def test_source_with_mistakes(check: str, corpus: Corpus) -> None:
    MISTAKE_CHECKS[check](corpus)


@pytest.mark.parametrize("name", SOURCES.names())
def test_recipe_field_takes_the_config_of_every_source(name: str, tmp_path: Path) -> None:
    config = SOURCES.get(name).example(tmp_path)
    field: TypeAdapter[SourceConfig] = TypeAdapter(AnySourceConfig)
    assert config.kind == name
    assert field.validate_json(field.dump_json(config)) == config
    assert type(make_source(config)) is SOURCES.get(name)

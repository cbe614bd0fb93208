"""Stages that are none, or would take the place of something else."""

from dataclasses import replace
from typing import Any

from tasks.download.stage import STAGE as DOWNLOAD
from tasks.pack.stage import STAGE as PACK

OPTIONAL = replace(PACK, is_default=False)

mapping: dict[str, Any] = {}
download = replace(DOWNLOAD, version=99)
name = replace(OPTIONAL, name="name")
target = replace(OPTIONAL, name="all")
steps = replace(OPTIONAL, name="steps")
section = replace(OPTIONAL, name="train_tokenizer")
section_mapping = replace(OPTIONAL, name="section-mapping", config=dict)  # type: ignore[arg-type]
no_build = replace(OPTIONAL, name="no-build", build=None)  # type: ignore[arg-type]

"""Engines that are none."""

from typing import Literal

from model.training.engines.base import EngineConfig
from model.training.engines.local.config import LocalConfig


class Plain:
    pass


class Other(LocalConfig):
    name: Literal["other"] = "other"  # type: ignore[assignment]


class Unopened(EngineConfig):
    name: Literal["unopened"] = "unopened"

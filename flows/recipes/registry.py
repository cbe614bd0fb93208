"""The recipes by name."""

from collections.abc import Callable

from flows.recipes.demo import demo, own_files, world_1m
from flows.recipes.pile import gpt2_124m, pile, world
from flows.recipes.schema import Recipe
from flows.recipes.tatar import tatar_23m

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "own-files": own_files,
    "pile": pile,
    "tatar-23m": tatar_23m,
    "gpt2-124m": gpt2_124m,
    "world-1m": world_1m,
    "world-20m": lambda: world("20m", tokens=4e8, steps_of=64, learning_rate=1e-3),
    "world-800m": lambda: world("800m", tokens=1.6e10, steps_of=256, learning_rate=6e-4),
    "world-235b": lambda: world("235b", tokens=3e11, steps_of=1024, learning_rate=2.2e-4),
}

"""A mutant put in the place of the module that it was made of, in this process."""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

PACKAGE = "trainwatch.rules"


def plant(path: Path, tree: ast.Module) -> None:
    """Let the functions, fields and constants of a loaded module of rules be those of a tree.

    They are changed in place: who has imported them sees the change. Planting the module's own tree undoes it.
    """
    module = importlib.import_module(f"{PACKAGE}.{path.stem}")
    fresh = ModuleType(module.__name__)
    fresh.__file__ = module.__file__
    sys.modules[module.__name__] = fresh  # a dataclass looks its module up
    try:
        exec(compile(tree, str(path), "exec"), fresh.__dict__)
    finally:
        sys.modules[module.__name__] = module
    _take(module, fresh, module.__name__)


def _take(old: Any, new: Any, module: str) -> None:
    """Let what a module or class holds be as in another."""
    for name, value in vars(new).items():
        known, made, held = vars(old).get(name), _function(value), _function(vars(old).get(name))
        if isinstance(value, type) and value.__module__ == module:
            _take(known, value, module)
            for child in known.__subclasses__() if is_dataclass(known) else ():  # they hold copies of its defaults
                child.__init__.__defaults__ = tuple(getattr(child, field.name) for field in fields(child))
        elif isinstance(made, FunctionType) and isinstance(held, FunctionType) and made.__module__ == module:
            held.__code__, held.__defaults__, held.__kwdefaults__ = (
                made.__code__,
                made.__defaults__,
                made.__kwdefaults__,
            )
        elif isinstance(value, (int, float, str, tuple, dict)) and not name.startswith("__"):
            setattr(old, name, value)


def _function(value: Any) -> Any:
    """The function in a property or static method, else what it is."""
    return getattr(value, "fget", None) or getattr(value, "__wrapped__", value)

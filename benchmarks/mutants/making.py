"""Mutants of a module of rules: one condition is changed in each.

What only words a finding is left alone, since no verdict depends on it: f-strings, functions that return text, evidence
or remedies, statements that make nothing else, choices between texts, and `__post_init__`. So is what cannot live where
another mutant dies: a comparison that is all of a condition is not turned round, since the condition is forced both
ways, nor one that is an operand of `and` or `or`, since the operand is removed.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INVERSE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OTHER_END = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "nanmin": "nanmax",
             "nanmax": "nanmin"}  # fmt: skip
SMALL = 4  # whole numbers up to this are shifted by 1, others by a factor of 2
ADVICE = {"Evidence", "Remedy", "remedy"}
WORDS = {"Evidence", "Remedy", "str", "Iterator", "Iterable", "list", "tuple", "None"}
Edit = Callable[[Any], None]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        path: The module's file.
        line: Where.
        function: Name of the function, or of the class whose field it is.
        kind: How it was changed: ``flipped``, ``removed``, ``forced``, ``shifted`` or ``swapped``.
        change: The code before and after.
        index: Place of the changed node among all nodes of the tree.
        edit: Changes that node.
    """

    path: Path
    line: int
    function: str
    kind: str
    change: str
    index: int
    edit: Edit

    @property
    def tree(self) -> ast.Module:
        """The module with the change."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        self.edit(list(ast.walk(tree))[self.index])
        return ast.fix_missing_locations(tree)

    @property
    def key(self) -> Key:
        """What names it, whatever its line."""
        return self.path.name, self.function, self.change

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} {self.function}: {self.kind}: {self.change}"


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a module, in order of place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = {id(node): i for i, node in enumerate(ast.walk(tree))}
    judging = list(_judging(tree))
    compared = {
        name.id for _, node, _ in judging if isinstance(node, ast.Compare)
        for name in ast.walk(node) if isinstance(name, ast.Name)
    }  # fmt: skip
    found = []
    for function, node, whole in judging:
        edits = _edits(node) if function and not whole else ()
        if isinstance(node, (ast.AnnAssign, ast.Assign)):
            edits = _shifts(node) if _is_threshold(node, function, compared) else ()
        for kind, edit in edits:
            changed = copy.deepcopy(node)
            edit(changed)
            change = f"{_shown(node).strip()} -> {_shown(changed).strip()}"
            found.append(Mutant(path, _place(node), function or "module", kind, change, places[id(node)], edit))
    return sorted(found, key=lambda m: m.line)


def _judging(node: ast.AST, function: str = "", whole: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Every node that does more than word a finding.

    Yields:
        The name of the function or class around it, the node, and whether it is a comparison or negation that is all
        of a condition.
    """
    if _words(node):
        return
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        function = node.name
    chained = isinstance(node, ast.Compare) and len(node.ops) > 1
    yield function, node, whole and isinstance(node, (ast.Compare, ast.UnaryOp)) and not chained
    wholes = _wholes(node)
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _judging(child, function, any(child is w for w in wholes))


def _wholes(node: ast.AST) -> list[ast.expr]:
    """The conditions in a node that it changes itself."""
    if isinstance(node, (ast.If, ast.IfExp)):
        return [node.test]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.comprehension):
        return node.ifs
    return [node.operand] if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else []


def _is_threshold(node: ast.Assign | ast.AnnAssign, function: str, compared: set[str]) -> bool:
    """A field of a rule, or a constant of the module that stands in a comparison."""
    if isinstance(node, ast.AnnAssign):
        return function[:1].isupper() and "ClassVar" not in ast.unparse(node.annotation)
    return not function and isinstance(node.targets[0], ast.Name) and node.targets[0].id in compared


def _words(node: ast.AST) -> bool:
    """The node words or advises, and judges nothing."""
    if isinstance(node, ast.FunctionDef):
        returned = set(re.findall(r"\w+", ast.unparse(node.returns))) if node.returns else set()
        return node.name == "__post_init__" or (
            returned <= WORDS and bool(returned & {"str", *ADVICE}) and returned != {"str", "None"}
        )
    if isinstance(node, ast.keyword):
        return node.arg in ("evidence", "remedies", "note", "summary")
    if isinstance(node, ast.IfExp):
        return _is_text(node)
    if isinstance(node, (ast.If, ast.For)):
        return all(_advises(s) for s in [*node.body, *node.orelse])
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.stmt) and _advises(node))


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.IfExp):
        leaves = (node.body, node.orelse)
        formed = any(isinstance(leaf, ast.JoinedStr) for leaf in leaves)
        return all(_is_text(leaf) or (formed and getattr(leaf, "value", 0) is None) for leaf in leaves)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _advises(node: ast.stmt) -> bool:
    if isinstance(node, (ast.If, ast.For)):
        return _words(node)
    if not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return)):
        return False
    if isinstance(node, (ast.Assign, ast.AugAssign)) and _is_text(node.value):
        return True
    called = {getattr(c.func, "attr", getattr(c.func, "id", "")) for c in ast.walk(node) if isinstance(c, ast.Call)}
    return bool(called & ADVICE) and "diagnose" not in called


def _edits(node: Any) -> Iterator[tuple[str, Edit]]:
    """How a node is changed."""
    if isinstance(node, ast.Compare):
        yield from (("flipped", _flip(i)) for i in range(len(node.ops)))
    elif isinstance(node, ast.BoolOp):
        yield from (("removed", _drop(i)) for i in range(len(node.values)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield "removed", lambda n: setattr(n, "left", copy.deepcopy(n.right))
        yield "removed", lambda n: setattr(n, "right", copy.deepcopy(n.left))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "removed", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    elif isinstance(node, ast.If):
        yield from (("forced", _force(value)) for value in (False, True))
    elif isinstance(node, ast.IfExp):
        yield "flipped", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.comprehension):
        yield from (("removed", _unfilter(i)) for i in range(len(node.ifs)))
    elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in OTHER_END:
        yield "swapped", _swap


def _flip(i: int) -> Edit:
    def edit(node: ast.Compare) -> None:
        node.ops[i] = INVERSE[type(node.ops[i])]()

    return edit


def _drop(i: int) -> Edit:
    """An operand goes; the neutral one stands before the others, so that their value stays what it is."""

    def edit(node: ast.BoolOp) -> None:
        node.values = [ast.Constant(isinstance(node.op, ast.And)), *node.values[:i], *node.values[i + 1 :]]

    return edit


def _force(value: bool) -> Edit:
    return lambda node: setattr(node, "test", ast.Constant(value))


def _unfilter(i: int) -> Edit:
    return lambda node: node.ifs.pop(i)


def _swap(node: ast.Call) -> None:
    field = "id" if isinstance(node.func, ast.Name) else "attr"
    setattr(node.func, field, OTHER_END[getattr(node.func, field)])


def _set(value: float) -> Edit:
    return lambda node: setattr(node, "value", ast.Constant(value))


def _shifts(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[str, Edit]]:
    """Values beside a threshold; none where it is no number."""
    try:
        value = ast.literal_eval(node.value) if node.value is not None else None
    except ValueError:
        return
    if isinstance(value, bool):
        yield "shifted", _set(not value)
    elif isinstance(value, int):
        beside = (value - 1, value + 1) if abs(value) <= SMALL else (value // 2, value * 2)
        yield from (("shifted", _set(v)) for v in beside)
    elif isinstance(value, float) and value:
        yield from (("shifted", _set(v)) for v in (value / 2, value * 2))


def _place(node: Any) -> int:
    return int(node.target.lineno if isinstance(node, ast.comprehension) else node.lineno)


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.BoolOp) and isinstance(node.values[0], ast.Constant):
        return ast.unparse(ast.BoolOp(node.op, node.values[1:]) if len(node.values) > 2 else node.values[1])
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.UnaryOp):
        return ast.unparse(node.operand.operand)
    return ast.unparse(node)

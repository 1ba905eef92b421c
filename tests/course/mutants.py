"""Mutants of a solution: its syntax tree with one thing changed, the way a reader slips."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod, ast.Pow: ast.Mult,
    ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {
    "mean": "sum", "sum": "mean", "max": "min", "min": "max", "argmax": "argmin", "ones": "zeros", "zeros": "ones",
    "sqrt": "square", "square": "sqrt", "log10": "log", "var": "std", "exp": "log", "floor": "ceil", "ceil": "floor",
    "repeat_interleave": "repeat", "cos": "sin", "any": "all",
}  # fmt: skip

COMMUTE = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.Eq, ast.NotEq)
#: Calls that change a type and no value: leaving them out is no slip.
CONVERSIONS = {"float", "int", "bool", "dict", "asarray", "astype", "sorted"}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of a node after one slip."""
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield from (ast.Constant(node.value + 1), ast.Constant(node.value * 2), ast.Constant(0))
    elif isinstance(node, ast.BinOp):
        if type(node.op) in SWAPS:
            yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
        yield from (node.left, node.right)
        if not isinstance(node.op, COMMUTE):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield ast.Compare(node.left, [SWAPS[type(node.ops[0])]()], node.comparators)
        if not isinstance(node.ops[0], COMMUTE):
            yield ast.Compare(node.comparators[0], node.ops, [node.left])
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse, ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Call):
        yield from calls(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield node.value
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)) and node.generators[0].ifs:
        yield type(node)(node.elt, [ast.comprehension(g.target, g.iter, [], 0) for g in node.generators])


def calls(node: ast.Call) -> Iterator[ast.AST]:
    """A call without its effect, of a relative, with arguments swapped, or with one left out."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    module = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("np", "torch", "math")
    if isinstance(node.func, ast.Attribute) and not module and name not in CONVERSIONS:
        yield node.func.value
    if len(node.args) == 1 and name not in CONVERSIONS:
        yield node.args[0]
    if name in NAMES:
        func = copy.deepcopy(node.func)
        setattr(func, "attr" if isinstance(func, ast.Attribute) else "id", NAMES[name])
        yield ast.Call(func, node.args, node.keywords)
    for i in range(len(node.args) - 1):
        swapped = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.Call(node.func, swapped, node.keywords)
    for i in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def mutants(solution: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every mutant of a solution that compiles, with the source of its body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(solution)))
    tree.body[0].body = tree.body[0].body[1:]  # the task
    tree.body[0].decorator_list, seen = [], {ast.unparse(tree)}
    for place in range(sum(1 for _ in ast.walk(tree))):
        for choice in range(4):
            changed = copy.deepcopy(tree)
            node = list(ast.walk(changed))[place]
            options = list(replacements(node))
            if choice >= len(options):
                break
            Put(node, options[choice]).visit(changed)
            source = ast.unparse(ast.fix_missing_locations(changed))
            if source not in seen:
                seen.add(source)
                space = dict(solution.__globals__)
                try:
                    exec(compile(source, "mutant", "exec"), space)
                except SyntaxError:
                    continue
                yield source.split("\n", 1)[1], space[solution.__name__]


class Put(ast.NodeTransformer):
    """Puts one node in place of another; annotations of the signature stay."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        return node

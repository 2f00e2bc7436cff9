"""Plain YAML: text to mappings, lists and scalars, and nothing else; bounded before anything is built.

Tags that name Python objects are refused by the safe loader; names given twice, nests and aliases that multiply (a
"billion laughs") or contain themselves here, on the graph of nodes.
"""

from typing import Any

import yaml

from relabel.errors import UsageError

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000
"""With every alias written out."""
MAX_DEPTH = 40


def parse_yaml(text: str, where: str) -> Any:
    """The values that the text means; raises UsageError that begins with `where`."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"{where}: {len(text)} characters, at most {MAX_CHARACTERS} are read; name many files in a listing "
            "(path: '@listing.txt')."
        )
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            count(node, where, {})
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{where}: not valid YAML: {error}") from None
    except RecursionError:
        raise UsageError(f"{where}: nested more than {MAX_DEPTH} levels deep.") from None


def count(node: yaml.Node, where: str, known: dict[int, int], above: tuple[int, ...] = ()) -> int:
    """How many values a node stands for, itself included."""
    if id(node) in known:
        return known[id(node)]
    place = f"{where}: line {node.start_mark.line + 1}"
    if id(node) in above:
        raise UsageError(f"{place}: an anchor that contains itself.")
    if len(above) > MAX_DEPTH:
        raise UsageError(f"{place}: nested more than {MAX_DEPTH} levels deep.")
    total = 1 + sum(count(child, where, known, (*above, id(node))) for child in children(node, place))
    if total > MAX_VALUES:
        raise UsageError(f"{place}: more than {MAX_VALUES} values once its aliases are written out.")
    known[id(node)] = total
    return total


def children(node: yaml.Node, place: str) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode) and name.value != "<<"]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{place}: the field {twice[0]!r} stands here twice.")
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []

"""YAML document: looked at before anything is built of it.

Ten lines of aliases stand for billions of values, and a number of thousands of digits takes minutes to read.
"""

from yaml import CollectionNode, MappingNode, Node, SafeLoader, YAMLError, compose

from loopscale.errors import InputError

MOST_VALUES = 100_000
LONGEST_NUMBER = 400  # digits; a float64 in plain digits has 309


def check_yaml(text: str, where: str) -> None:
    """Raise `InputError` for YAML that must not be built. What is no YAML at all is left to who reads it.

    `where` names it in the sentence: too many values behind aliases, an alias that holds itself, too deep a nesting, a
    number too long to read, a key that stands twice.
    """
    try:
        root = compose(text, Loader=SafeLoader)
        if root is not None:
            _count(root, {}, where)
    except YAMLError:
        return
    except RecursionError as error:
        raise InputError(f"{where} nests lists or values too deep: make it flatter.") from error


def _count(node: Node, counted: dict[int, int | None], where: str) -> int:
    """Return how many values a node stands for, each node counted once."""
    if id(node) in counted:
        known = counted[id(node)]
        if known is None:
            raise InputError(f"{where} has an alias that holds itself (line {node.start_mark.line + 1}): write it out.")
        return known
    counted[id(node)], total = None, 1
    if isinstance(node, CollectionNode):
        for entry in node.value:
            total += sum(_count(part, counted, where) for part in (entry if isinstance(entry, tuple) else (entry,)))
        if total > MOST_VALUES:
            raise InputError(f"{where} holds more than {MOST_VALUES:,} values, aliases written out: give fewer.")
        if isinstance(node, MappingNode):
            _check_keys(node, where)
    elif node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > LONGEST_NUMBER:
        raise InputError(f"{where} holds a number too long to read (line {node.start_mark.line + 1}): shorten it.")
    counted[id(node)] = total
    return total


def _check_keys(node: MappingNode, where: str) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{where} names '{key}' twice (line {node.start_mark.line + 1}): keep one of them.")

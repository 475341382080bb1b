"""Documents drawn at random: valid ones with values of them changed, bytes with some of them changed, or noise."""

import json
import random
import string
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

ODD: Sequence[Any] = (
    *(0, -1, 1, 10**9, 2**63, -(10**20), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), None, True),
    *("", "0", "raw", "rmsnorm", "../..", "\ud800"),
    *([], {}, [[]], {"kind": "power"}, {"kind": None}),
)


def value(draw: random.Random, depth: int = 2) -> Any:
    """Return any value of JSON, a new one: a document that holds one twice could come to hold itself."""
    if depth and draw.random() < 0.2:
        entries = [value(draw, depth - 1) for _ in range(draw.randrange(4))]
        return entries if draw.random() < 0.5 else {text(draw): entry for entry in entries}
    return deepcopy(draw.choice([*ODD, draw.randrange(-3, 9), draw.uniform(-2, 2), text(draw)]))


def text(draw: random.Random, most: int = 8) -> str:
    """Return any text without halves of surrogate pairs."""
    pool = draw.choice([string.printable, string.ascii_letters, "".join(map(chr, range(0x80, 0x2100)))])
    return "".join(draw.choice(pool) for _ in range(draw.randrange(most)))


def changed(draw: random.Random, document: Any) -> Any:
    """Return a document with one to three of its values another one, gone, or beside one that nobody knows."""
    document = json.loads(json.dumps(document))
    for _ in range(draw.randint(1, 3)):
        holder: Any = document
        while holder:
            key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.6:
                holder = holder[key]
                continue
            way = draw.choice(("another", "another", "gone", "more"))
            if way == "another":
                holder[key] = value(draw)
            elif way == "gone":
                del holder[key]
            elif isinstance(holder, dict):
                holder[text(draw)] = value(draw)
            break
    return document


def spoilt(draw: random.Random, content: bytes) -> bytes:
    """Return bytes with some of them flipped, put in, taken out, or all of them noise."""
    way, at = draw.choice(("flip", "flip", "put", "cut", "end", "noise")), draw.randrange(len(content) + 1)
    if way == "flip" and content:
        some = bytearray(content)
        for _ in range(draw.choice((1, 1, 8, 64))):
            some[draw.randrange(len(some))] ^= 1 << draw.randrange(8)
        return bytes(some)
    if way in ("put", "flip"):
        return content[:at] + draw.randbytes(draw.randint(1, 30)) + content[at:]
    if way == "cut":
        return content[:at] + content[at + draw.randint(1, 300) :]
    return content[:at] if way == "end" else draw.randbytes(draw.randrange(300))


def dumped(document: Any) -> bytes:
    """Return a document as JSON, halves of surrogate pairs included."""
    return json.dumps(document).encode("utf-8", "surrogatepass")

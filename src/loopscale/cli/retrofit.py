"""`loopscale retrofit`: a pretrained model written as a looped one, or the scan that says which layers to loop."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from loopscale.cli.subject import in_words, read_text, require_counts
from loopscale.display import console, to_markdown, tracker
from loopscale.errors import InputError
from loopscale.mechanism import Named
from loopscale.retrofit import retrofit_folder, scan_stack, scan_table, whole_stack
from loopscale.storage import check_writable
from loopscale.system.environment import environment

SCAN, TABLE = "scan.json", "scan.md"


def run(args: Namespace) -> int:
    """Scan, or write the model and say what it is."""
    if args.scan:
        return _scan(args)
    if args.core is None:
        raise InputError("give --core FIRST:END, the layers to loop, or --scan to find out which.")
    parts = {slot: _value(args[slot]) for slot in ("injection", "relaxation", "recurrence")}
    core = core_of(args.core)
    config = retrofit_folder(args.source, args.out, core, args.num_loops, overwrite=args.overwrite, **parts).config
    console().print(
        f"wrote {args.out} ({config.num_prelude_layers} layers, then {config.num_stack_layers} looped "
        f"{config.num_loops} times; with one loop it is the original)",
        soft_wrap=True,
        highlight=False,
    )
    return 0


def core_of(text: str) -> tuple[int, int]:
    """Return the core that FIRST:END names. Raises `InputError` for another form."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise InputError(f"--core is {text!r}: give FIRST:END, as in 10:20 for the layers 10 to 19, counted from 0.")
    return int(first), int(last)


def _scan(args: Namespace) -> int:
    folder, out = Path(args.out), console()
    check_writable("OUT", folder)
    cores = [core_of(text) for text in args.cores] or None
    wanted = None if args.windows == "all" else int(args.windows)
    require_counts(args, wanted)
    stack = whole_stack(args.source)
    text = read_text(args, args.source, stack)
    windows = text.spread(wanted, args.batch_size)
    facts = text.facts_of(windows)
    out.print(f"{args.source}, {in_words(facts, text.notes)}", soft_wrap=True, highlight=False)
    measured_on: dict[str, Any] = {**facts, "source": Path(args.source).name, "environment": environment()}
    found = scan_stack(stack, windows, cores, args.loops, folder / SCAN, tracker(), measured_on)
    table = scan_table(found)
    out.print("", table)
    (folder / TABLE).write_text(to_markdown(table), encoding="utf-8")
    return 0


def _value(given: Named | Namespace) -> Named:
    return given.as_dict() if isinstance(given, Namespace) else given

"""`loopscale retrofit`: a pretrained model written as a looped one."""

from jsonargparse import Namespace

from loopscale.errors import InputError
from loopscale.mechanism import Named
from loopscale.retrofit import retrofit_folder


def run(args: Namespace) -> int:
    """Write the model and say what it is."""
    parts = {slot: _value(args[slot]) for slot in ("injection", "recurrence")}
    model = retrofit_folder(
        args.source, args.out, core_of(args.core), args.num_loops, overwrite=args.overwrite, **parts
    )
    config = model.config
    once = [f"{config.num_prelude_layers} layers before"]
    print(
        f"wrote {args.out} ({config.num_stack_layers} layers looped {config.num_loops} times, {', '.join(once)}; with "
        "one loop it is the original)"
    )
    return 0


def core_of(text: str) -> tuple[int, int]:
    """Return the core that FIRST:END names. Raises `InputError` for another form."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise InputError(f"--core is {text!r}: give FIRST:END, as in 10:20 for the layers 10 to 19, counted from 0.")
    return int(first), int(last)


def _value(given: Named | Namespace) -> Named:
    return given.as_dict() if isinstance(given, Namespace) else given

"""`loopscale lens`: a text token by token and loop by loop, as a page, and its means in the terminal."""

from pathlib import Path

import torch
from jsonargparse import Namespace

from loopscale.cli.generate import prompt_tokenizer
from loopscale.cli.subject import labels, load_subject
from loopscale.data import encode_prompt
from loopscale.display import Column, Table, console, number, percent, tracker
from loopscale.errors import InputError
from loopscale.lens import Lens, look, write_page
from loopscale.storage import check_writable, require_no_stream

NOTHING = "at exit {} all tokens are equally likely everywhere: weights are zero, or no state is left to read."


def run(args: Namespace) -> int:
    """Read, write the page, print the means."""
    text, out = _text(args), Path(args.out)
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file.")
    check_writable("--out", out.parent)
    model = load_subject(args, args.model)
    tokenizer, special = prompt_tokenizer(args.model, args.tokenizer, model)
    ids = list(tokenizer(text).input_ids) if special else encode_prompt(tokenizer, text)
    lens = look(model, torch.tensor(ids, dtype=torch.long), tokenizer, args.loops, args.window, tracker())
    write_page(lens, out, labels([args.model])[0])
    screen = console()
    screen.print(table(lens))
    if lens.alike:
        screen.print(f"note: {NOTHING.format(', '.join(map(str, lens.alike)))}", soft_wrap=True)
    screen.print(f"wrote {out}: open it in a browser", highlight=False, markup=False, soft_wrap=True)
    return 0


def table(lens: Lens) -> Table:
    """Return the means over the text, by exit."""
    rows = []
    for k in range(lens.loops):
        surprise, settled = lens.surprise[:, k].nanmean(), (lens.settles <= k + 1).double().mean()
        turn = number(float(lens.angular_step[:, k].mean()), 3) if k + 1 < lens.loops else "–"
        scale = number(float(lens.scale[:, k].mean()), 3)
        costs = number(float(surprise), 3) if len(lens.tokens) > 1 else "–"  # nothing comes after a single token
        rows.append((str(k + 1), costs, percent(float(settled)), scale, turn))
    headings = ("exit", "surprise (nats)", "settled by here", "scale", "turn to next")
    columns = tuple(Column(heading, numeric=True) for heading in headings)
    return Table(
        "lens", f"{len(lens.tokens)} token{'s'[: len(lens.tokens) > 1]}, means over the text", "", columns, tuple(rows)
    )


def _text(args: Namespace) -> str:
    """Return the text of --text or of the file of --file, one of which is given."""
    if (args.text is None) == (args.file is None):
        raise InputError("give the text by --text, or a file of it by --file.")
    if args.text is not None:
        return str(args.text)
    require_no_stream(Path(args.file))
    try:
        return Path(args.file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--file {args.file} is not UTF-8 text: convert it first.") from error
    except OSError as error:
        raise InputError(f"--file {args.file} cannot be read: {error.strerror}.") from error

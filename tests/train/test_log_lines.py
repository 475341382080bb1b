import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from loopscale.train.callbacks import Lines, live_line

LOG = {
    "loss": 2.3456,
    **{f"loop_losses/{k}": 2.5 - 0.1 * k for k in range(1, 5)},
    **{f"loop_norms/{k}": 100.0 * k for k in range(1, 5)},
}


def test_the_live_line_says_everything_where_there_is_room():
    line = live_line("step 20/400", LOG, [100.0, 300.0, 400.0], "12,345 tok/s", "3 min", 120)
    assert line == "step 20/400 | loss 2.346 | loops 2.40 2.30 2.20 2.10 | norm ▁▆█ 400 | 12,345 tok/s | 3 min left"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_it_is_one_line_at_any_width(width):
    line = live_line("step 20/400", LOG, [100.0, 400.0], "12,345 tok/s", "3 min", width)
    assert len(line) <= max(width, len("step 20/400 | loss 2.346")) and line.startswith("step 20/400 | loss 2.346")


def lines_of(console):
    """What a run of two log lines writes to a console."""
    lines = Lines(1024, console)
    state = TrainerState(max_steps=40)
    call = TrainingArguments(use_cpu=True), state, TrainerControl()
    lines.on_train_begin(*call)
    for step in (10, 20):
        state.global_step = step
        lines.on_log(*call, LOG)
    lines.close()


def test_a_file_gets_plain_lines_and_a_terminal_one_that_is_redrawn():
    plain, screen = io.StringIO(), io.StringIO()
    lines_of(Console(file=plain, width=160))
    written = plain.getvalue().splitlines()
    assert len(written) == 2 and written[0].startswith("step 10/40 loss 2.346 losses 2.400 2.300 2.200 2.100 norms")
    assert not any(c in plain.getvalue() for c in "\x1b▁█")
    lines_of(Console(file=screen, width=80, force_terminal=True))
    assert "\x1b[2K" in screen.getvalue() and "▁" in screen.getvalue()

import io
import itertools
import sys

import pytest

from loopscale.display import console, inert, progress_bar, spelled, tracker, untracked


class Screen(io.TextIOWrapper):
    """A stream of some encoding that may be a terminal."""

    def __init__(self, encoding="utf-8", terminal=False):
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def text(self):
        return self.bytes.getvalue().decode(self.encoding)


@pytest.fixture
def clock(monkeypatch):
    ticks = itertools.count(0.0, 10.0)
    monkeypatch.setattr("loopscale.display.progress.time.monotonic", lambda: next(ticks))


def work(screen, monkeypatch, **facts):
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar("Ländler ‖ 模型 [/]", 10, **facts) as advance:
        for _ in range(10):
            advance(1)
    return screen.text


def test_a_terminal_has_a_bar_with_the_time_left(monkeypatch, clock):
    shown = work(Screen(terminal=True), monkeypatch)
    assert "Ländler ‖ 模型 [/]" in shown and "%" in shown


def test_elsewhere_there_is_a_plain_line_now_and_then(monkeypatch, clock):
    lines = work(Screen(), monkeypatch).splitlines()
    assert lines == ["Ländler ‖ 模型 [/]: 40%, 60 s left", "Ländler ‖ 模型 [/]: 80%, 20 s left"]


def test_what_is_quick_or_quiet_says_nothing(monkeypatch):
    assert work(Screen(), monkeypatch) == "" == work(Screen(terminal=True), monkeypatch)


def test_quiet_says_nothing_however_slow(monkeypatch, clock):
    assert work(Screen(terminal=True), monkeypatch, quiet=True) == ""


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_of_few_characters_shows_the_nearest(monkeypatch, clock, encoding, terminal):
    shown = work(Screen(encoding, terminal), monkeypatch)
    assert "L" in shown and "| ??" in shown


def test_without_a_stream_nothing_is_shown(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar("x", 2) as advance:
        advance(1)


def test_trackers_pass_everything_on(monkeypatch):
    assert list(tracker("a")([1, 2], "b")) == [1, 2] == list(untracked([1, 2], "b"))
    with pytest.raises(ZeroDivisionError):
        for x in tracker()([1, 0], "b"):
            1 / x


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_console_prints_on_any_code_page(monkeypatch, encoding):
    screen = Screen(encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    console().print("mean ‖H‖ is 2× ± 1 – …", markup=False)
    expected = "mean ‖H‖ is 2× ± 1 – …" if encoding == "utf-8" else "mean |H| is 2"
    assert screen.text.startswith(expected)


def test_control_characters_are_spelled_out():
    assert inert("a\nb\x1b[2J\x07\u202e\u061cé") == "a b\\x1b[2J\\x07\\u202e\\u061cé"
    assert spelled("a\nb\t\x1b[2J\r\u202e\ud800é") == "a\nb\t\\x1b[2J\\r\\u202e\\ud800é"

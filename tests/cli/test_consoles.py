"""Consoles that lack characters, close early or are not there; devices that are not there."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from loopscale import InputError
from loopscale.cli.main import BROKEN_PIPE, main
from tests.cli.runs import saved_run

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("consoles"))


def command(*words, **options):
    return subprocess.Popen([sys.executable, "-m", "loopscale", *map(str, words)], stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_character_that_the_console_lacks_is_replaced(run, encoding, monkeypatch):
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding=encoding))
    assert main(["generate", str(run), "--prompt", "→ α", "--max_new_tokens", "2"]) == 0
    assert main(["audit", "--config", str(run)]) == 3
    assert written.getvalue().startswith(b"? ?") and b"coordinate" in written.getvalue()


def test_a_closed_pipe_is_silent():
    read, write = os.pipe()
    os.close(read)
    done = command("--help", stdout=write)
    _, err = done.communicate(timeout=60)
    os.close(write)
    assert (done.returncode, err) == (BROKEN_PIPE, b"")


def test_a_closed_pipe_under_a_table_is_silent(run):
    read, write = os.pipe()
    os.close(read)
    done = command("audit", "--config", run, stdout=write)
    _, err = done.communicate(timeout=120)
    os.close(write)
    assert (done.returncode, err) == (BROKEN_PIPE, b"")


def test_no_standard_output_at_all_is_no_error():
    done = command("--help", preexec_fn=lambda: os.close(1))
    _, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b"")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here: Linux has it")
def test_a_full_disk_is_one_sentence():
    with FULL.open("wb") as full:
        done = command("--help", stdout=full)
        _, err = done.communicate(timeout=60)
    assert done.returncode == 2 and b"cannot write any more" in err and b"Traceback" not in err


def test_an_interrupt_while_it_starts_is_one_word(run):
    done = command("generate", run, "--prompt", "a", stdout=subprocess.PIPE)
    time.sleep(1.2)
    done.send_signal(signal.SIGINT)
    _, err = done.communicate(timeout=120)
    assert b"Traceback" not in err
    assert done.returncode in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize("device", ["toaster", "mps", "cuda:7", "cuda:x", "cpu:3", "meta", "", "cdua"])
@pytest.mark.parametrize("name", ["audit", "evaluate", "generate"])
def test_a_device_that_is_not_here_is_named(run, name, device, capsys):
    words = [str(run), "--device", device, *(["--prompt", "a"] if name == "generate" else [])]
    assert main([name, *words]) == 2
    error = capsys.readouterr().err
    assert f"--device {device} cannot be used" in error and error.count("\n") == 1


def test_a_device_that_is_here_serves(run):
    assert main(["generate", str(run), "--device", "cpu:0", "--prompt", "a", "--max_new_tokens", "1"]) == 0


def test_the_c_locale_of_python_lets_nothing_else_through(run, monkeypatch):
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii", errors="surrogateescape"))
    assert main(["generate", str(run), "--prompt", "→ α", "--max_new_tokens", "2"]) == 0
    assert written.getvalue().startswith(b"? ?")


def test_a_stream_without_an_encoding_serves(monkeypatch):
    monkeypatch.setattr(sys, "stdout", StringIO())
    assert main(["--version"]) == 0
    assert sys.stdout.getvalue().startswith("loopscale ")


@pytest.mark.parametrize("error", [ImportError("no."), InputError("no."), FileNotFoundError(2, "no", "a")])
def test_an_interruption_that_a_library_turned_into_its_own_error_is_one(run, error, monkeypatch, capsys):
    def interrupted(*_):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error

    monkeypatch.setattr("loopscale.cli.main._run", interrupted)
    assert main(["generate", str(run)]) == 130
    assert capsys.readouterr().err == "loopscale generate: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

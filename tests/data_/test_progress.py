import pytest

from loopscale.data import progress


@pytest.mark.parametrize(("patience", "shown"), [(-1.0, True), (60.0, False)])
def test_the_bar_appears_only_when_the_work_is_slow(patience, shown, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_AFTER_SECONDS", patience)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stream for a terminal
    with progress.progress_when_slow("tokenising", total=4) as advance:
        advance(1)
        advance(3)
    out, err = capsys.readouterr()
    assert ("tokenising" in err) is shown
    assert out == "" and (shown or err == "")

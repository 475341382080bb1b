from pathlib import Path
from runpy import run_path

EXAMPLE = Path(__file__).parents[2] / "examples" / "watch_your_own_loop.py"


def test_the_example_is_told_of_its_scale(capsys):
    watching, alarms = run_path(str(EXAMPLE))["main"](steps=60)
    assert [alarm.kind for alarm in alarms] == ["drift"]
    assert "step 60: scale" in capsys.readouterr().out and watching.steps == 60

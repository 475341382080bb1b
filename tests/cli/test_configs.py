from pathlib import Path

import pytest
import yaml

from loopscale.cli.main import main
from loopscale.study.grid import named_conditions

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_configuration_is_read(path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command = "reproduce" if "conditions:" in path.read_text() else "train"
        main([command, "--config", str(path), "--print_config"])
    assert exit_.value.code == 0
    assert f"preset: {path.stem.split('-')[0]}" in capsys.readouterr().out


def test_the_main_job_s_conditions_are_of_the_paper_s_grid():
    config = yaml.safe_load((CONFIGS[0].parent / "laptop-rates.yaml").read_text())
    assert list(named_conditions(config["conditions"])) and len(config["conditions"]) == 8

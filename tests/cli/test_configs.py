from pathlib import Path

import pytest

from loopscale.cli.main import main

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_configuration_is_read(path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--config", str(path), "--print_config"])
    assert exit_.value.code == 0
    assert f"preset: {path.stem.split('-')[0]}" in capsys.readouterr().out

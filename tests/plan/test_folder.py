"""What a plan of a folder is made of."""

import json

import pytest

from loopscale import InputError
from loopscale.plan.folder import run_of_folder
from loopscale.train import DataConfig, RunConfig, TrainConfig
from loopscale.train.run_folder import write_config
from tests.helpers import TINY, tiny_model


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    sizes = {**TINY, "num_stack_layers": 7}
    write_config(RunConfig(sizes, DataConfig(sequence_length=16), TrainConfig(max_steps=10), out=str(tmp_path)))
    return tmp_path


def test_the_sizes_are_those_of_the_model_that_lies_there(folder):
    run = run_of_folder(str(folder), "laptop")
    assert run.model["num_stack_layers"] == TINY["num_stack_layers"]
    assert run.train.max_steps == 10


@pytest.mark.parametrize("odd", [{"dtype": 5}, {"vocab_size": "x"}, {"readout": "rawr"}, {"num_loops": 0}])
def test_a_configuration_that_is_none_is_told_with_its_reason(folder, odd):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    with pytest.raises(InputError, match=f"^the model in '{folder}': .*{next(iter(odd))}"):
        run_of_folder(str(folder), "laptop")

from dataclasses import replace

import pytest

from loopscale import InputError
from loopscale.train import RUNS, RunConfig, TrainConfig, preset_run


@pytest.mark.parametrize("name", RUNS)
def test_presets_are_whole_and_survive_a_round_trip(name):
    run = preset_run(name)
    assert RunConfig.from_dict(run.to_dict()) == run
    fewest, most = run.schedule.lasting
    assert fewest <= run.model_config(256).num_loops <= most


def test_the_papers_protocol():
    for name, batch in (("44m", 64), ("129m", 32)):
        run = preset_run(name)
        assert (run.train.learning_rate, run.train.weight_decay, run.train.clip) == (3e-4, 0.01, 1.0)
        assert (run.train.batch_size, run.train.epochs, run.train.schedule) == (batch, 4, "constant")
        assert (run.data.sequence_length, run.data.stride, run.data.tokenizer) == (256, 128, "words")
        assert run.model_config(20_000).dropout == 0.1


def test_a_fitted_vocabulary_is_the_presets_own():
    assert preset_run("fineweb-10m").model_config(None).vocab_size == 8192
    assert preset_run("small").model_config(None).vocab_size == 20_000


def test_what_does_not_fit_is_told_in_words():
    with pytest.raises(InputError, match="did you mean 'laptop'"):
        preset_run("lapto")
    with pytest.raises(InputError, match="128 positions"):
        replace(preset_run("laptop"), data=replace(preset_run("laptop").data, sequence_length=129))
    with pytest.raises(InputError, match="micro_batches"):
        TrainConfig(batch_size=5, micro_batches=2)
    with pytest.raises(InputError, match="log_every"):
        TrainConfig(save_every=15)
    with pytest.raises(InputError, match="unknown setting of a run 'extra'"):
        RunConfig.from_dict({**preset_run("laptop").to_dict(), "extra": 1})

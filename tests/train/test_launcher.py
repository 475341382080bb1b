"""Launcher variables against a run's own settings."""

import pytest

from loopscale import InputError
from loopscale.system.launcher import RANKS, check_ranks, own_settings
from loopscale.train import train

WHOLE = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("given", [{}, {"RANK": "0"}, {"LOCAL_RANK": "0"}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_what_says_one_process_is_one(monkeypatch, given):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert check_ranks()


@pytest.mark.parametrize(
    "given",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {**WHOLE, "MASTER_PORT": ""},
        {**WHOLE, "RANK": "2"},
        {**WHOLE, "RANK": "first"},
    ],
)
def test_half_set_variables_are_refused_by_name(monkeypatch, given):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    named = next(name for name in RANKS if given.get(name))
    with pytest.raises(InputError, match=f"{named}={given[named]}"):
        check_ranks()


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_of_mpi_alone_are_refused_and_one_is_one(monkeypatch, run_config, name):
    monkeypatch.setenv(name, "2")
    with pytest.raises(InputError, match=f"{name}=2"):
        check_ranks()
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "0")
    assert train(run_config(max_steps=1), quiet=True).steps == 1


def test_a_whole_set_is_several_processes(monkeypatch):
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert not check_ranks()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_another_way_of_sharing_a_model_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(InputError, match=name), own_settings("float32", False):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp16"),
        ("ACCELERATE_DYNAMO_BACKEND", "eager"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("LOCAL_RANK", "0"),
    ],
)
def test_variables_change_no_weight(run_config, monkeypatch, caplog, name, value):
    plain = train(run_config("plain", max_steps=2), quiet=True)
    monkeypatch.setenv(name, value)
    told = train(run_config("told", max_steps=2), quiet=True)
    assert [p.tolist() for p in told.model.parameters()] == [p.tolist() for p in plain.model.parameters()]
    assert (f"{name}={value} is not followed" in caplog.text) == name.startswith("ACCELERATE")


def test_products_that_are_not_float32_are_told(monkeypatch, caplog):
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with own_settings("float32", False):
        pass
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16" in caplog.text


def test_compiling_without_a_compiler_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"train\.compile needs a C\+\+ compiler"), own_settings("float32", True):
        pass

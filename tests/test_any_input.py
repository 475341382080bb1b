"""Any input is read, or refused in one sentence: random configurations, texts, records, weights and YAML.

A few cases of each here; `pytest tests/test_any_input.py --hypothesis-profile=thorough` makes over a thousand.
"""

import json
import shutil
import signal
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopscale import InputError
from loopscale.cli.options import parser_of
from loopscale.cli.train import run_config
from loopscale.data import load_data
from loopscale.load import load_model
from loopscale.model import LoopedConfig
from loopscale.model.size import require_room
from loopscale.storage import plain, to_json
from loopscale.system.manifest import damage
from loopscale.system.provenance import provenance
from loopscale.train import RunConfig, preset_run, read_run
from loopscale.train.checkpoints import good_checkpoint
from loopscale.train.run_folder import read_record
from tests.helpers import tiny_config, tiny_model

CASES = settings(
    max_examples=70 if settings.get_current_profile_name() == "thorough" else 6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LIMIT = 120  # seconds of a case, on a busy machine

numbers = st.one_of(st.integers(-3, 9), st.sampled_from([10**9, 2**63, 10**400, -(10**20)]), st.floats())
texts = st.one_of(st.text(max_size=8), st.sampled_from(["raw", "rmsnorm", "\ud800", "../..", "\x1b[31m", "0"]))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@contextmanager
def told():
    """Let nothing out of the block but a sentence, in time."""

    def late(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    except InputError as error:
        assert str(error).strip() and "Traceback" not in str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def mutated(draw, document):
    """Draw a document with one value, somewhere in it, another one, gone, or beside one that nobody knows."""
    document = json.loads(json.dumps(document))
    holder = document
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return document
        key = draw(st.sampled_from(keys))
        if isinstance(holder[key], dict | list) and holder[key] and draw(st.booleans()):
            holder = holder[key]
            continue
        match draw(st.sampled_from(("another", "gone", "more"))):
            case "another":
                holder[key] = draw(values)
            case "gone":
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[draw(texts)] = draw(values)
        return document


@CASES
@given(mutated(plain(preset_run("laptop").to_dict())))
def test_any_configuration_of_a_run(document):
    with told():
        require_room(RunConfig.from_dict(document).model_config(None), "it", 1024)


@CASES
@given(mutated(tiny_config().to_dict()))
def test_any_configuration_of_a_model(document):
    with told():
        require_room(LoopedConfig.from_dict(document), "it")


@CASES
@given(data=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".parquet", ".gz", ".arrow", ""])
def test_any_bytes_as_a_text(tmp_path_factory, ending, data):
    folder = tmp_path_factory.mktemp("text")
    (folder / f"text{ending}").write_bytes(data * 9)
    with told():
        load_data(str(folder / f"text{ending}"), "bytes", sequence_length=4, cache_dir=folder / "cache", quiet=True)
    shutil.rmtree(folder)


@CASES
@given(content=st.binary(max_size=60) | values.map(lambda v: to_json(v).encode("utf-8", "surrogatepass")))
def test_any_records_in_the_folder_of_a_run(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    checkpoint = folder / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    names = ("run.json", "training.json", "manifest.json")
    for path in (*(folder / name for name in names), *(checkpoint / name for name in (*names, "trainer_state.json"))):
        path.write_bytes(content)
    for read in (read_run, read_record, good_checkpoint, damage, lambda folder: provenance(str(folder))):
        with told():
            read(folder)
    shutil.rmtree(folder)


@CASES
@given(place=st.floats(0, 1, exclude_max=True), put=st.binary(min_size=1, max_size=30), short=st.booleans())
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_any_damage_of_a_model(saved, name, place, put, short):
    content = (saved / name).read_bytes()
    start = int(place * len(content))
    try:
        (saved / name).write_bytes(content[:start] + put + (b"" if short else content[start + len(put) :]))
        with told():
            load_model(str(saved))
    finally:
        (saved / name).write_bytes(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@CASES
@given(text=st.text(max_size=40) | values.map(lambda value: json.dumps({"model": value, "train": value})))
def test_any_text_as_yaml(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("yaml") / "it.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with told():
        words = ["--config", str(path)]
        run_config(parser_of("train", words).read(words), "out")

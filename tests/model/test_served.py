"""A folder of ours where others serve it: by the Auto classes' trusted code, and over HTTP."""

import json
import socket
import time
import urllib.request
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from loopscale.convert import convert_checkpoint
from loopscale.errors import InputError
from loopscale.model import CACHE, LoopedConfig, LoopedForCausalLM
from loopscale.train.initialisation import inference_tokenizer
from tests.export.byte_level import byte_tokenizer
from tests.helpers import tiny_model

PROMPT, NEW = "def main(", 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and the tokenizer of bytes, with the file that `trust_remote_code` looks for."""
    where = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    tiny_model(vocab_size=256).save_pretrained(where, auto_map=True)
    inference_tokenizer(byte_tokenizer(), 48).save_pretrained(where)
    return where


def expected(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LoopedForCausalLM.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    return tokenizer.decode(model.generate(ids, max_new_tokens=NEW, do_sample=False, pad_token_id=0)[0, ids.shape[1] :])


def test_trusted_code_is_our_own_class(folder, monkeypatch):
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "loopscale")  # as where nobody has imported loopscale
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)) is LoopedConfig
    found = get_class_from_dynamic_module("modeling_loopscale.LoopedForCausalLM", folder)
    assert found is LoopedForCausalLM
    write = pipeline("text-generation", model=str(folder), trust_remote_code=True, device="cpu")
    text = write(PROMPT, max_new_tokens=NEW, do_sample=False, return_full_text=False)[0]["generated_text"]
    assert text == expected(folder)


def test_trusted_code_without_the_package_says_what_to_install(folder, monkeypatch):
    from transformers import dynamic_module_utils as dynamic

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(dynamic, "importlib", SimpleNamespace(**{**vars(dynamic.importlib), "import_module": missing}))
    with pytest.raises(ImportError, match="Run `pip install loopscale`"):
        dynamic.check_imports(folder / "modeling_loopscale.py")


def test_the_file_is_written_on_request_and_stays_until_it_is_not_wanted(folder, tmp_path):
    plain, again = tiny_model(), LoopedForCausalLM.from_pretrained(folder)
    plain.save_pretrained(tmp_path / "plain")
    again.save_pretrained(tmp_path / "again")
    again.save_pretrained(tmp_path / "without", auto_map=False)
    for name, has in (("plain", False), ("again", True), ("without", False)):
        assert (tmp_path / name / "modeling_loopscale.py").is_file() is has
        assert ("auto_map" in json.loads((tmp_path / name / "config.json").read_text())) is has


def test_a_server_finds_the_architecture_by_its_name():
    assert transformers.LoopedForCausalLM is LoopedForCausalLM


def test_servers_with_an_attention_of_their_own_are_told_no():
    """vLLM and SGLang ask before they fall back to transformers, where all loops would share one cache."""
    assert not LoopedForCausalLM.is_backend_compatible()


@pytest.mark.filterwarnings("ignore")  # the server's own
def test_a_server_of_transformers_answers_as_generate_does(folder):
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(
            package, reason="needs what `transformers serve` needs: pip install 'transformers[serving]'"
        )
    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = Serve(force_model=str(folder), port=port, device="cpu", non_blocking=True, log_level="error")
    try:
        body = {"model": str(folder), "prompt": PROMPT, "max_tokens": NEW, "temperature": 0}
        answer = asked(f"http://localhost:{port}/v1/completions", body)
    finally:
        server.kill_server()
    assert answer["choices"][0]["text"] == expected(folder)
    assert answer["usage"]["completion_tokens"] == NEW


def asked(address, body, tries=100):
    request = urllib.request.Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    for _ in range(tries):
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except ConnectionRefusedError:
            time.sleep(0.05)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


def test_continuous_batching_is_refused_in_a_sentence(unchecked_shapes):
    class PagedAttentionCache:
        """What transformers hands to a model there: no `Cache`."""

    with pytest.raises(InputError, match=r"PagedAttentionCache .continuous batching. has no place for one slot per"):
        tiny_model()(input_ids=torch.ones(1, 2, dtype=torch.long), **{CACHE: PagedAttentionCache()})


def test_a_folder_is_converted_to_one_that_is_trusted(folder, tmp_path):
    tiny_model().save_pretrained(tmp_path / "plain")
    written = convert_checkpoint(str(tmp_path / "plain"), tmp_path / "hub", auto_map=True)
    assert (written / "modeling_loopscale.py").is_file()
    with pytest.raises(InputError, match="--auto_map is for folders of ours"):
        convert_checkpoint(str(folder), tmp_path / "other", to="ouro", auto_map=True)

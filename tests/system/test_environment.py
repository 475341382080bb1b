import getpass
import json
import platform
import subprocess
from pathlib import Path

import torch

import loopscale
from loopscale.system import environment as module
from loopscale.system.environment import as_one, environment


def test_facts_are_plain_and_true():
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == platform.python_version()
    assert facts["torch"] == torch.__version__ and facts["torch_threads"] == torch.get_num_threads()
    assert facts["date"].endswith("+00:00")


def test_the_source_is_that_of_the_whole_library():
    assert Path(loopscale.__file__).parent == module.SOURCE


def test_nothing_tells_where_it_ran():
    text = json.dumps(environment())
    assert platform.node() not in text.split('"') and str(Path.home()) not in text and str(Path.cwd()) not in text
    assert getpass.getuser() not in text.split('"')


def commit(folder):
    git = ("git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder))
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run([*git, "add", "pkg/__init__.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "c"], check=True)


def source(folder, monkeypatch):
    package = folder / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(module, "SOURCE", package)
    return package


def test_a_checkout_is_known_by_commit_and_changes(tmp_path, monkeypatch):
    package = source(tmp_path, monkeypatch)
    commit(tmp_path)
    facts = environment()
    assert len(facts["source_revision"]) == 40 and facts["source_dirty"] is False
    (package / "__init__.py").write_text("changed = True\n")
    assert environment()["source_dirty"] is True


def test_another_projects_checkout_around_the_package_does_not_count(tmp_path, monkeypatch):
    commit_other = source(tmp_path / "other", monkeypatch).parent
    commit(commit_other)
    source(tmp_path / "other" / "site-packages", monkeypatch)
    facts = environment()
    assert facts["source_revision"] is None and facts["source_dirty"] is None


def test_a_machine_without_git_has_no_revision(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["source_revision"] is None


def test_several_are_one_with_lists_of_what_differs():
    first = {"date": "2026-01-02", "cpu": "a", "gpu": None}
    second = {"date": "2026-01-01", "cpu": ["b", "a"], "gpu": None, "new": 1}
    third = {"date": "2026-01-03", "cpu": "a", "gpu": None}
    one = as_one([first, second, third])
    assert one == {"date": "2026-01-03", "cpu": ["a", "b"], "gpu": None, "new": [None, 1]}
    assert as_one([first]) == first == as_one([first, first])
    assert as_one([]) == {}

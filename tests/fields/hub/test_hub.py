"""The Hub when things go wrong: tokens, permissions, dropped connections, no network, names and revisions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import HfApi, HfFileSystem
from loopback_env import HUB
from loopback_state import Fault, Hub
from made import rows

from fields.hub import push as pushing
from fields.hub import shards
from fields.hub.options import PublishFields
from fields.hub.push import Push
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import HubName, at, beside, fetch, is_local, scrub
from tokenizers.registry import load_tokenizer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty hub, and no waiting between tries."""
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pushing, "WAIT", 0.0)


@pytest.fixture
def many(tiny, monkeypatch) -> WeightDataset:
    """Ten shards of four fields."""
    monkeypatch.setattr(shards, "shard_rows", lambda size: 4)
    monkeypatch.setattr("fields.hub.push.GROUP", (1, 1 << 30))
    return WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 40), "sizes": [[4, 4]] * 40}})


def command(*words: str, **environment: str) -> subprocess.Popen:
    """scripts/publish.py in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    call = [sys.executable, str(ROOT / "scripts" / "publish.py"), *words]
    return subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# -- who may push ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "repo", "said"),
    [
        ({"HF_TOKEN": None}, "tester/x", "there is no Hub token.*settings/tokens.*dry-run"),
        ({"HF_TOKEN": "hf_junk\u00e9junk"}, "tester/x", "contains invalid characters.*settings/tokens"),
        ({"HF_TOKEN": "hf_junkjunkjunk"}, "tester/x", r"does not accept the token \(401\)"),
        ({"role": "read"}, "tester/x", "has read permission only"),
        ({"role": "fineGrained"}, "tester/x", "fine-grained Hub token has no write permission for tester/x"),
        ({}, "club/x", "not a member of club.*tester/x"),
        ({}, "x", "named user/name"),
        ({}, "a/b/c", "named user/name"),
    ],
)
def test_who_may_not_push_is_told_before_any_work(change, repo, said, dataset, monkeypatch, capsys):
    for name, value in change.items():
        if name == "role":
            HUB.role = value
        elif value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("fields.hub.publish.write_shards", lambda *a: pytest.fail("work before the checks"))
    with pytest.raises(ValueError, match=said) as caught:
        dataset.push_to_hub(repo)
    assert not HUB.repos and not Path("runs").exists()
    text = str(caught.value) + "".join(capsys.readouterr())
    assert HUB.token not in text and "hf_junk" not in text and "\n" not in str(caught.value)


def test_organisations_and_visibility(dataset, capsys):
    HUB.orgs = ["club"]
    dataset.push_to_hub("club/x", private=True)
    assert HUB.repos[("dataset", "club/x")].private and "a new private dataset" in capsys.readouterr().out
    dataset.push_to_hub("club/x")
    assert HUB.repos[("dataset", "club/x")].private and "an existing private" in capsys.readouterr().out
    dataset.push_to_hub("tester/open")
    with pytest.raises(ValueError, match="exists and is public: --private does not change"):
        dataset.push_to_hub("tester/open", private=True)


@pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST .*/batch", "POST .*/commit/"])
def test_a_refusal_on_the_way_leaves_nothing(request_, dataset):
    HUB.faults = [Fault(request_, 403, times=None)]
    with pytest.raises(ValueError, match=r"may not do this \(403\).*Nothing was published") as caught:
        dataset.push_to_hub("tester/x")
    assert not HUB.repos and "\n" not in str(caught.value) and HUB.token not in str(caught.value)


@pytest.mark.parametrize("code", [404, 409, 412])
def test_an_odd_answer_to_the_checks_is_one_line(code, dataset):
    HUB.faults = [Fault("GET /api/whoami", code)]
    with pytest.raises(ValueError, match=f"the Hub answered {code}.*your files are untouched") as caught:
        dataset.push_to_hub("tester/x")
    assert "\n" not in str(caught.value) and not HUB.repos


@pytest.mark.parametrize("repo", ["x", "../../x", "me/..", "me/a..b", "me/a.git", "me/n\u00e4me", "me/" + "x" * 99])
def test_names_that_no_repository_can_have(repo, dataset, tmp_path):
    with pytest.raises(ValueError, match="a repository is named user/name"):
        dataset.push_to_hub(repo, dry_run=True)  # where it is laid out follows from the name
    assert not list(tmp_path.iterdir()) and is_local(repo)


def test_an_existing_repository_that_may_not_be_written_is_found_out_first(dataset, monkeypatch):
    dataset.push_to_hub("tester/x")
    HUB.faults = [Fault("POST .*/preupload/", 403, times=None)]
    monkeypatch.setattr("fields.hub.publish.write_shards", lambda *a: pytest.fail("work before the checks"))
    with pytest.raises(ValueError, match="give it write permission"):
        dataset.push_to_hub("tester/x")


def test_the_command_says_one_line_and_no_token(dataset, tmp_path):
    dataset.save(tmp_path / "d")
    done = command("fields", "d", "tester/x", HF_TOKEN="hf_wrongwrongwrong")
    out = done.communicate(timeout=120)[0]
    assert done.returncode == 1 and out.startswith("error: ") and len(out.splitlines()) == 1 and "hf_wrong" not in out


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_what_passes_is_tried_again(many, capsys):
    HUB.faults = [
        Fault("POST .*/batch", None, times=1, skip=3),
        Fault("POST .*/commit/", 503, times=2),
        Fault("PUT /lfs/", 503, times=1, skip=6),
    ]
    many.push_to_hub("tester/x")
    assert "the Hub answered 503" in capsys.readouterr().err
    assert WeightDataset.load("tester/x").fingerprint == many.fingerprint


def test_a_push_that_ends_early_goes_on_where_it_was(many, monkeypatch):
    monkeypatch.setattr(pushing, "TRIES", 2)
    many.push_to_hub("tester/x", preview=False)  # the first state, to be kept
    before, old = WeightDataset.load("tester/x").fingerprint, HUB.repos[("dataset", "tester/x")].branches["main"]
    more = WeightDataset.from_rows(many.config, {"train": {"weights": rows(many.config, 40, seed=1)}})
    start = HUB.uploaded()
    HUB.faults = [Fault("POST .*/batch", 500, times=None, skip=6)]
    monkeypatch.setattr("huggingface_hub.lfs.http_backoff", no_patience)
    with pytest.raises(RuntimeError, match="Run the same command again: what has arrived is not sent again"):
        more.push_to_hub("tester/x")
    first = HUB.uploaded() - start
    assert HUB.repos[("dataset", "tester/x")].branches["main"] == old
    assert WeightDataset.load("tester/x").fingerprint == before
    HUB.faults = []
    more.push_to_hub("tester/x")
    second = HUB.uploaded() - start - first
    assert first > 0 and second > 0 and WeightDataset.load("tester/x").fingerprint == more.fingerprint
    sent = [path for method, path, _, _ in HUB.log if method == "PUT"]
    assert len(sent) == len(set(sent))  # no content travelled twice
    more.push_to_hub("tester/x")
    assert HUB.uploaded() == start + first + second


def no_patience(method, url, **kwargs):
    """The library's request without its own second tries, which take a minute."""
    from huggingface_hub.utils import get_session

    return get_session().request(method, url, **{k: v for k, v in kwargs.items() if "retry" not in k})


def test_killed_in_the_middle(tiny, tmp_path):
    data = WeightDataset.from_rows(tiny, {n: {"weights": rows(tiny, 5, i)} for i, n in enumerate(["train", "test"])})
    data.save(tmp_path / "d")
    HUB.faults = [Fault("POST .*/commit/", 503, times=None)]
    done = command("fields", "d", "tester/x")
    for _ in range(600):
        time.sleep(0.05)
        if any("/commit/" in path for _, path, _, _ in HUB.log):
            break
    done.send_signal(signal.SIGKILL)
    done.communicate(timeout=60)
    first = HUB.uploaded()
    HUB.faults = []
    data.push_to_hub("tester/x")
    assert first > 0 and HUB.uploaded() == first and WeightDataset.load("tester/x").fingerprint == data.fingerprint


def test_somebody_else_commits_meanwhile(dataset, capsys):
    dataset.push_to_hub("tester/x")
    real, done = Push._commit, []

    def late(self, *args):
        if not done:
            done.append(HfApi().upload_file(path_or_fileobj=b"hello", path_in_repo="NOTES.md", repo_id="tester/x",
                                            repo_type="dataset"))  # fmt: skip
        return real(self, *args)

    Push._commit = late
    try:
        dataset.push_to_hub("tester/x", preview=False)
    finally:
        Push._commit = real
    assert "was changed meanwhile (412)" in capsys.readouterr().err
    assert HUB.files("dataset", "tester/x")["NOTES.md"] == b"hello"
    HUB.faults = [Fault("POST .*/commit/", 409, times=1)]
    dataset.push_to_hub("tester/x")
    assert "preview" in datasets.load_dataset("tester/x", split="train", streaming=True).features


def test_a_lost_answer_to_the_commit_is_no_failure(dataset):
    dataset.push_to_hub("tester/x")
    HUB.faults = [Fault("POST .*/commit/", None, late=True)]
    dataset.push_to_hub("tester/x", preview=False)
    assert len(HUB.repos[("dataset", "tester/x")].commits) == 3  # empty, first, second


# -- names, revisions, no network --------------------------------------------------------------------------------------


def test_names(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "user" / "here").mkdir(parents=True)
    assert is_local("runs/missing") and is_local("user/here") and is_local(Path("a/b")) and is_local("a/b/c")
    assert not is_local("other/name") and not is_local("other/name:meta@v1.0")
    assert HubName.parse("a/b:meta@v1") == HubName("a/b", "meta", "v1")
    assert at("a/b", "v1") == "a/b@v1" and at("a/b@v0", "v1") == "a/b@v0" and at("runs/x", "v1") == "runs/x"
    assert beside("a/b:meta@v1", "gpt") == Path("runs/b/gpt") and beside("runs/x/fields", "gpt") == Path("runs/x/gpt")
    assert scrub("token hf_abcdefgh.") == "token hf_***."


def test_revisions(dataset, tiny):
    dataset.push_to_hub("tester/x")
    HfApi().create_tag("tester/x", tag="v1", repo_type="dataset")
    other = WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 3)}})
    other.push_to_hub("tester/x", revision="trial", variant="conditioned")
    assert WeightDataset.load("tester/x").fingerprint == dataset.fingerprint
    assert WeightDataset.load("tester/x@trial").fingerprint == other.fingerprint
    other.push_to_hub("tester/x", variant="conditioned")
    assert WeightDataset.load("tester/x").fingerprint == other.fingerprint
    assert WeightDataset.load("tester/x", revision="v1").fingerprint == dataset.fingerprint
    with pytest.raises(FileNotFoundError, match="has no revision 'v2'"):
        WeightDataset.load("tester/x@v2")
    with pytest.raises(ValueError, match="--revision v1 is a tag"):
        other.push_to_hub("tester/x", revision="v1")
    other.push_to_hub("tester/y", revision="trial")
    assert WeightDataset.load("tester/y@trial").fingerprint == other.fingerprint
    other.push_to_hub("tester/y", revision="same")  # nothing new to send, but a branch to make
    assert WeightDataset.load("tester/y@same").fingerprint == other.fingerprint


def test_without_a_network_the_cache_serves_at_once(dataset, tmp_path, monkeypatch):
    dataset.push_to_hub("tester/cached")
    assert WeightDataset.load("tester/cached").fingerprint == dataset.fingerprint
    dataset.save(tmp_path / "local")
    HUB.log.clear()
    WeightDataset.load(tmp_path / "local")
    WeightDataset.load(str(tmp_path / "local"))
    assert not HUB.log
    HUB.faults = [Fault("", None, times=None)]  # nothing answers any more
    HUB.log.clear()
    assert WeightDataset.load("tester/cached").fingerprint == dataset.fingerprint
    for load in (WeightDataset.load, load_tokenizer):
        with pytest.raises(FileNotFoundError, match="the Hub does not answer.*not .completely. in the cache") as caught:
            load("tester/never-seen")
        assert "\n" not in str(caught.value)
    assert len(HUB.log) <= 6  # asked, but not again and again
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert WeightDataset.load("tester/cached").fingerprint == dataset.fingerprint
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set"):
        WeightDataset.load("tester/never-seen")
    with pytest.raises(RuntimeError, match="HF_HUB_OFFLINE is set, so nothing can be pushed"):
        dataset.push_to_hub("tester/x")


def test_a_cache_below_a_folder_called_snapshots(dataset, tmp_path, monkeypatch):
    dataset.push_to_hub("tester/x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "snapshots" / "hub"))
    assert WeightDataset.load("tester/x", stream=True).fingerprint == dataset.fingerprint


def test_a_stream_without_a_network_is_read_from_the_cache(dataset, monkeypatch):
    for name in ("whole", "small"):
        dataset.push_to_hub(f"tester/{name}")
    WeightDataset.load("tester/whole")
    WeightDataset.load("tester/small", stream=True)
    HfFileSystem.clear_instance_cache()
    HUB.faults = [Fault("", None, times=None)]
    assert torch.equal(WeightDataset.load("tester/whole", stream=True).weights("test"), dataset.weights("test"))
    with pytest.raises(RuntimeError, match="tester/small cannot be streamed.*not in the cache") as caught:
        WeightDataset.load("tester/small", stream=True)
    assert "\n" not in str(caught.value)


def test_private_things_need_the_token(dataset, monkeypatch):
    dataset.push_to_hub("tester/secret", private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FileNotFoundError, match="If it is private, log in"):
        fetch("tester/secret", "dataset", flag="--fields")


def test_the_loopback_hub_agrees_with_the_libraries(tmp_path):
    """What other tests rely on, by the libraries' own calls."""
    two = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": [1, 2, 3]})})
    two.push_to_hub("tester/d")
    two.push_to_hub("tester/d", "other")
    assert datasets.load_dataset("tester/d", "other", cache_dir=str(tmp_path))["train"]["x"][:] == [1, 2, 3]
    assert len(list(datasets.load_dataset("tester/d", split="train", streaming=True))) == 3
    api = HfApi()
    api.create_branch("tester/d", branch="b", repo_type="dataset")
    assert [b.name for b in api.list_repo_refs("tester/d", repo_type="dataset").branches] == ["main", "b"]
    assert "README.md" in api.list_repo_files("tester/d", repo_type="dataset", revision="b")
    api.delete_repo("tester/d", repo_type="dataset")
    assert not HUB.repos and isinstance(HUB, Hub) and json.dumps(HUB.log)


@pytest.mark.parametrize("revision", ["a b", "a..b", "-x", "x.lock", "x/", "a~1", "é", ""])
def test_branches_that_git_refuses_are_refused_first(revision):
    with pytest.raises(ValueError, match="--revision names a branch"):
        PublishFields(Path("d"), "user/name", revision=revision)
    assert PublishFields(Path("d"), "user/name", revision="v1.0/try-2").revision

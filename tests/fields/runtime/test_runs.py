"""Output folders and launching."""

import errno
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from fields.runtime import launch, locks, runs


def test_atomic_file_replaces_or_leaves(tmp_path):
    path = tmp_path / "a.json"
    runs.write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), runs.write_atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert runs.read_json(path) == {"x": 1} and os.listdir(tmp_path) == ["a.json"]


def test_replaced_folder_is_whole_or_the_old_one(tmp_path):
    with runs.replace_folder(tmp_path / "d") as new:
        (new / "one").write_text("1")
    with pytest.raises(RuntimeError), runs.replace_folder(tmp_path / "d") as new:
        (new / "two").write_text("2")
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == ["d"] and os.listdir(tmp_path / "d") == ["one"]


def test_claim_names_what_differs(tmp_path):
    assert not runs.claim(tmp_path / "d", {"a": 1, "threads": 2}, parents={"fields": "f"}, free=("threads",))
    assert runs.claim(tmp_path / "d", {"a": 1, "threads": 9}, parents={"fields": "f"}, free=("threads",))
    with pytest.raises(ValueError, match="a: 1 there, 2 now"):
        runs.claim(tmp_path / "d", {"a": 2, "threads": 2}, parents={"fields": "f"})
    with pytest.raises(ValueError, match="parent fields"):
        runs.claim(tmp_path / "d", {"a": 1, "threads": 2}, parents={"fields": "g"})
    run = json.loads((tmp_path / "d" / "run.json").read_text())
    assert run["config"] == {"a": 1, "threads": 2} and run["versions"]["torch"] and run["command"] == sys.argv
    (tmp_path / "d" / "mine.txt").touch()
    with pytest.raises(ValueError, match="not by this command"):
        runs.claim(tmp_path / "d", {"b": 1, "overwrite": True})
    assert not runs.claim(tmp_path / "d", {"a": 2, "threads": 2, "overwrite": True})
    assert runs.claim(tmp_path / "d", {"a": 2, "threads": 2}), "that it was overwritten is not part of its settings"
    assert os.listdir(tmp_path / "d") == ["run.json"] and os.listdir(tmp_path) == ["d"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="no run.json"):
        runs.claim(tmp_path / "other", {})


def test_only_what_the_command_made_is_overwritten(tmp_path):
    runs.claim(tmp_path / "d", {"a": 1}, kind="fit")
    runs.claim(tmp_path / "d" / "inner", {"a": 1}, kind="sample")
    with pytest.raises(ValueError, match="was made by fit, not by this command"):
        runs.claim(tmp_path / "d", {"a": 1, "overwrite": True}, kind="train_gpt")
    with pytest.raises(ValueError, match="was made by fit, not by this command"):
        runs.claim(tmp_path / "d", {"a": 1}, kind="train_gpt")
    with pytest.raises(ValueError, match="inner was made by another command"):
        runs.claim(tmp_path / "d", {"a": 1, "overwrite": True}, kind="fit")
    assert (tmp_path / "d" / "inner" / "run.json").is_file()
    assert not runs.claim(tmp_path / "d", {"a": 1, "overwrite": True}, kind="fit", parts=True)
    assert os.listdir(tmp_path / "d") == ["run.json"]


def test_unreadable_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="a.json is not readable JSON"):
        runs.read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="make it"):
        runs.read_json(tmp_path / "b.json", "make it")


def test_digest_sees_values_types_and_order():
    assert runs.digest(torch.arange(3)) == runs.digest(np.arange(3))
    assert len({runs.digest(x) for x in (torch.arange(3), torch.arange(3.0), torch.zeros(3), "a", b"a")}) == 5
    assert runs.digest({"a": 1, "b": 2}) == runs.digest({"b": 2, "a": 1})
    assert runs.digest("a", "b") != runs.digest("ab")


def test_processes_that_do_not_work_together_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were asked for .*ACCELERATE_USE_CPU=true"):
        launch.check_world(1)
    launch.check_world(2)


def test_threads_are_checked():
    with pytest.raises(ValueError, match="--threads"):
        launch.start(threads=0)


def test_what_auto_came_to_must_stay(tmp_path):
    """A run on another machine goes on in the precision it began in, or is refused by name."""
    how = {"kind": "train_gpt"}
    runs.claim(tmp_path / "d", {"precision": "auto", "lr": 1}, used={"precision": "fp32"}, **how)
    assert runs.claim(tmp_path / "d", {"precision": "fp32", "lr": 1}, used={"precision": "fp32"}, **how)
    with pytest.raises(
        ValueError, match="was made with precision fp32, here it would be bf16. Go on with --precision fp32"
    ):
        runs.claim(tmp_path / "d", {"precision": "auto", "lr": 1}, used={"precision": "bf16"}, **how)
    with pytest.raises(ValueError, match="lr: 1 there, 2 now"):
        runs.claim(tmp_path / "d", {"precision": "auto", "lr": 2}, used={"precision": "fp32"}, **how)
    runs.claim(tmp_path / "old", {"precision": "auto"})
    with pytest.raises(ValueError, match="precision"):
        runs.claim(tmp_path / "old", {"precision": "bf16"}, used={"precision": "bf16"}, **how)


@pytest.mark.parametrize(
    "asked, name",
    [
        ({"a": 1, "threads": 9, "overwrite": False}, "gpt"),
        ({"a": 2}, "gpt-a-2"),
        ({"a": 1, "labels": True}, "gpt-labels"),
        ({"a": 1, "rate": 0.0015, "grid": (4, 8)}, "gpt-grid-4x8-rate-0.0015"),
        ({"a": 1, "model": {"n_layer": 2, "dropout": 0.0}}, "gpt-n-layer-2"),
        ({"a": 1, "threads": 3, "signals": "../my pictures"}, "gpt-signals-my pictures"),
        ({"a": 1, "content": "12 signals, digest 0123456789abcdef"}, "gpt-content-012345"),
        ({"a": 2, "overwrite": True}, "gpt"),
    ],
)
def test_a_default_folder_carries_what_differs(tmp_path, capsys, asked, name):
    first = {
        "a": 1,
        "labels": False,
        "rate": 0.001,
        "grid": (4, 4),
        "threads": 1,
        "model": {"n_layer": 1, "dropout": 0.0},
    }
    first |= {"signals": "digits", "content": "2 signals, digest fedcba9876543210"}
    runs.claim(tmp_path / "gpt", first, free=("threads",), kind="train")
    found = runs.vacant(tmp_path / "gpt", first | asked, free=("threads",), kind="train")
    assert found == tmp_path / name and found == runs.vacant(
        tmp_path / "gpt", first | asked, free=("threads",), kind="train"
    )
    assert (f"so this goes to {found}" in capsys.readouterr().out) == (name != "gpt")


def test_a_default_folder_is_named_for_what_it_is_made_from(tmp_path):
    def vacant(**more):
        return runs.vacant(tmp_path / "pca", {"fields": "runs/fields2"}, free=("fields",), kind="build", **more).name

    assert vacant(parents={"fields": "0123456789abcdef"}) == "pca"
    runs.claim(tmp_path / "pca", {}, parents={"fields": "0123456789abcdef"}, kind="build")
    assert vacant(parents={"fields": "0123456789abcdef"}) == "pca"
    assert vacant(parents={"fields": "fedcba9876543210"}) == "pca-fields2"
    many = runs.vacant(
        tmp_path / "pca", {f"setting_{i}": i for i in range(40)}, parents={"fields": "0" * 16}, kind="build"
    )
    assert re.fullmatch("pca-[0-9a-f]{8}", many.name)


def test_folders_that_cannot_be_are_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out, said in (
        ("gone", "is a link to .*nowhere, which"),
        ("loop", "is a link to"),
        ("file/x/y", ".*file is a file"),
    ):
        with pytest.raises(ValueError, match=f"--out .*{out}.*{said}"):
            runs.claim(tmp_path / out, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "gone", "loop"]


@pytest.mark.parametrize(
    "number, said", [(errno.EFBIG, "ulimit -f"), (errno.EROFS, "can only be read"), (errno.EDQUOT, "quota")]
)
def test_errors_of_the_system_say_what_to_do(number, said):
    for error in (OSError(number, os.strerror(number)), OSError(number, os.strerror(number), "a/b.json")):
        told = launch.sentence(error)
        assert (
            said in told
            and "Errno" not in told
            and told.startswith("a/b.json: " if error.filename else os.strerror(number))
        )


def test_a_moved_folder_is_the_same_folder(tmp_path):
    made = {"model": "runs/gpt", "out": "runs/s", "n": 2}
    runs.claim(tmp_path / "s", made, parents={"model": "0123"})
    os.rename(tmp_path / "s", tmp_path / "t")
    moved = {"model": "/elsewhere/gpt", "out": "/elsewhere/t", "n": 2}
    assert runs.claim(tmp_path / "t", moved, parents={"model": "0123"})
    with pytest.raises(ValueError, match="parent model: '0123' there, '4567' now"):
        runs.claim(tmp_path / "t", moved, parents={"model": "4567"})


def test_done_is_done_while_its_files_and_what_they_are_made_of_stay(tmp_path):
    out = tmp_path / "o"
    with locks.scope():
        runs.claim(out, {"a": 1})
        (out / "table.md").write_text("one")
        assert not runs.is_finished(out, ["x"])
        runs.finish(out, of=["x"])
        assert runs.is_finished(out, ["x"]) and runs.claim(out, {"a": 1})
        assert not runs.is_finished(out, ["y"])
        assert not runs.is_finished(out, ["x"])  # it may be half made of y by now
        for damage in (lambda p: p.unlink(), lambda p: p.write_text("cut")):
            (out / "table.md").write_text("whole")
            runs.finish(out, ["table.md"], of=["x"])
            damage(out / "table.md")
            assert not runs.is_finished(out, ["x"])


def test_an_equal_file_keeps_its_time(tmp_path):
    path = tmp_path / "o.png"
    for text, kept in (("a", False), ("a", True), ("b", False)):
        with runs.only_file(path) as temporary:
            temporary.write_text(text)
        assert (path.stat().st_mtime == 1) == kept and path.read_text() == text
        os.utime(path, (1, 1))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the names of open files are read from /proc")
def test_what_is_named_is_on_the_disk_before(tmp_path, monkeypatch):
    """Power may fail at any moment: content, then the name, then the folder that holds the name."""
    seen, sync, replace = [], os.fsync, os.replace

    def fsync(handle):
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append("named"), replace(old, new)))
    with runs.write_atomic(tmp_path / "new" / "deep" / "a.json") as temporary:
        temporary.write_text("1")
    assert seen == [tmp_path.name, "new", temporary.name, "named", "deep"]
    seen.clear()
    with runs.replace_folder(tmp_path / "o") as folder:
        (folder / "data").mkdir()
        (folder / "data" / "rows").write_text("1")
    assert seen == ["rows", folder.name, "data", "named", tmp_path.name]


def test_an_output_folder_that_disappears_is_not_made_again_in_part(tmp_path):
    out = tmp_path / "o"
    with locks.scope():
        runs.claim(out, {"a": 1})
        with pytest.raises(RuntimeError, match="o was removed.*Run the same command again"), runs.replace_folder(out):
            shutil.rmtree(out)
        with pytest.raises(RuntimeError, match="was removed"):
            runs.write_json(out / "deep" / "a.json", {})
        assert not os.listdir(tmp_path)[1:] and not out.exists()
        (out / "empty").mkdir(parents=True)  # what other libraries make is no obstacle
    with locks.scope():
        assert not runs.claim(out, {"a": 1})
        runs.write_json(out / "a.json", {})

"""One writer a folder, and what dead ones leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fields.runtime import files, locks, runs

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys, time
sys.path.insert(0, {root!r})
from fields.runtime import locks, runs
from pathlib import Path
with locks.scope():
    runs.claim(Path({out!r}), {{"a": 1}})
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/o."""
    words = [sys.executable, "-c", HOLDER.format(root=str(ROOT), out=str(tmp_path / "o"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_second_writer_is_told_of_the_first_until_that_ends(tmp_path, holder):
    said = rf"is being written by process {holder.pid} on .* since .*Wait for it"
    with pytest.raises(RuntimeError, match=said), locks.scope():
        runs.claim(tmp_path / "o", {"a": 1})
    holder.communicate("\n")
    assert not locks.lock_file(tmp_path / "o").exists()
    with locks.scope():
        assert runs.claim(tmp_path / "o", {"a": 1})
    assert os.listdir(tmp_path) == ["o"]


def test_a_killed_writer_is_followed_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert locks.lock_file(tmp_path / "o").exists()
    with locks.scope():
        assert runs.claim(tmp_path / "o", {"a": 1}) and locks.held() == [tmp_path / "o"]
        assert runs.claim(tmp_path / "o", {"a": 1})  # the same process
    assert os.listdir(tmp_path) == ["o"] and not locks.held()


def test_of_another_machine_is_said(tmp_path, capsys):
    locks.lock_file(tmp_path / "o").write_text('{"host": "elsewhere", "pid": 1, "since": "then", "command": ["c"]}')
    locks.take(tmp_path / "o")
    assert "taking over from process 1 on elsewhere since then (c)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": 3, "command": "x"}'])
def test_a_damaged_lock_holds_nobody_up(tmp_path, text):
    locks.lock_file(tmp_path / "o").write_text(text)
    locks.take(tmp_path / "o")


def test_disks_without_locks_ask_for_the_process(tmp_path, monkeypatch, holder):
    def unknown(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", unknown)
    with pytest.raises(RuntimeError, match=f"process {holder.pid}"):
        locks.take(tmp_path / "o")
    holder.kill()
    holder.wait()
    locks.take(tmp_path / "o")


def dead() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    gone, here = dead(), files.host()
    out, lives = tmp_path / "o", f"{os.getppid()}-{files.process_mark(os.getppid())}34567"
    for name in (
        f"o/.data-new-{here}-{gone}-01234567", f".o-new-{here}-{gone}-01234567", f"o/.kept-old-{here}-{gone}-01234567",
        f"o/.a.b-new-{here}-{lives}", f"o/.c-new-ffffff-{gone}-01234567", "o/.hidden-file", "o/deep",
    ):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    (out / "deep" / f".model-new-{here}-{gone}-01234567.png").touch()
    files.sweep(out)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert left == [
        "o", f"o/.a.b-new-{here}-{lives}", f"o/.c-new-ffffff-{gone}-01234567", "o/.hidden-file",
        "o/deep", "o/kept",
    ]  # fmt: skip


def test_a_folder_with_leftovers_alone_is_free(tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / f".run-new-{files.host()}-{dead()}-01234567.json").touch()
    assert not runs.claim(tmp_path / "o", {"a": 1})
    assert os.listdir(tmp_path / "o") == ["run.json"]


def test_a_process_id_that_is_used_again_protects_no_leftover(tmp_path):
    """As in a container, where each start has the same few ids."""
    mine = files.temporary_name(tmp_path / "o" / "a.json")
    assert mine.name.split("-")[-1][:3] == files.process_mark(os.getpid())
    other = next(f"{i:03x}" for i in range(2) if f"{i:03x}" != files.process_mark(os.getpid()))
    (tmp_path / "o").mkdir()
    mine.touch()
    (tmp_path / "o" / f".b-new-{files.host()}-{os.getpid()}-{other}34567").mkdir()
    files.sweep(tmp_path / "o")
    assert os.listdir(tmp_path / "o") == [mine.name]


def test_locks_of_parts_go_with_their_dead_owners(tmp_path, holder):
    """A part that is finished is not claimed again, so its lock is removed by whoever claims the whole."""
    whole = tmp_path / "whole"
    (whole / "part" / "deep").mkdir(parents=True)
    theirs = {"a": f'{{"host": "x", "pid": {dead()}}}', "b": "", "c": '{"not": "a lock of ours"}'}
    for name, text in theirs.items():
        locks.lock_file(whole / "part" / name).write_text(text)
    locks.lock_file(whole / "part" / "deep" / "d").touch()
    with locks.scope():
        locks.take(whole / "part" / "held")
        locks.clear(whole, 3)
        assert sorted(p.name for p in (whole / "part").glob(".*")) == [".c.lock", ".held.lock"]
        assert not any((whole / "part" / "deep").iterdir())
    locks.clear(tmp_path, 3)
    assert locks.lock_file(tmp_path / "o").exists()  # of one who lives


def test_one_file_has_one_writer_and_no_leftovers(tmp_path):
    out = tmp_path / "o.png"
    (tmp_path / f".o-new-{files.host()}-{dead()}-01234567.png").touch()
    (tmp_path / f".other-new-{files.host()}-{dead()}-01234567.png").touch()
    with runs.only_file(out) as temporary:
        assert locks.held() == [out]
        temporary.write_bytes(b"1")
    assert out.read_bytes() == b"1" and not locks.held()
    assert sorted(os.listdir(tmp_path))[0].startswith(".other") and len(os.listdir(tmp_path)) == 2

"""Runs commands in children of one warmed-up process, killed before a chosen file operation; no test itself.

    python crash.py SPEC.json

SPEC holds `root` (a scratch folder), `before` and `commands` (name -> words, writing below in/ and work/) and `points` (crash
points tried per command, evenly spread; 0 = all; without it two processes run each command at once). A JSON report per command goes to stdout, one a line.
"""

import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link")
TIMES = re.compile(r"second|speed|time|since|minutes|per_s|checksum")
"""Keys of JSON whose values differ from run to run; the checksum is of the others, too."""


def watch(root: str, at: int) -> None:
    """Kill this process before its file operation number `at` below root; count them if `at` is negative."""
    seen = [0]

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event == "ctypes.dlsym":
            if args[1] != "renameat2":
                return
            path = root
        elif event in EVENTS:
            path = args[0]
        else:
            return
        if not isinstance(path, int) and not os.path.abspath(os.fsdecode(path)).startswith(root):
            return
        if seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1
        if at < 0:
            os.write(3, b".")

    sys.addaudithook(hook)


def child(words: list[str], root: Path, at: int | None, log: Path, counter: Path | None = None) -> int:
    """Exit code of one command in a forked child; negative when it was killed."""
    return end(begin(words, root, at, log, counter))


def end(pid: int) -> int:
    """Wait for a child; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begin(words: list[str], root: Path, at: int | None, log: Path, counter: Path | None = None) -> int:
    """A forked child that runs a command; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(root)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if counter is not None:
            os.dup2(os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 3)
        sys.argv = list(words)
        if at is not None:
            watch(str(root / "work"), at)
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(CHECKOUT / words[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def tree(folder: Path) -> dict[str, str]:
    """Relative name -> digest of all files; times in JSON do not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix in (".json", ".jsonl"):
                rows = [json.loads(line) for line in (data.split(b"\n") if path.suffix == ".jsonl" else [data]) if line]
                data = json.dumps([_timeless(row) for row in rows], sort_keys=True).encode()
            elif path.name in ("compare.md", "comparison.md") or path.suffix == ".html":
                data = b"speeds stand in it, or the command"
            elif path.suffix == ".md":
                data = re.sub(rb"[\d.,]+ (?:s|ms|min|minutes|seconds|fields/s)\b", b"", data)
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
        elif path.is_dir() and not any(path.iterdir()):
            found[str(path.relative_to(folder)) + "/"] = ""
    return found


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not TIMES.search(k) and k != "command"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def fresh(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()


def try_points(name: str, words: list[str], root: Path, points: int) -> dict:
    """All (or some) crash points of one command, and what the next start of the same command made of each."""
    work, log, counter = root / "work", root / "log.txt", root / "count.txt"
    fresh(work)
    code = child(words, root, -1, log, counter)
    if code:
        return {"name": name, "failed": f"exit {code}: {log.read_text(errors='replace')[-1500:]}"}
    wanted, total = tree(work), len(counter.read_bytes())
    chosen = list(range(total)) if not points or points >= total else [i * total // points for i in range(points)]
    problems = []
    for at in chosen:
        fresh(work)
        code = child(words, root, at, log)
        if code != -signal.SIGKILL:
            problems.append(f"point {at}: not reached (exit {code})")
            continue
        code = child(words, root, None, log)
        found = tree(work)
        if code:
            problems.append(f"point {at}: the next start ends with {code}: {log.read_text(errors='replace')[-400:]}")
        elif found != wanted:
            names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            problems.append(f"point {at}: differs in {names[:6]}")
    return {"name": name, "points": len(chosen), "of": total, "problems": problems}


def try_two(name: str, words: list[str], root: Path) -> dict:
    """Two processes with the same command at once, then the same command with --overwrite."""
    work, logs = root / "work", [root / "log.txt", root / "other.txt"]
    fresh(work)
    if code := child(words, root, None, logs[0]):
        return {"name": name, "failed": f"exit {code}: {logs[0].read_text(errors='replace')[-1500:]}"}
    wanted, problems = tree(work), []

    def compare(what: str) -> None:
        found = tree(work)
        if found != wanted:
            names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            problems.append(f"{what}: differs in {names[:6]}")

    fresh(work)
    codes = [end(pid) for pid in [begin(words, root, None, log) for log in logs]]
    said = [(log.read_text(errors="replace").strip().splitlines() or [""])[-1] for log in logs]
    for code, text in zip(codes, said, strict=True):
        if code and not (code == 1 and text.startswith("error: ") and "is being written by process" in text):
            problems.append(f"two at once: exit {code}, {text}")
    if all(codes):
        problems.append(f"two at once: neither did the work, {said}")
    compare("two at once")
    if code := child([*words, "--overwrite"], root, None, logs[0]):
        problems.append(f"--overwrite: exit {code}, {logs[0].read_text(errors='replace')[-400:]}")
    compare("--overwrite")
    return {"name": name, "refused": sum(map(bool, codes)), "problems": problems}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    sys.path.insert(0, str(CHECKOUT))
    sys.path = [p for p in sys.path if Path(p).name != "support"]
    root = Path(spec["root"])
    import torch

    torch.set_num_threads(1)
    for module in spec["modules"]:  # warm: a child then starts in no time
        __import__(module)
    for name, words in spec["before"].items():
        if code := child(words, root, None, root / "log.txt"):
            print(json.dumps({"name": name, "failed": f"exit {code}: {(root / 'log.txt').read_text()[-1500:]}"}))
            return
    for name, words in spec["commands"].items():
        found = try_points(name, words, root, spec["points"]) if "points" in spec else try_two(name, words, root)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

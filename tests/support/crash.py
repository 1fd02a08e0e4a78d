"""Commands killed before a chosen file operation and started again, or two of them at once; no test itself.

They are run by `warm.Warm` in a scratch folder, read what lies in its in/ and write below work/.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from warm import Warm

CPU = {"environment": {"ACCELERATE_USE_CPU": "true"}}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link")
TIMES = re.compile(r"second|speed|time|since|minutes|per_s|checksum|finished")
"""Keys of JSON whose values differ from run to run; the checksum and the sizes of files depend on the others."""


def watch(root: str, at: int, counter: str | None = None, fault: int | str | None = None) -> None:
    """Kill this process before its file operation number `at` below root; count them in a file if `at` is negative.

    Args:
        root: all that lies below it is watched.
        at: the operation.
        counter: a file that gets a byte for each operation.
        fault: instead of being killed, the operation and those that make files after it fail with this number of the
            system, or the output folder is gone ("gone").
    """
    seen, busy = [0], [False]
    count = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if counter else None

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
        if busy[0] or (not isinstance(path, int) and not os.path.abspath(os.fsdecode(path)).startswith(root)):
            return
        seen[0] += 1
        if fault is None and seen[0] == at + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "gone" and seen[0] == at + 1:
            busy[0] = True
            shutil.rmtree(os.path.join(root, "o"), ignore_errors=True)
            busy[0] = False
        elif isinstance(fault, int) and seen[0] > at >= 0 and event in ("open", "os.mkdir", "os.rename"):
            raise OSError(fault, os.strerror(fault), path)
        if count is not None:
            os.write(count, b".")

    sys.addaudithook(hook)


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


def times(folder: Path) -> dict[str, int]:
    """Relative name -> when it was written, of all files."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not TIMES.search(k) and k != "command"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def fresh(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()


def try_points(warm: Warm, words: list[str], root: Path, points: int) -> dict:
    """Crash points of one command, evenly spread, and what the next start of the same command made of each."""
    work, log, counter = root / "work", root / "log.txt", root / "count.txt"
    fresh(work)
    code = warm.run(words, root, log, **CPU, at=-1, counter=str(counter))
    if code:
        return {"failed": f"exit {code}: {log.read_text(errors='replace')[-1500:]}"}
    wanted, total = tree(work), len(counter.read_bytes())
    chosen = list(range(total)) if points >= total else [i * total // points for i in range(points)]
    problems = []
    for at in chosen:
        fresh(work)
        code = warm.run(words, root, log, **CPU, at=at)
        if code != -signal.SIGKILL:
            problems.append(f"point {at}: not reached (exit {code})")
            continue
        code = warm.run(words, root, log, **CPU)
        found = tree(work)
        if code:
            problems.append(f"point {at}: the next start ends with {code}: {log.read_text(errors='replace')[-400:]}")
        elif found != wanted:
            names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            problems.append(f"point {at}: differs in {names[:6]}")
    return {"points": len(chosen), "of": total, "problems": problems}


def try_faults(warm: Warm, words: list[str], root: Path, points: int, fault: int | str) -> dict:
    """As `try_points`, with a disk that is full (or as `fault` says) from the chosen operation on instead of a kill."""
    work, log, counter = root / "work", root / "log.txt", root / "count.txt"
    fresh(work)
    if code := warm.run(words, root, log, **CPU, at=-1, counter=str(counter)):
        return {"failed": f"exit {code}: {log.read_text(errors='replace')[-1500:]}"}
    wanted, total, problems = tree(work), len(counter.read_bytes()), []
    for at in sorted({i * total // points for i in range(points)}):
        fresh(work)
        code = warm.run(words, root, log, **CPU, at=at, fault=fault)
        said = log.read_text(errors="replace").strip().splitlines() or [""]
        left = sorted(str(p.relative_to(work)) for p in work.rglob(".*-new-*"))
        if code not in (0, 1) or (code and not said[-1].startswith("error: ")) or "Traceback" in "\n".join(said):
            problems.append(f"point {at}: exit {code}, {' | '.join(said[-3:])[-500:]}")
        if left:
            problems.append(f"point {at}: left {left}")
        if code := warm.run(words, root, log, **CPU):
            problems.append(f"point {at}: the next start ends with {code}: {log.read_text(errors='replace')[-400:]}")
        elif (found := tree(work)) != wanted:
            names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            problems.append(f"point {at}: differs in {names[:6]}")
    return {"points": points, "of": total, "problems": problems}


def try_signals(warm: Warm, words: list[str], root: Path, seed: int) -> dict:
    """Each stopping signal once, at random moments of a command, and what the next start of the same command makes of it."""
    work, log, moment = root / "work", root / "log.txt", random.Random(seed)
    fresh(work)
    began = time.monotonic()
    if code := warm.run(words, root, log, **CPU):
        return {"failed": f"exit {code}: {log.read_text(errors='replace')[-1500:]}"}
    seconds, wanted, problems = time.monotonic() - began, tree(work), []
    for number in SIGNALS:
        fresh(work)
        pid = warm.begin(words, root, log, **CPU)
        time.sleep(moment.uniform(0.02, seconds))
        os.kill(pid, number)
        code = warm.end(pid)
        said = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
        stopped = re.fullmatch(
            rf"stopped by {number.name}; (nothing was written|run the same .*|its work was .*)\.", said
        )
        if code and not (code == 128 + number and stopped):
            problems.append(f"{number.name}: exit {code}, {said}")
        if code and stopped and (stopped[1].startswith("nothing") == any(p.is_file() for p in work.rglob("*"))):
            problems.append(f"{number.name}: {said} But there is {sorted(tree(work))[:5]}")
        if left := [str(p) for p in work.rglob(".*") if p.name.endswith(".lock") or "-new-" in p.name]:
            problems.append(f"{number.name}: left {left}")
        if (code := warm.run(words, root, log, **CPU)) or tree(work) != wanted:
            problems.append(f"{number.name}: the next start ends with {code}, {log.read_text(errors='replace')[-400:]}")
    return {"problems": problems}


def try_two(warm: Warm, words: list[str], root: Path) -> dict:
    """A command that is done once more, which changes nothing; two of it at once; then --overwrite, where it has that."""
    work, logs = root / "work", [root / "log.txt", root / "other.txt"]
    fresh(work)
    if code := warm.run(words, root, logs[0], **CPU):
        return {"failed": f"exit {code}: {logs[0].read_text(errors='replace')[-1500:]}"}
    wanted, problems, before = tree(work), [], times(work)
    if code := warm.run(words, root, logs[0], **CPU):
        problems.append(f"again: exit {code}, {logs[0].read_text(errors='replace')[-400:]}")
    if touched := sorted(k for k, v in times(work).items() if before.get(k) != v):
        problems.append(f"again, though it was done: {touched[:6]} were written")

    def compare(what: str) -> None:
        found = tree(work)
        if found != wanted:
            names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            problems.append(f"{what}: differs in {names[:6]}")

    fresh(work)
    codes = [warm.end(pid) for pid in [warm.begin(words, root, log, **CPU) for log in logs]]
    said = [(log.read_text(errors="replace").strip().splitlines() or [""])[-1] for log in logs]
    for code, text in zip(codes, said, strict=True):
        if code and not (code == 1 and text.startswith("error: ") and "is being written by process" in text):
            problems.append(f"two at once: exit {code}, {text}")
    if all(codes):
        problems.append(f"two at once: neither did the work, {said}")
    compare("two at once")
    code = warm.run([*words, "--overwrite"], root, logs[0], **CPU)
    if code and "unknown: --overwrite" not in logs[0].read_text(errors="replace"):
        problems.append(f"--overwrite: exit {code}, {logs[0].read_text(errors='replace')[-400:]}")
    compare("--overwrite")
    return {"refused": sum(map(bool, codes)), "problems": problems}

"""Commands as forks of one process that has imported the libraries already; no test itself.

Importing them takes seconds, more than most commands in tests compute. Exit code, output, signals and files are those of a
process of its own; what only a fresh interpreter shows (imports, paths, the environment at its start) is not tried here.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = (
    "torch.utils.data", "accelerate", "datasets", "pyarrow.parquet", "sklearn.cluster", "matplotlib.figure", "tyro",
    "matplotlib.backends.backend_agg", "fields.fitting.fit", "fields.fitting.align", "fields.formats.exporter",
    "fields.formats.importer", "tokenizers.registry", "tokenizers.tokens", "gpt.pipeline", "gpt.sampling.sample",
    "gpt.evaluation.evaluate",
)  # fmt: skip


class Warm:
    """The process that forks. A command is a script below the checkout or `-m` and a module, with its arguments."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], text=True, env=environment, **pipes)

    def _ask(self, **values) -> int:
        self.process.stdin.write(json.dumps(values) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def begin(self, words: list[str], folder: Path, log: Path, **how) -> int:
        """Start a command in a folder; its process id.

        Args:
            log: where its output goes.
            how: `environment`, variables to set; `at`, `counter` and `fault` of `crash.watch`.
        """
        Path(log).write_text("")  # nothing of a command before, from now on
        return self._ask(words=[str(word) for word in words], folder=str(folder), log=str(log), **how)

    def end(self, pid: int, timeout: float = 300) -> int:
        """Wait for a command; its exit code, negative when a signal ended it."""
        late = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
        late.start()
        try:
            return self._ask(pid=pid)
        finally:
            late.cancel()

    def run(self, words: list[str], folder: Path, log: Path, **how) -> int:
        """`begin`, then `end`."""
        return self.end(self.begin(words, folder, log, **how))

    def close(self) -> None:
        """End it; commands under way end by themselves."""
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def serve() -> None:
    """Answer on stdout what is asked on stdin, line by line."""
    from crash import watch

    sys.path[0] = str(CHECKOUT)  # in place of this folder
    import torch

    torch.set_num_threads(1)
    for name in MODULES:
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1])
        elif not (answer := os.fork()):
            become(watch=watch, **asked)
        print(answer, flush=True)


def become(words: list[str], folder: str, log: str, watch, environment=None, at=None, counter=None, fault=None) -> None:
    """Be the command, in a fork; does not return."""
    code = 70
    try:
        os.setpgid(0, 0)  # whoever it starts can be told by that
        os.chdir(folder)
        os.environ.update(environment or {})
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(log, os.O_WRONLY), 1)
        os.dup2(1, 2)
        if at is not None:
            watch(os.path.join(folder, "work"), at, counter, fault)
        sys.argv = words[words[0] == "-m" :]
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(CHECKOUT / words[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()

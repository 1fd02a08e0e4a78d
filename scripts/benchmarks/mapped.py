"""A token set mapped from disk, in a process of its own:  python -m scripts.benchmarks.mapped ROWS T FILE  ->  JSON.

Anonymous memory is what a process holds itself; pages of a mapped file are the system's, which takes them back at need.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gpt.data import MappedIds, Sequences, global_batch
from tokenizers.vocab import Vocab

CODES = 512
CHUNK = 65_536
BATCHES = 200


def memory(kind: str) -> float:
    """RssAnon or RssFile of this process in MiB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(kind)), float("nan"))


if __name__ == "__main__":
    rows, t, file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    generator = np.random.default_rng(0)
    with file.open("wb") as handle:
        for at in range(0, rows, CHUNK):
            handle.write(generator.integers(CODES, size=(min(CHUNK, rows - at), t), dtype=np.uint16).tobytes())
    torch.set_num_threads(1)
    own = memory("RssAnon")
    began = time.process_time()
    ids = MappedIds(np.memmap(file, dtype=np.uint16, mode="r", shape=(rows, t)))
    train = Sequences(ids, Vocab(CODES))
    for step in range(1, BATCHES + 1):
        train.batch(global_batch(rows, 64, 0, step))
    spent = time.process_time() - began
    print(json.dumps({"rows": rows, "own": memory("RssAnon") - own, "file": rows * t * 2 / 2**20, "cpu": spent}))

"""One size of GPT in a process of its own:  python -m scripts.benchmarks.step T BATCH RECOMPUTE WIDTH LAYERS  ->  JSON."""

import json
import resource
import sys
import time

import torch

from gpt.data import Sequences
from gpt.model import GPT, GPTConfig
from gpt.options import OptimizerConfig
from gpt.token_task import TokenTask
from gpt.training.local import Local
from gpt.training.trainer import Trainer
from scripts.benchmarks.gpt import Quiet
from tokenizers.vocab import Vocab

CODES = 512
STEPS = 3

if __name__ == "__main__":
    t, batch, recompute, width, layers = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    ids = torch.randint(CODES, (2 * batch, t), generator=torch.Generator().manual_seed(0))
    config = GPTConfig(CODES, t, (), 0, layers, max(1, width // 32), width, 0.0)
    model = GPT.create(config, torch.zeros(t, 0).long())
    settings = OptimizerConfig(batch=batch, recompute=bool(recompute))
    trainer = Trainer(settings, TokenTask(model, Sequences(ids, Vocab(CODES))), Local())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer.step(1, 1e-3, Quiet())
    began = time.process_time()
    for step in range(2, 2 + STEPS):
        trainer.step(step, 1e-3, Quiet())
    spent = (time.process_time() - began) / STEPS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"parameters": model.size(), "seconds": spent, "grown": grown}))

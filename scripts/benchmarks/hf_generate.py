"""Sampling with transformers' cached `generate`, in a process of its own: its package `tokenizers` is not ours.

python -P hf_generate.py VOCAB NEW LAYERS HEADS WIDTH FIELDS BLOCK THREADS  ->  one line of JSON: CPU and wall seconds.
"""

import json
import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

if __name__ == "__main__":
    vocab, new, layers, heads, width, fields, block, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab, n_positions=new + 1, n_layer=layers, n_head=heads, n_embd=width, bos_token_id=0,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()

    def draw(rows: int) -> None:
        start = torch.zeros(rows, 1, dtype=torch.int64)
        model.generate(start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=new)

    draw(2)
    wall, cpu = time.perf_counter(), time.process_time()
    for at in range(0, fields, block):
        draw(min(block, fields - at))
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))

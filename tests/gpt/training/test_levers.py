"""Token noise, label dropout and guidance."""

import pytest
import torch
from toy import config, make_corpus

from fields.runtime.runs import read_json
from gpt.corpus import load_corpus
from gpt.data import Sequences
from gpt.in_memory import fit_gpt
from gpt.model import GPT, GPTConfig
from gpt.sampling.generate import sample_ids
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.token_task import TokenTask, shifted_copies
from gpt.train_gpt import new_names, train
from tokenizers.vocab import Vocab

VOCAB = Vocab(9, 3)


def task(noise: float = 0.0, dropout: float = 0.0, labels: int = 3) -> TokenTask:
    vocab = Vocab(9, labels)
    ids = torch.randint(9, (200, 6), generator=torch.Generator().manual_seed(0))
    model = GPT.create(
        GPTConfig(9, 6, labels=labels, n_layer=1, n_head=1, n_embd=8, dropout=0.0), torch.zeros(6, 0).long()
    )
    data = Sequences(ids, vocab, torch.arange(200) % 3 if labels else None)
    return TokenTask(model, data, noise=noise, label_dropout=dropout)


@pytest.mark.parametrize("labels", (0, 3))
def test_noise_replaces_codes_and_nothing_else(labels):
    made = task(noise=1.0, labels=labels)
    rows = torch.cat([torch.arange(200), torch.tensor([-1])])
    inputs, _ = made.train.batch(rows)
    noisy, first = made.disturbed(inputs, 5), 2 if labels else 1
    assert torch.equal(noisy[:, :first], inputs[:, :first]) and torch.equal(noisy[-1], inputs[-1])
    assert 0.35 < float((noisy[:200] != inputs[:200])[:, first:].float().mean()) < 0.53  # half of them, to another code
    assert noisy[:200, first:].max() < 9
    assert torch.equal(noisy, made.disturbed(inputs, 5)) and not torch.equal(noisy, made.disturbed(inputs, 6))
    assert torch.equal(inputs, made.train.batch(rows)[0])


def test_labels_are_left_out_of_their_share():
    made = task(dropout=0.25)
    inputs, _ = made.train.batch(torch.arange(200))
    found = made.disturbed(inputs, 1)
    silent = found[:, 1] == VOCAB.pad
    assert 0.15 < float(silent.float().mean()) < 0.35 and torch.equal(found[~silent], inputs[~silent])
    assert torch.equal(found[:, 2:], inputs[:, 2:])
    with pytest.raises(ValueError, match="needs labels"):
        task(dropout=0.1, labels=0)


def test_half_of_the_rows_are_shifted_copies_and_say_so():
    made, rows = task(), torch.cat([torch.arange(200), torch.tensor([-1])])
    copies = (made.train.ids.repeat(3, 1).long() + torch.arange(3).repeat_interleave(200)[:, None] + 1) % 9
    made.shifted = Sequences(copies, VOCAB, made.train.labels.repeat(3))
    plain = made.train.batch(rows)
    inputs, targets = made.moved(rows, *plain, 5)
    moved = inputs[:200, 0] == VOCAB.pad
    assert 0.35 < float(moved.float().mean()) < 0.65 and torch.equal(inputs[-1], plain[0][-1])
    for got, before in ((inputs, plain[0]), (targets, plain[1])):
        assert torch.equal(got[:200][~moved], before[:200][~moved])
    assert torch.equal(inputs[:200][moved][:, 1], plain[0][:200][moved][:, 1])  # the label stays
    steps = (inputs[:200][moved][:, 2:] - plain[0][:200][moved][:, 2:]) % 9
    assert (steps == steps[:, :1]).all() and set(steps[:, 0].tolist()) == {1, 2, 3}
    assert torch.equal(inputs, made.moved(rows, *plain, 5)[0]) and not torch.equal(
        inputs, made.moved(rows, *plain, 6)[0]
    )


def test_shifted_copies_are_tokens_of_shifted_fields(tmp_path):
    root = make_corpus(tmp_path)
    corpus = load_corpus(root / "fields", root / "tokenizer", labels=True)
    n = len(corpus.train)
    still, moved = (shifted_copies(corpus, 2, by, 0).ids for by in (1e-12, 0.3))
    assert torch.equal(still, corpus.train.ids.repeat(2, 1)) and not torch.equal(moved, still)
    assert not torch.equal(moved[:n], moved[n:])
    with pytest.raises(ValueError, match="--shifts"):
        config(root, shifts=-1)
    with pytest.raises(ValueError, match="Leave out --stream"):
        train(config(root, stream=True, shifts=1))
    train(config(root, "shifted", labels=True, steps=2, shifts=1))
    assert (root / "shifted" / "best").is_dir()


def test_without_levers_the_loss_is_what_it_was():
    plain, rows = task(), torch.arange(32)
    inputs, targets = plain.train.batch(rows)
    assert torch.equal(plain.loss(plain.model, rows, 3), plain.model(inputs, targets).sum())
    assert not torch.equal(task(noise=0.5).loss(plain.model, rows, 3), plain.loss(plain.model, rows, 3))


def test_guidance_one_is_plain_and_zero_ignores_the_label():
    model = task().model
    plain = sample_ids(model, 20, label=1)
    assert torch.equal(sample_ids(model, 20, label=1, guidance=1.0).codes, plain.codes)
    silent = [sample_ids(model, 20, label=label, guidance=0.0).codes for label in (0, 1)]
    assert torch.equal(*silent) and not torch.equal(silent[0], plain.codes)
    assert torch.equal(
        sample_ids(model, 20, label=1, guidance=3.0, cache=False).codes,
        sample_ids(model, 20, label=1, guidance=3.0).codes,
    )
    with pytest.raises(ValueError, match="--guidance must be"):
        sample_ids(model, 2, guidance=-1.0)
    with pytest.raises(ValueError, match="--guidance is for models"):
        sample_ids(task(labels=0).model, 2, guidance=2.0)


def test_guidance_moves_draws_towards_their_class():
    """Two classes, each with a code of its own in 3 of 4 places: the more the label counts, the more often it is drawn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    own = torch.rand(400, 4, generator=generator) < 0.75
    ids = torch.where(own, labels[:, None], torch.randint(2, (400, 4), generator=generator))
    model = fit_gpt(ids, codes=2, labels=labels, steps=150, lr=3e-3, label_dropout=0.3, token_noise=0.2, progress=False)
    share = [float((sample_ids(model, 200, label=1, guidance=g).codes == 1).float().mean()) for g in (0.0, 1.0, 3.0)]
    assert abs(share[0] - 0.5) < 0.15 and share[0] + 0.2 < share[1] < share[2] - 0.03


def test_guided_samples_need_a_model_that_was_trained_for_them(tmp_path):
    root = make_corpus(tmp_path)
    with pytest.raises(ValueError, match="needs --labels"):
        train(config(root, label_dropout=0.1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        config(root, token_noise=1.5)
    train(config(root, "plain", labels=True, steps=2))
    with pytest.raises(ValueError, match="--label-dropout"):
        sample(SampleConfig(str(root / "plain"), tmp_path / "a", n=2, guidance=2.0))
    assert not (tmp_path / "a").exists()
    train(config(root, "dropped", labels=True, steps=2, label_dropout=0.5, token_noise=0.2))
    assert sample(SampleConfig(str(root / "dropped"), tmp_path / "b", n=2, guidance=2.0))["saved"] == 2


def test_folders_of_before_go_on(tmp_path):
    root = make_corpus(tmp_path)
    train(config(root, steps=2))
    saved = read_json(root / "gpt" / "run.json")["config"]
    old = {k: v for k, v in saved.items() if k not in ("token_noise", "label_dropout", "shifts", "shift_by")}
    assert new_names(old) == saved

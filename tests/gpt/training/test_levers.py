"""Token noise, label dropout and guidance."""

import pytest
import torch
from toy import config, make_corpus

from fields.runtime.runs import read_json
from gpt.data import Sequences
from gpt.in_memory import fit_gpt
from gpt.model import GPT, GPTConfig
from gpt.sampling.generate import sample_ids
from gpt.sampling.sample import SampleConfig, sample
from gpt.token_task import TokenTask
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
    old = {k: v for k, v in saved.items() if k not in ("token_noise", "label_dropout")}
    assert new_names(old) == saved

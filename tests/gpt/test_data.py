import numpy as np
import pytest
import torch

from gpt.data import Sequences, epoch_order, global_batch, micro_batches, unigram_bits
from gpt.model import IGNORE
from tokenizers.vocab import Vocab


def rows(n: int, t: int, codes: int = 6) -> torch.Tensor:
    return torch.randint(codes, (n, t), generator=torch.Generator().manual_seed(0))


def test_layout_of_a_sequence():
    vocab = Vocab(6, 2)
    inputs, targets = Sequences(torch.tensor([[1, 2, 3]]), vocab, torch.tensor([1])).batch(torch.tensor([0]))
    assert inputs.tolist() == [[vocab.sos, vocab.label(1), 1, 2, 3]]
    assert targets.tolist() == [[vocab.label(1), 1, 2, 3, vocab.eos]]
    assert len({vocab.sos, vocab.eos, vocab.pad} | set(range(6))) == 9


def test_shorter_fields_are_padded_and_every_eos_carries_loss():
    vocab, lengths = Vocab(6), torch.tensor([0, 1, 3, 4])
    data = Sequences(rows(4, 4), vocab, lengths=lengths)
    inputs, targets = data.batch(torch.arange(4))
    assert ((targets == vocab.eos).sum(1) == 1).all() and not (targets == vocab.pad).any()
    assert ((targets != IGNORE).sum(1) == lengths + 1).all()
    assert data.targets(torch.arange(4)) == int((targets != IGNORE).sum())
    assert inputs[1, 2:].tolist() == [vocab.eos, vocab.pad, vocab.pad]


def test_a_row_of_pad_carries_no_loss():
    inputs, targets = Sequences(rows(3, 4), Vocab(6)).batch(torch.tensor([-1]))
    assert (targets == IGNORE).all() and (inputs == Vocab(6).pad).all()


@pytest.mark.parametrize("t", [1, 2, 7])
def test_no_field_is_cut(t):
    data = Sequences(rows(1, t), Vocab(6))
    inputs, targets = data.batch(torch.tensor([0]))
    assert inputs[0, 1:].tolist() == targets[0, :-1].tolist() == data.ids[0].tolist()


@pytest.mark.parametrize("n, size", [(8, 1), (8, 3), (5, 5), (3, 8), (1, 4)])
def test_each_field_once_per_epoch(n, size):
    steps = [global_batch(n, size, 0, s) for s in range(1, 2 * n + 1)]
    stream = torch.cat(steps)
    assert all(len(s) == size for s in steps)
    for epoch in range(2 * size):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    if n > 3:
        assert not torch.equal(epoch_order(n, 0, 0), epoch_order(n, 0, 1))
        assert not torch.equal(epoch_order(n, 0, 0), epoch_order(n, 1, 0))


@pytest.mark.parametrize("size, micro, world", [(8, 8, 1), (8, 2, 1), (8, 2, 2), (7, 3, 2), (5, 2, 2), (2, 1, 4)])
def test_processes_share_a_batch_and_do_the_same_number_of_passes(size, micro, world):
    batch = torch.arange(100, 100 + size)
    shares = [micro_batches(batch, micro, rank, world) for rank in range(world)]
    assert len({len(s) for s in shares}) == 1
    seen = [int(r) for share in shares for _, part in share for r in part if r >= 0]
    assert sorted(seen) == batch.tolist()
    numbers = [i for share in shares for i, _ in share]
    assert len(set(numbers)) == len(numbers)


def test_unigram_against_counting():
    train, other = rows(50, 3), rows(20, 3).flip(0)
    bits = 0.0
    for row in other.tolist():
        for t, code in enumerate(row):
            bits -= np.log2((np.sum(train[:, t].numpy() == code) + 1) / (50 + 6))
    assert unigram_bits(train, other, 6) == pytest.approx(bits / 20)


@pytest.mark.parametrize(
    "ids, labels, message",
    [
        (torch.zeros(0, 4).long(), None, "token ids must have shape"),
        (torch.zeros(2, 0).long(), None, "token ids must have shape"),
        (
            torch.tensor([[1, 2], [3, 6]]),
            torch.tensor([0, 1]),
            r"row 1 holds ids in \[3, 6\], expected codes in \[0, 6\)",
        ),
        (torch.tensor([[1, 2]]), None, "--labels needs a dataset with labels"),
        (torch.tensor([[1, 2]]), torch.tensor([-1]), "1 have another, the first is row 0 with -1"),
    ],
)
def test_bad_data_is_refused(ids, labels, message):
    with pytest.raises(ValueError, match=message):
        Sequences(ids, Vocab(6, 2), labels)

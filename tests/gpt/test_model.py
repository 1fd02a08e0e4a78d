import pytest
import torch
from made import generator

import gpt.model
from fields.runtime.products import onednn_fits
from gpt.model import GPT, IGNORE, GPTConfig, KVCache
from gpt.sampling.generate import sample_ids
from gpt.sampling.step import Step
from gpt.token_task import make_optimizers

SLOTS = torch.tensor([[i // 6, i % 6] for i in range(12)])


def tiny(**kwargs) -> GPT:
    values = {"codes": 5, "tokens_per_field": 12, "slot_sizes": (2, 6), "n_layer": 2, "n_head": 2, "n_embd": 16}
    values |= {"dropout": 0.0, "unigram": True, "gates": True}
    model = GPT.create(GPTConfig(**{**values, **kwargs}), SLOTS).eval()
    if model.config.unigram:
        model.unigram.copy_(torch.randn(model.unigram.shape, generator=generator(9)))
    return model


@pytest.mark.parametrize("prompt", [0, 1, 10])
@pytest.mark.parametrize("labels", [0, 3])
@torch.no_grad()
def test_cache_gives_the_same_logits(prompt, labels):
    model = tiny(labels=labels)
    model.head.weight.mul_(20)  # spread the logits, so that an error would show
    config = model.config
    ids = torch.randint(config.vocab.size, (4, config.context), generator=torch.Generator().manual_seed(0))
    whole, cache = model(ids), KVCache(config, 4, model.head.weight)
    parts = [model(ids[:, : prompt + 1], cache=cache)]
    parts += [model(ids[:, t : t + 1], cache=cache) for t in range(prompt + 1, config.context)]
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4
    assert cache.length == config.context


@pytest.mark.parametrize(
    "parts", [{}, {"unigram": True}, {"gates": True}, {"tie": True, "unigram": True, "gates": True}]
)
@pytest.mark.parametrize("read, onednn", [(0, False), (4, False), (4, True)])
@torch.no_grad()
def test_a_step_gives_the_same_logits(parts, read, onednn):
    if onednn and not onednn_fits():
        pytest.skip("oneDNN's products are no faster on this machine")
    model = tiny(labels=3, **parts)
    for weights in (*model.parameters(), *model.buffers()):
        if weights.is_floating_point():
            weights += torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) / 3
    config = model.config
    ids = torch.randint(config.vocab.size, (4, config.context), generator=torch.Generator().manual_seed(0))
    whole, cache = model(ids), KVCache(config, 4, model.head.weight)
    if read:
        model(ids[:, :read], cache=cache)
    assert Step.fits(model)
    step = Step(model, cache, onednn)
    for t in range(read, config.context):
        assert (step(ids[:, t]) - whole[:, t]).abs().max() < 1e-4
    with pytest.raises(ValueError, match="exceeds the context"):
        step(ids[:, 0])


def test_a_step_is_for_plain_models_in_float32():
    class Other(GPT):
        pass

    model = tiny()
    assert not Step.fits(tiny().bfloat16()) and not Step.fits(Other(model.config)) and not Step.fits(tiny().to("meta"))
    model.register_forward_hook(lambda *_: None)
    assert not Step.fits(model)


@torch.no_grad()
def test_cache_takes_several_tokens_in_the_middle():
    model = tiny()
    ids = torch.randint(8, (3, 13), generator=torch.Generator().manual_seed(1))
    cache = KVCache(model.config, 3, model.head.weight)
    parts = [model(ids[:, a:b], cache=cache) for a, b in ((0, 1), (1, 5), (5, 6), (6, 13))]
    assert (torch.cat(parts, 1) - model(ids)).abs().max() < 1e-5


@pytest.mark.parametrize("prompt", [0, 1, 10])
@pytest.mark.parametrize("grammar", [True, False])
def test_cache_gives_the_same_tokens(prompt, grammar):
    model = tiny(labels=2)
    given = torch.arange(prompt) % 5 if prompt else None
    both = [sample_ids(model, 4, grammar=grammar, cache=c, prompt=given, block=4) for c in (True, False)]
    assert torch.equal(both[0].codes, both[1].codes) and torch.equal(both[0].status, both[1].status)
    if prompt and grammar:
        assert (both[0].codes[:, :prompt] == given).all()


def test_longer_than_the_context_is_refused_on_both_paths():
    model = tiny()
    ids = torch.zeros(1, 14, dtype=torch.int64)
    with pytest.raises(ValueError, match="14 tokens exceeds the context of 13"):
        model(ids)
    cache = KVCache(model.config, 1, model.head.weight)
    model(ids[:, :13], cache=cache)
    with pytest.raises(ValueError, match="14 tokens exceeds the context of 13"):
        model(ids[:, :1], cache=cache)


@torch.no_grad()
def test_input_knows_the_place_of_the_next_token():
    model = tiny(labels=2)
    model.positions.weight.zero_()
    place = model.place(0, model.config.context)
    nowhere = model.places[0].weight[-1] + model.places[1].weight[-1]
    assert torch.allclose(place[0], nowhere) and torch.allclose(place[-1], nowhere)  # label, EOS
    code = 7  # predicted from position 1 + 7: SOS, label, and seven codes stand before it
    expected = model.places[0].weight[SLOTS[code, 0]] + model.places[1].weight[SLOTS[code, 1]]
    assert torch.allclose(place[code + 1], expected)


@torch.no_grad()
def test_no_token_sees_a_later_one():
    model = tiny()
    ids = torch.randint(5, (2, 13), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[:, 8:] = (other[:, 8:] + 1) % 5
    assert torch.allclose(model(ids)[:, :8], model(other)[:, :8])
    assert not torch.allclose(model(ids)[:, 8:], model(other)[:, 8:])


def test_two_layers_overfit_four_sequences():
    model = tiny(n_embd=32).train()

    class Settings:
        optimizer, weight_decay, lr, betas = "adamw", 0.0, 3e-3, (0.9, 0.99)

    [optimizer] = make_optimizers(Settings, model)
    codes = torch.randint(5, (4, 12), generator=torch.Generator().manual_seed(3))
    full = torch.cat([torch.full((4, 1), 5), codes, torch.full((4, 1), 6)], 1)
    for _ in range(150):
        loss = model(full[:, :-1], full[:, 1:]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.2  # only which of the four it is (ln 4 / 13 tokens) is unknown


def test_ignored_targets_cost_nothing():
    model = tiny()
    losses = model(torch.zeros(2, 13, dtype=torch.int64), torch.full((2, 13), IGNORE))
    losses.sum().backward()
    assert losses.sum() == 0 and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_same_seed_same_weights_and_global_random_state_untouched():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b = tiny(), tiny()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("tie", [False, True])
def test_saved_and_loaded(tmp_path, tie, plain):
    model = tiny(tie=tie, labels=2, unigram=not plain, gates=not plain)
    model.save_pretrained(tmp_path)
    again = GPT.from_pretrained(str(tmp_path))
    ids = torch.randint(5, (2, 5), generator=torch.Generator().manual_seed(4))
    assert again.config == model.config and torch.equal(again.slots, model.slots)
    assert torch.equal(again(ids), model(ids))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"n_embd": 15}, "multiple of n_head"),
        ({"codes": 0}, "codes must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"labels": -1}, "labels"),
        ({"slot_sizes": (2, 5)}, "slots must lie below"),
        ({"slot_sizes": (2,)}, "slots must have shape"),
    ],
)
def test_impossible_sizes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        tiny(**values)


@pytest.mark.parametrize("scores", [1 << 23, 100])
def test_attention_written_out_in_bfloat16(monkeypatch, scores):
    monkeypatch.setattr(gpt.model, "SCORES", scores)  # 100: several blocks of queries
    q, k, v = (torch.randn(2, 3, 40, 8, generator=generator(i)) for i in range(3))
    known = torch.arange(40)
    part = known <= known[30:, None]  # 10 queries behind 30 known keys
    for queries, mask, causal in (
        (q, None, True),
        (q, None, False),
        (q[:, :, 30:], part, False),
        (q[:, :, :1], None, False),
    ):
        exact = gpt.model.attend(queries, k, v, mask, causal)
        rough = gpt.model.attend(*(t.bfloat16() for t in (queries, k, v)), mask, causal)
        assert rough.dtype == torch.bfloat16
        torch.testing.assert_close(rough.float(), exact, atol=3e-2, rtol=0)


def test_muon_takes_the_blocks_matrices_and_every_parameter_learns_once():
    class Settings:
        optimizer, lr, betas, weight_decay = "muon", 1e-3, (0.9, 0.99), 0.1

    model = tiny()
    adam, muon = make_optimizers(Settings, model)
    ids = [[id(p) for group in made.param_groups for p in group["params"]] for made in (adam, muon)]
    assert sorted(ids[0] + ids[1]) == sorted(id(p) for p in model.parameters())
    assert set(ids[1]) == {id(p) for p in model.blocks.parameters() if p.ndim == 2}

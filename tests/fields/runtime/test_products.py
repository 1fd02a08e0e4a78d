import pytest
import torch
import torch.nn.functional as F
from made import generator

import gpt.model
from fields.runtime import launch, products
from gpt.model import attend, attend_in_blocks

needed = pytest.mark.skipif(not products.onednn_fits(), reason="oneDNN's products are no faster on this machine")


@pytest.fixture(autouse=True)
def back():
    yield
    products.use_onednn(False)


@needed
def test_products_are_in_float32():
    a, b = (torch.randn(256, 256, generator=generator(seed)) for seed in (0, 1))
    products.use_onednn(True)
    assert products.onednn_used()
    found, exact = a @ b, a.double() @ b.double()
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    products.use_onednn(False)
    assert not products.onednn_used()


def test_a_command_says_and_sets_its_products(monkeypatch, capsys):
    monkeypatch.setattr(launch, "has_bf16", lambda: False)
    monkeypatch.setattr(products, "onednn_fits", lambda: True)
    monkeypatch.setattr(products, "onednn_fits", lambda: True)
    assert launch.precision_of(launch.start(threads=1)) == "onednn" and products.onednn_used()
    assert "precision onednn" in capsys.readouterr().out
    assert launch.precision_of(launch.start(threads=1, precision="fp32")) == "fp32" and not products.onednn_used()
    monkeypatch.setattr(products, "onednn_fits", lambda: False)
    assert launch.precision_of(launch.start(threads=1)) == "fp32"


def test_other_machines_refuse(monkeypatch):
    monkeypatch.setattr(products, "onednn_fits", lambda: False)
    with pytest.raises(ValueError, match="--precision onednn is for AMD CPUs .* Use --precision fp32"):
        launch.start(threads=1, precision="onednn")


@pytest.mark.parametrize("n, known", [(1, 5), (7, 7), (300, 300), (3, 9)])
def test_attention_in_blocks_is_attention(n, known, monkeypatch):
    made = generator(0)
    q, k, v = (torch.randn(2, 3, size, 4, generator=made, requires_grad=True) for size in (n, known, known))
    causal = n == known
    mask = None if causal or n == 1 else torch.arange(known) <= torch.arange(known)[known - n :, None]
    parts = []
    for how in (attend_in_blocks, F.scaled_dot_product_attention):
        y = how(q, k, v, mask, causal) if how is attend_in_blocks else how(q, k, v, attn_mask=mask, is_causal=causal)
        parts.append((y, *torch.autograd.grad((y * torch.arange(4)).sum(), (q, k, v))))
    for ours, theirs in zip(*parts, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
    monkeypatch.setattr(gpt.model, "onednn_used", lambda: True)
    assert torch.equal(attend(q, k, v, mask, causal), parts[0][0])

"""The graph vocabulary: what permutations and scales must not change, and what is refused."""

import pytest
import torch
from made import SMALL, generator, rows

from fields import layout, symmetry
from fields.model import FieldConfig, fourier_encoding, spaced_points, values
from fields.runtime.runs import read_json
from fields.storage.dataset import WeightDataset
from tokenizers.build import build
from tokenizers.learned.graph import GraphTokenizer
from tokenizers.learned.graph_messages import Messages, Reader, as_graph, edge_index, node_offsets
from tokenizers.learned.options import GraphConfig, VQVAEConfig
from tokenizers.learned.vqvae import VQVAETokenizer
from tokenizers.options import RefitConfig
from tokenizers.refit import Refit
from tokenizers.registry import load_tokenizer, parse

FIELD = FieldConfig(hidden=(7, 6), octaves=2)  # 2 -> 10 -> 7 -> 6 -> 1
KINDS = [{}, {"level": "neuron"}, {"rounds": 2}, {"quantizer": "rvq", "width": 4, "latents": 10}, {"quantizer": "lfq"},
         {"level": "neuron", "quantizer": "simvq", "width": 2}, {"messages": "coordinates"}]  # fmt: skip


def unfitted(field: FieldConfig = FIELD, **options) -> GraphTokenizer:
    values = {"field": field.to_dict(), "vocab_size": 16, "latents": 48, **SMALL["graph"], **options}
    return GraphTokenizer(GraphConfig(**values))


def scrambled(field: FieldConfig, weights: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The rows with all hidden neurons in a random order, each row its own, and those orders."""
    g = generator(seed)
    orders = [torch.stack([torch.randperm(n, generator=g) for _ in weights]) for n in field.hidden]
    return layout.permute(field, weights, orders), orders


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return rows(FIELD, 90, seed=1)


def name(options: dict) -> str:
    return "-".join(map(str, options.values())) or "default"


# -- the graph -------------------------------------------------------------------------------------------------------


def test_graph_of_a_row():
    row = torch.arange(FIELD.size, dtype=torch.float32)
    graph = as_graph(FIELD, row)
    widths, at = FIELD.widths, node_offsets(FIELD)
    assert graph.num_nodes == sum(widths) and graph.num_edges == FIELD.size - sum(widths[1:])
    first = layout.split(FIELD, row[None])[0][0][0]
    edge = (graph.edge_index == torch.tensor([[3], [at[1] + 2]])).all(0).nonzero().item()
    assert graph.edge_attr[edge, 0] == first[2, 3] and torch.equal(graph.edge_index, edge_index(FIELD))
    assert graph.x[: widths[0], 1].abs().sum() == 0 and graph.x[at[1], 1] == layout.split(FIELD, row[None])[0][1][0, 0]


def test_dense_messages_are_those_along_edges(weights):
    """One layer as a product against one message an edge by torch-geometric."""
    messages, at = Messages(), node_offsets(FIELD)
    weight = layout.split(FIELD, weights)[1][0]  # (N, 6, 7)
    x = torch.randn(len(weights), sum(FIELD.widths), 5, generator=generator())
    edges = edge_index(FIELD)
    of_layer = (edges[0] >= at[1]) & (edges[0] < at[2])
    full = messages(x, edges[:, of_layer], weight.flatten(1))
    assert torch.allclose(full[:, at[2] : at[3]], messages.dense(x[:, at[1] : at[2]], weight), atol=1e-5)
    assert full[:, : at[2]].abs().sum() == 0


@pytest.mark.parametrize("activation", ["relu", "sine", "elu"])
def test_messages_of_encoded_coordinates_are_the_field(activation):
    field = FieldConfig(hidden=(7, 6), octaves=2, activation=activation, w0=3.0, output="linear", out_dim=2)
    some = rows(field, 5, seed=2)
    coords = spaced_points(FieldConfig(), 9)
    reader = Reader(field, 9, coordinates=coords)
    assert torch.equal(reader.inputs, fourier_encoding(field, coords).T)
    assert torch.allclose(reader.states(some)[-1].mT, values(field, some, coords), atol=1e-5)
    exact = torch.stack([p.sum(1) for p in reader.contributions(some)], 1)  # (N, layers, out, D)
    assert torch.allclose(exact, torch.stack(reader.pools(some), 1), atol=1e-5)


# -- permutations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [False, True])
def test_states_move_with_the_neurons(weights, reference):
    """Before any ordering: the state of a neuron is the same wherever it stands."""
    torch.manual_seed(0)
    row = weights.mean(0)
    reader = Reader(FIELD, 32, row if reference else None)
    moved, orders = scrambled(FIELD, weights)
    with torch.no_grad():
        before = reader.states(weights)
        others = layout.permute(FIELD, row.expand_as(weights), orders) if reference else None
        after = reader.states(moved, others)
    for x, y, order in zip(before, after, [*orders, torch.zeros(len(weights), 1, dtype=torch.int64)], strict=True):
        assert float((x.gather(1, order[..., None].expand_as(y)) - y).abs().max()) <= 1e-5 * float(x.abs().max())


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_codes_do_not_know_the_order(options, weights, tmp_path):
    tokenizer = unfitted(**options).fit(weights)
    ids = tokenizer.encode(weights)
    moved, _ = scrambled(FIELD, weights)
    again = tokenizer.encode(moved)
    assert float((again == ids).double().mean()) >= 0.999
    decoded = tokenizer.decode(ids)
    coords = torch.rand(50, 2, generator=generator()) * 2 - 1
    same = (again == ids).all(1)
    assert torch.equal(tokenizer.decode(again)[same], decoded[same]) and int(same.sum()) > 80
    # and neither a batch, nor loading, changes anything
    assert torch.equal(tokenizer.encode(weights[3:4]), ids[3:4])
    tokenizer.save_pretrained(tmp_path)
    found = load_tokenizer(tmp_path)
    assert torch.equal(found.encode(weights), ids) and torch.equal(found.decode(ids), decoded)
    assert values(FIELD, decoded, coords).isfinite().all()
    assert len(tokenizer.slots) == tokenizer.tokens_per_field == ids.shape[1]


@pytest.mark.parametrize("options", [{}, {"level": "neuron"}], ids=name)
def test_codes_do_not_know_scales(options, weights):
    tokenizer = unfitted(**options).fit(weights)
    g = generator(4)
    factors = [torch.rand(len(weights), n, generator=g) * 2 + 0.5 for n in FIELD.hidden]
    scaled = symmetry.rescale(FIELD, weights, factors)
    assert float((tokenizer.encode(scaled) == tokenizer.encode(weights)).double().mean()) >= 0.999


def test_little_noise_changes_few_codes(weights):
    """A sort of neurons by a weight swaps whole neurons under such noise; sums over neurons do not."""
    tokenizer = unfitted(vocab_size=64).fit(weights)
    noisy = weights * (1 + 1e-4 * torch.randn(weights.shape, generator=generator()))
    assert float((tokenizer.encode(noisy) != tokenizer.encode(weights)).double().mean()) < 0.02


def test_neurons_stand_in_the_order_of_their_codes(weights):
    tokenizer = unfitted(level="neuron").fit(weights)
    ids = tokenizer.encode(weights)
    n, width = tokenizer.per_layer[0], FIELD.hidden[0]
    codes = ids[:, : n * width].unflatten(1, (width, n)).tolist()
    assert all(field == sorted(field) for field in codes)
    assert torch.equal(tokenizer.canonical_ids(ids), ids)
    shuffled = ids.clone()
    shuffled[:, : n * width] = ids[:, : n * width].unflatten(1, (width, n)).flip(1).flatten(1)
    assert torch.equal(tokenizer.canonical_ids(shuffled), ids)
    assert torch.allclose(tokenizer.decode(shuffled), tokenizer.decode(ids), atol=1e-5)
    assert tokenizer.slots[: n * width].tolist() == [[0, j, k] for j in range(width) for k in range(n)]


# -- learning ----------------------------------------------------------------------------------------------------------


def test_fields_without_a_common_start():
    """Scrambled neurons leave rows nothing in common; what the fields say still has it."""
    field = FieldConfig(hidden=(6,), octaves=1)
    base = rows(field, 1, seed=5, spread=0.0)
    some, _ = scrambled(field, base + 0.3 * torch.randn(400, field.size, generator=generator(6)), seed=7)
    plain = VQVAEConfig(**{"field": field.to_dict(), "vocab_size": 64, **SMALL["vqvae"], "latents": 24})
    rowwise = VQVAETokenizer(plain).fit(some[:350], held_out=some[350:])
    tokenizer = unfitted(field, vocab_size=64, latents=24, batch=64, channels=32, meta_steps=20)
    tokenizer.fit(some[:350], held_out=some[350:])
    assert tokenizer.history[-1]["psnr"] > rowwise.history[-1]["psnr"]
    assert tokenizer.history[-1]["bits"] < 0.6 * rowwise.history[-1]["bits"]


def test_refit_keeps_the_order_of_neurons(weights):
    tokenizer = unfitted(level="neuron").fit(weights)
    refit = Refit(tokenizer, RefitConfig(refit=True, refit_steps=4))
    ids = tokenizer.encode(weights[:8])
    better = refit(weights[:8], ids, [""] * 8, torch.tensor([[8, 8]] * 8))
    assert torch.equal(tokenizer.canonical_ids(better), better)


def test_reference_is_an_edge_feature(weights):
    tokenizer = unfitted(reference=True).set_reference(weights.mean(0)).fit(weights)
    assert torch.equal(tokenizer.reader.reference, weights.mean(0))
    other = unfitted(reference=True).set_reference(weights[0]).fit(weights)
    assert other.fingerprint != tokenizer.fingerprint


def test_build_reports_no_weights_of_another_row(weights, tmp_path):
    splits = {"train": slice(0, 70), "validation": slice(70, 90)}
    parts = {
        split: {"weights": weights[part], "signal_id": [f"made/{split}/{i}" for i in range(len(weights[part]))]}
        for split, part in splits.items()
    }
    WeightDataset.from_rows(FIELD, parts).save(tmp_path / "fields")
    options = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL["graph"].items()]
    words = ["graph", "--fields", str(tmp_path / "fields"), "--out", str(tmp_path / "graph"), "--vocab-size=16"]
    build(parse([*words, "--latents=48", "--probe-rows=0", "--threads=1", *options]))
    assert "another row of the same function" in (tmp_path / "graph" / "report.md").read_text()
    assert read_json(tmp_path / "graph" / "report.json")["layer_error"] == []


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_refusals(weights):
    with pytest.raises(ValueError, match="--reference needs the row the fits started from"):
        unfitted(reference=True).fit(weights)
    with pytest.raises(ValueError, match="--level neuron has no codebook per place"):
        unfitted(level="neuron", quantizer="vq")
    with pytest.raises(ValueError, match=r"--dropout must lie in \[0, 1\)"):
        unfitted(dropout=1.0)
    with pytest.raises(ValueError, match="--latents must be at least the field's 3 layers, got 2"):
        unfitted(latents=2)
    tokenizer = unfitted().fit(weights)
    with pytest.raises(ValueError, match=r"must have shape \(N, "):
        tokenizer.encode(weights[:, :-1])

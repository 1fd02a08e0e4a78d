"""Identity by content."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from fields.runtime import digests


def test_a_digest_sees_names_sizes_bytes_and_order():
    values = np.random.default_rng(0).integers(0, 255, (3, 4, 5), np.uint8)
    ids, sizes = ["a", "b", "c"], np.array([[4, 5]] * 3)
    one = digests.of_signals(ids, sizes, [values])
    assert one == digests.of_signals(ids, torch.from_numpy(sizes), [torch.from_numpy(values)])
    changed = values.copy()
    changed[1, 2, 3] ^= 1
    others = [
        digests.of_signals(["a", "b", "d"], sizes, [values]),
        digests.of_signals(ids, sizes.repeat(1, 1)[:, ::-1], [values]),
        digests.of_signals(ids, sizes, [changed]),
        digests.of_signals(ids, sizes, [values[::-1]]),
    ]
    assert len({one, *others}) == 5


def test_what_was_recorded_is_compared(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    mark = digests.of_file(tmp_path / "f")
    digests.check_digest(tmp_path / "f", mark, digests.of_file(tmp_path / "f"))
    digests.check_digest(tmp_path / "f", None, mark)
    (tmp_path / "f").write_bytes(b"abd")
    with pytest.raises(ValueError, match="f is damaged or was replaced"):
        digests.check_digest(tmp_path / "f", mark, digests.of_file(tmp_path / "f"))


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_of_a_table_is_noticed_or_harmless(tmp_path, seed):
    random = np.random.default_rng(seed)
    table = pa.table({"w": random.normal(size=500), "id": [str(i) for i in range(500)]})
    digests.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    (tmp_path / "t.parquet").write_bytes(data)
    try:
        found = digests.read_table(tmp_path / "t.parquet")
    except ValueError as error:
        assert "t.parquet is damaged" in str(error)
    else:
        assert found.equals(table)

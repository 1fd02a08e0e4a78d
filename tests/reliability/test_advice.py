"""Each warning of a tokenizer's report where it is right, and where it stays away."""

from types import SimpleNamespace

import pytest

from gpt.token_task import TokenTask
from tokenizers.report.report import warnings

GOOD = {"codes_made": 128, "codes_asked": 128, "codes_used": 128, "evaluated_on": "test", "evaluated_fields": 40,
        "layer_error": [0.1, 0.2], "psnr_loss": 0.1}  # fmt: skip


def test_a_good_tokenizer_has_no_warning():
    assert not warnings(GOOD)


@pytest.mark.parametrize(("loss", "advised"), [(0.1, True), (8.0, False), (None, False)])
def test_fewer_codes_are_advised_where_nothing_is_lost(loss, advised):
    (said,) = warnings({**GOOD, "codes_used": 40, "psnr_loss": loss})
    assert "40 of 128 codes used" in said and ("Ask for fewer" in said) == advised


@pytest.mark.parametrize(
    ("loss", "fields", "warned"), [(8.0, 40, True), (None, 40, True), (0.1, 40, False), (8.0, 1, False)]
)
def test_lost_variance_is_said_where_the_signal_shows_it(loss, fields, warned):
    found = warnings({**GOOD, "layer_error": [0.1, 0.9], "psnr_loss": loss, "evaluated_fields": fields})
    assert any("more than 50" in said for said in found) == warned
    assert not warnings({**GOOD, "evaluated_fields": fields, "psnr_loss": loss})


@pytest.mark.parametrize(
    ("bits", "loss", "said"),
    [(124.8, 1.0, "has memorised its 32 fields"), (45.0, 8.9, "train longer"), (44.0, 1.0, ""), (50.0, None, "")],
)
def test_a_model_worse_than_counting_is_said(bits, loss, said):
    class Task(SimpleNamespace):
        def __len__(self):
            return 32

    found = TokenTask.advise(Task(bits_per_loss=5.0), {"bits_per_field": bits, "unigram_bits_per_field": 44.6}, loss)
    assert said in found and bool(found) == bool(said)


@pytest.mark.parametrize(("made", "used", "said"), [(1, 1, True), (4, 1, True), (4, 4, False), (2, 2, False)])
def test_a_vocabulary_of_one_field_says_that_all_become_it(made, used, said):
    found = warnings({**GOOD, "codes_made": made, "codes_asked": made, "codes_used": used, "training_fields": 1})
    assert any("all are decoded as one: it was learnt from 1 training field. Fit more" in one for one in found) == said

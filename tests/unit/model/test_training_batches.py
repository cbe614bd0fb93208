"""Which sequences a step reads, seen by one process and by several."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from model.training.config import TrainConfig
from model.training.data import evaluation_batches, open_data, step_batches
from storage.config import changed
from storage.errors import CorruptFileError, InputError
from storage.formats.probes import NO_LABEL, Probes

CONFIG = TrainConfig(max_steps=9, warmup_steps=1, global_batch_size=12, micro_batch_size=2, eval_sequences=5)


class Place:
    """The part of an engine that decides which rows are read."""

    device = torch.device("cpu")

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


@pytest.fixture
def data(tiny_corpus, job_for):
    return open_data(tiny_corpus.store, job_for(tiny_corpus, CONFIG))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_step_batches_of_all_processes_are_those_of_one(data, world: int) -> None:
    for step in (1, 4, 9):  # 42 sequences, 12 a step: step 4 reaches over the end of an epoch
        alone = step_batches(data.train, CONFIG, step, Place(0, 1))
        shared = [b for rank in range(world) for b in step_batches(data.train, CONFIG, step, Place(rank, world))]
        assert torch.equal(torch.cat([b.inputs for b in alone]), torch.cat([b.inputs for b in shared]))
        assert torch.equal(torch.cat([b.mask for b in alone]), torch.cat([b.mask for b in shared]))
        assert sum(b.tokens for b in alone) == sum(b.tokens for b in shared)


def test_step_batches_of_an_epoch_hold_every_sequence_once(data) -> None:
    config = TrainConfig(max_steps=9, warmup_steps=1, global_batch_size=14, micro_batch_size=7)
    rows = [
        tuple(row.tolist()) for step in (1, 2, 3) for b in step_batches(data.train, config, step, Place(0, 1))
        for row in b.inputs
    ]  # fmt: skip
    everything, _ = data.train.rows(np.arange(42))
    assert sorted(rows) == sorted(tuple(row.tolist()) for row in everything[:, :-1])


def test_batch_masks_padding_and_nothing_else(data, tiny_corpus) -> None:
    learned = [
        list(zip(inputs[mask].tolist(), targets[mask].tolist(), strict=True))
        for batch in evaluation_batches(data.validation, CONFIG, Place(0, 1))
        for inputs, targets, mask in zip(batch.inputs, batch.targets, batch.mask, strict=True)
    ]
    rows = [row.tolist() for row in tiny_corpus.rows["val"][:5]]
    assert learned == [[pair for pair in pairwise(row) if pair != (0, 0)] for row in rows]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_batches_give_each_process_as_many_and_each_sequence_once(
    data, tiny_corpus, world: int
) -> None:
    batches = [list(evaluation_batches(data.validation, CONFIG, Place(rank, world))) for rank in range(world)]
    assert len({len(mine) for mine in batches}) == 1
    expected = sum(pair != (0, 0) for row in tiny_corpus.rows["val"][:5] for pair in pairwise(row.tolist()))
    assert sum(b.tokens for mine in batches for b in mine) == expected
    assert sum(int(b.mask.sum()) for mine in batches for b in mine) == expected


def test_batch_without_probes_numbers_documents_or_lets_them_see_each_other(data) -> None:
    (batch,) = step_batches(data.train, CONFIG, 1, Place(0, 6))
    assert data.probes is None
    assert (batch.probes, batch.labels, batch.tone_labels, batch.field_labels) == (None, None, 0, 0)
    leads = (batch.inputs == 0).long()
    leads[:, 0] = 0
    assert torch.equal(batch.documents, leads.cumsum(-1))
    open_to_all = changed(CONFIG, isolate_documents=False)
    (batch,) = step_batches(data.train, open_to_all, 1, Place(0, 6))
    assert batch.documents is None


@pytest.fixture
def probed(tmp_path, make_corpus, job_for):
    corpus = make_corpus(tmp_path / "probed", probes=Probes(1, 2))
    return corpus, open_data(corpus.store, job_for(corpus, CONFIG))


def test_batch_with_probes_has_their_labels_and_counts_them(probed) -> None:
    corpus, data = probed
    assert data.probes == Probes(1, 2)
    wanted = iter(zip(corpus.rows["val"], corpus.labels["val"], strict=True))
    for batch in evaluation_batches(data.validation, CONFIG, Place(0, 1)):
        assert batch.probes == data.probes
        tones = fields = 0
        for inputs, labels, (row, expected) in zip(batch.inputs, batch.labels, wanted, strict=False):
            probes = [place for place, token in enumerate(row) if token in (1, 2)]
            at = {place: label for place, label in zip(probes, expected, strict=True) if place < 16}
            assert labels.tolist() == [at.get(place, NO_LABEL) for place in range(16)]
            tones += sum(label != NO_LABEL for place, label in at.items() if inputs[place] == 1)
            fields += sum(label != NO_LABEL for place, label in at.items() if inputs[place] == 2)
        assert (batch.tone_labels, batch.field_labels) == (tones, fields)


def test_batch_with_probes_keeps_them_with_their_document_and_out_of_the_loss(probed) -> None:
    _, data = probed
    for batch in evaluation_batches(data.validation, CONFIG, Place(0, 1)):
        for inputs, targets, mask, numbers in zip(
            batch.inputs, batch.targets, batch.mask, batch.documents, strict=True
        ):
            masked = (
                (inputs == 1) | (inputs == 2) | (targets == 1) | (targets == 2) | ((inputs == 0) & (targets == 0))
            )
            assert torch.equal(mask, ~masked)
            for place in range(1, 16):
                starts = inputs[place - 1] == 2 or (inputs[place] == 0 and targets[place] != 1)
                assert numbers[place] - numbers[place - 1] == int(starts)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_batches_of_all_processes_count_each_label_once(probed, world: int) -> None:
    _, data = probed
    alone = list(evaluation_batches(data.validation, CONFIG, Place(0, 1)))
    shared = [b for rank in range(world) for b in evaluation_batches(data.validation, CONFIG, Place(rank, world))]
    for name in ("tokens", "tone_labels", "field_labels"):
        assert sum(getattr(b, name) for b in shared) == sum(getattr(b, name) for b in alone) > 0
    labelled = [int((b.labels != NO_LABEL).sum()) for b in shared]
    assert labelled == [b.tone_labels + b.field_labels for b in shared]


def test_data_without_validation_split_is_trained_without(tmp_path, make_corpus, job_for) -> None:
    corpus = make_corpus(tmp_path, ("train-00000",))
    assert open_data(corpus.store, job_for(corpus, CONFIG)).validation is None


def test_data_that_cannot_be_what_the_job_names_is_refused(tmp_path, tiny_corpus, make_corpus, job_for) -> None:
    job = job_for(tiny_corpus, CONFIG)
    with pytest.raises(CorruptFileError, match="must hold content aaaaaaaaaaaa"):
        open_data(tiny_corpus.store, job.model_copy(update={"sequences_digest": "a" * 64}))
    with pytest.raises(InputError, match="tokenizer of 50 tokens, found 61"):
        open_data(tiny_corpus.store, job.model_copy(update={"vocab_size": 50}))
    empty = make_corpus(tmp_path / "empty", ("val-00000",))
    with pytest.raises(InputError, match="must hold sequences to train on"):
        open_data(empty.store, job_for(empty, CONFIG))

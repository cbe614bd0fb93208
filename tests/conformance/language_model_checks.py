"""What every network promises, each promise as a check of one family and one of its tiny configs.

Shapes: B sequences, T tokens, V vocabulary, C width of the residual stream.
"""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model.families.base import Family, ModelConfig
from model.layers.language_model import LanguageModel
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.objective import Objective

SPREAD = 0.05
"""Added to new weights, which are so small that little depends on anything."""


def weights_follow_from_the_seed(family: Family[Any], config: ModelConfig) -> None:
    """The same seed gives the same bits, another one others."""
    first, again, other = (new_model(family, config, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


def logits_have_their_shape(family: Family[Any], config: ModelConfig) -> None:
    """Ids (B, T) give hidden (B, T, C) and logits (B, T, V), floating; the head takes any leading shape."""
    model, ids = varied_model(family, config), random_ids(config, 2, 9)
    with torch.inference_mode():
        hidden = model.hidden(ids)
        assert hidden.shape == (2, 9, family.formulas(config).width)
        assert model(ids).shape == (2, 9, config.vocab_size)
        assert torch.equal(model(ids), model.logits(hidden))
        assert model.logits(hidden[0, 0]).shape == (config.vocab_size,)
    assert model.config == config


def positions_end_where_the_family_says(family: Family[Any], config: ModelConfig) -> None:
    """One token more than `max_seq_len` is refused if positions are learned, else read."""
    model, ids = varied_model(family, config), random_ids(config, 1, config.max_seq_len + 1)
    with torch.inference_mode():
        if not config.learned_positions:
            assert model.hidden(ids).isfinite().all()
            return
        model.hidden(ids[:, :-1])
        with pytest.raises(ValueError, match=str(config.max_seq_len)):
            model.hidden(ids)


def no_token_sees_later_ones(family: Family[Any], config: ModelConfig) -> None:
    """A changed token changes nothing before it."""
    model, ids = varied_model(family, config), random_ids(config, 2, 40)
    for place in (1, 20, 39):
        other = ids.clone()
        other[:, place] = (other[:, place] + 1) % config.vocab_size
        with torch.inference_mode():
            wanted, found = model(ids), model(other)
        assert_close(found[:, :place], wanted[:, :place])
        assert not torch.equal(found[:, place:], wanted[:, place:])


def rows_are_alone(family: Family[Any], config: ModelConfig) -> None:
    """A row's logits are those that it has without other rows."""
    model, ids = varied_model(family, config), random_ids(config, 5, 12)
    with torch.inference_mode():
        together = model(ids)
        for row in range(5):
            assert_close(together[row : row + 1], model(ids[row : row + 1]))


def packed_documents_are_alone(family: Family[Any], config: ModelConfig) -> None:
    """A document in a packed row has the logits that it has alone, whatever its number."""
    model, ids = varied_model(family, config), random_ids(config, 1, 24)
    documents = torch.tensor([[4] * 7 + [5] * 9 + [4] * 8])
    with torch.inference_mode():
        packed = model(ids, documents)
        for begin, end in ((0, 7), (7, 16), (16, 24)):
            assert_close(packed[:, begin:end], model(ids[:, begin:end]))


def cache_changes_nothing(family: Family[Any], config: ModelConfig) -> None:
    """Token by token or in pieces, with packed documents at first or not, the logits are those of one pass."""
    model, ids = varied_model(family, config), random_ids(config, 2, 20)
    documents = torch.tensor([[0] * 20, [0] * 5 + [1] * 15])
    for sizes in ([1] * 20, [7, 1, 5, 4, 3], [20]):
        for numbers in (None, documents):
            first = sizes[0] if numbers is None else max(sizes[0], 6)
            cache = model.new_cache()
            with torch.inference_mode():
                wanted = model(ids, numbers)
                pieces = [model(ids[:, :first], None if numbers is None else numbers[:, :first], cache)]
                rest = sizes[1:] if numbers is None and sizes[1:] else [20 - first] if first < 20 else []
                for piece in ids[:, first:].split(rest, dim=1) if rest else ():
                    pieces.append(model(piece, cache=cache))
            assert_close(torch.cat(pieces, dim=1), wanted)
            assert cache.length == 20


def room_of_a_cache_changes_nothing(family: Family[Any], config: ModelConfig) -> None:
    """A cache that was given room for its keys, enough or not, gives the logits of one that was not."""
    model, ids = varied_model(family, config), random_ids(config, 2, 20)
    with torch.inference_mode():
        wanted = model(ids)
        for capacity in (8, 64):
            cache = model.new_cache(capacity)
            pieces = [model(piece, cache=cache) for piece in ids.split((19, 1), dim=1)]
            assert_close(torch.cat(pieces, dim=1), wanted)


def cloned_cache_is_independent(family: Family[Any], config: ModelConfig) -> None:
    """Reading on with a clone leaves the cache as it was."""
    model, ids, other = varied_model(family, config), random_ids(config, 2, 10), random_ids(config, 2, 3, seed=9)
    cache = model.new_cache()
    with torch.inference_mode():
        model(ids, cache=cache)
        copied = cache.clone()
        for token in other.split(1, dim=1):
            model(token, cache=copied)
        found = model(ids[:, :1], cache=cache)
        assert (cache.length, copied.length) == (11, 13)
        assert_close(found, model(torch.cat((ids, ids[:, :1]), dim=1))[:, -1:])


def cache_stays_within_a_budget(family: Family[Any], config: ModelConfig) -> None:
    """After `evict` no block has more keys than the budget, in any layer, and the model reads on."""
    model, ids, budget = varied_model(family, config), random_ids(config, 2, 90), 72
    cache = model.new_cache()
    with torch.inference_mode():
        for token in ids.split(1, dim=1):
            model(token, cache=cache)
        cache.evict(budget)
        assert all(layer.length <= budget for block in cache.blocks for layer in block.attention)
        assert cache.length == 90
        assert model(ids[:, :1], cache=cache).isfinite().all()


def state_dict_is_all_there_is(family: Family[Any], config: ModelConfig) -> None:
    """Saved and loaded weights compute the same bits."""
    model, other, ids = varied_model(family, config), new_model(family, config, 7).eval(), random_ids(config, 2, 9)
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    with torch.inference_mode():
        assert torch.equal(model(ids), other(ids))


def training_pass_is_the_pass(family: Family[Any], config: ModelConfig) -> None:
    """What training reads is what `hidden` gives."""
    model, ids, documents = (
        varied_model(family, config),
        random_ids(config, 2, 16),
        torch.tensor([[0] * 9 + [1] * 7] * 2),
    )
    with torch.inference_mode():
        assert_close(model.training_pass(ids, documents)[0], model.hidden(ids, documents))


def loss_reaches_every_parameter(family: Family[Any], config: ModelConfig) -> None:
    """The objective is finite, and so is a gradient of every parameter."""
    model, ids = varied_model(family, config).train(), random_ids(config, 2, 33)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    batch = Batch(inputs, targets, torch.ones_like(inputs).bool(), inputs.numel(), torch.zeros_like(inputs))
    loss, summed = Objective(model, TrainConfig())(batch, Totals(batch.tokens, len(inputs)))
    assert math.isfinite(float(loss.detach()))
    assert math.isfinite(float(summed.detach()))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} must have a gradient"
        assert parameter.grad.isfinite().all(), name


def parameters_are_optimized_once(family: Family[Any], config: ModelConfig) -> None:
    """The groups hold every parameter once, at a positive rate."""
    model = varied_model(family, config)
    grouped = [parameter for group in model.parameter_groups().values() for parameter in group]
    assert len(grouped) == len({id(parameter) for parameter in grouped})
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}
    assert all(options.rate > 0 for options in model.parameter_groups())


def auxiliary_losses_and_metrics_are_numbers(family: Family[Any], config: ModelConfig) -> None:
    """Auxiliary losses are finite scalars, metrics of a step plain floats, and a warning is text."""
    model = varied_model(family, config).train()
    _, trace = model.training_pass(random_ids(config, 2, 24))
    for name, loss in model.auxiliary_losses(trace, None, {}).items():
        assert loss.dim() == 0, name
        assert loss.isfinite(), name
    model.after_step(list, 1e-3)
    metrics = model.step_metrics()
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert isinstance(model.warning(metrics, 10_000), str)
    json.dumps(metrics)


def heads_have_their_classes(family: Family[Any], config: ModelConfig) -> None:
    """The classification heads are those that the config names, with as many classes."""
    model = varied_model(family, config)
    with torch.inference_mode():
        logits = model.head_logits(model.hidden(random_ids(config, 2, 5)))
    assert {kind: tuple(found.shape) for kind, found in logits.items()} == {
        kind: (2, 5, classes) for kind, classes in config.classes().items()
    }


NETWORK_CHECKS = (
    weights_follow_from_the_seed,
    logits_have_their_shape,
    positions_end_where_the_family_says,
    no_token_sees_later_ones,
    rows_are_alone,
    packed_documents_are_alone,
    cache_changes_nothing,
    room_of_a_cache_changes_nothing,
    cloned_cache_is_independent,
    cache_stays_within_a_budget,
    state_dict_is_all_there_is,
    training_pass_is_the_pass,
    loss_reaches_every_parameter,
    parameters_are_optimized_once,
    auxiliary_losses_and_metrics_are_numbers,
    heads_have_their_classes,
)


def new_model(family: Family[Any], config: ModelConfig, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    return family.build(config)


def varied_model(family: Family[Any], config: ModelConfig) -> LanguageModel:
    """Return a model in which positions, attention and gains matter, in eval mode."""
    model = new_model(family, config, 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * SPREAD
    return model


def random_ids(config: ModelConfig, batch: int, length: int, seed: int = 2) -> Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """The same float32 numbers summed in another order."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))

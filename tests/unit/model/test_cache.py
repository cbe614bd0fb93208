"""What a cache remembers, against lists; what reading with it computes is tested with each family."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.families.world.context.block_cache import ContextBlockCache
from model.families.world.delta_net import DeltaState
from model.layers.cache import BlockCache, Cache, KeyValues, attention_mask, number_documents, token_positions

BATCH, HEADS, WIDTH = 2, 3, 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def numbered(first: int, length: int) -> Tensor:
    """Keys that are told apart by their numbers: row 0 counts 0, 1, ..., row 1 counts 1000, 1001, ..."""
    numbers = torch.arange(first, first + length) + torch.tensor([[0], [1000]])
    return numbers[:, None, :, None].expand(BATCH, HEADS, length, WIDTH).float()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), capacity=st.sampled_from([0, 5, 300]))
def test_remembered_keys_are_those_of_a_list(data: st.DataObject, capacity: int) -> None:
    block = BlockCache(2, capacity=capacity)
    rows: list[list[int]] = [[], []]
    for _ in range(data.draw(st.integers(1, 6))):
        length = data.draw(st.integers(1, 50))
        first = block.read
        for layer in block.attention:
            keys, values = layer.append(numbered(first, length), -numbered(first, length))
        block.advance(length, None)
        rows = [row + list(range(first, first + length)) for row in rows]
        wanted = torch.tensor([rows[0], [1000 + row for row in rows[1]]], dtype=torch.float32)
        assert torch.equal(keys[:, 0, :, 0], wanted)
        assert torch.equal(keys, -values)
        if data.draw(st.booleans()):
            count = data.draw(st.integers(1, len(rows[0])))
            places = [sorted(data.draw(st.permutations(range(len(row))))[:count]) for row in rows]
            block.keep(torch.tensor(places))
            rows = [[row[place] for place in kept] for row, kept in zip(rows, places, strict=True)]
        assert block.row_numbers(BATCH, torch.device("cpu")).tolist() == rows
        assert {layer.length for layer in block.attention} == {block.length} == {len(rows[0])}


def test_capacity_is_allocated_once() -> None:
    layer = KeyValues(40)
    first, _ = layer.append(numbered(0, 10), numbered(0, 10))
    later, _ = layer.append(numbered(10, 30), numbered(10, 30))
    assert first.data_ptr() == later.data_ptr()
    moved, _ = layer.append(numbered(40, 60), numbered(40, 60))
    assert moved.data_ptr() != first.data_ptr()
    assert torch.equal(moved, numbered(0, 100))


def test_scores_and_visibility_follow_their_keys() -> None:
    block = ContextBlockCache(1, [], 0, window=8)
    block.attention[0].append(numbered(0, 6), numbered(0, 6))
    block.context_BK2 = torch.arange(24.0).view(2, 6, 2)
    block.advance(6, torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool())
    index = torch.tensor([[1, 2, 5], [0, 3, 4]])
    block.keep(index)
    assert block.visible_BK is not None
    assert block.context_BK2 is not None
    assert block.visible_BK.tolist() == [[False, True, True], [True, True, True]]
    assert block.context_BK2[..., 0].tolist() == [[2, 4, 10], [12, 18, 20]]


def test_new_tokens_see_visible_keys_and_those_before_them() -> None:
    block = BlockCache(1)
    block.attention[0].append(numbered(0, 3), numbered(0, 3))
    block.advance(3, torch.tensor([[0, 1, 1], [1, 1, 1]]).bool())
    ids = torch.zeros(BATCH, 2, dtype=torch.long)
    mask, causal = attention_mask(ids, None, block)
    assert mask is not None
    assert not causal
    assert mask[:, 0].int().tolist() == [[[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]], [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]
    mask, _ = attention_mask(ids[:, :1], None, block)
    assert mask is not None
    assert mask[:, 0].int().tolist() == [[[0, 1, 1, 1]], [[1, 1, 1, 1]]]


def test_positions_restart_in_documents_and_go_on_in_the_last() -> None:
    cache = Cache([BlockCache(1)])
    documents = torch.tensor([[-1, -1, 0, 0, 0], [0, 0, 0, 0, 0]])
    ids = torch.zeros_like(documents)
    positions = token_positions(ids, documents, cache)
    assert positions.tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    cache.advance(5, positions, documents)
    assert token_positions(ids[:, :2], None, cache).tolist() == [[3, 4], [5, 6]]
    cache.advance(2, positions[:, :2], None)
    assert token_positions(ids[:, :1], None, cache).tolist() == [[5], [7]]
    with pytest.raises(ValueError, match="with the first tokens"):
        token_positions(ids, documents, cache)


def test_documents_are_numbered_as_they_change() -> None:
    documents = torch.tensor([[0, 1, 1, 0, 0], [-1, -1, 7, 7, -1], [3, 3, 3, 3, 3]])
    numbers = number_documents(documents)
    assert numbers is not None
    assert numbers.tolist() == [[0, 1, 1, 2, 2], [0, 0, 1, 1, 2], [0, 0, 0, 0, 0]]
    assert number_documents(None) is None


def test_clone_shares_nothing() -> None:
    cache = Cache([BlockCache(1)])
    block = cache.blocks[0]
    block.attention[0].append(numbered(0, 3), numbered(0, 3))
    block.advance(3, torch.ones(2, 3, dtype=torch.bool))
    copied = cache.clone()
    keys, _ = copied.blocks[0].attention[0].append(numbered(70, 2), numbered(70, 2))
    keys.fill_(0)
    copied.advance(2, torch.zeros(2, 2, dtype=torch.long), None)
    assert cache.length == 3
    assert torch.equal(block.attention[0].append(numbered(3, 1), numbered(3, 1))[0], numbered(0, 4))


def test_clone_keeps_everything_and_its_class() -> None:
    class Special(Cache):
        pass

    cache = Special(
        [block := ContextBlockCache(1, [DeltaState(torch.ones(2, 3, 4), torch.ones(2, 1, 2, 2))], 50, 8)]
    )
    block.attention[0].append(numbered(0, 6), numbered(0, 6))
    block.context_BK2 = torch.arange(24.0).view(2, 6, 2)
    documents = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    cache.advance(6, token_positions(documents, documents, None), documents)
    block.keep(torch.tensor([[1, 2, 5], [0, 3, 4]]))
    copied = cache.clone()
    assert isinstance(copied, Special)
    tensors, others = flat_tensors(cache), flat_tensors(copied)
    assert tensors.keys() == others.keys()
    assert len(tensors) == 7  # nothing was forgotten here
    for name, tensor in tensors.items():
        # Places that are not filled yet hold anything, also NaN.
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=0, equal_nan=True)
        assert others[name].data_ptr() != tensor.data_ptr(), name
    assert (copied.length, copied.blocks[0].length, copied.blocks[0].attention[0].capacity) == (6, 3, 50)


def flat_tensors(thing: object, name: str = "") -> dict[str, Tensor]:
    """All tensors that are reached from an object's attributes and lists."""
    if isinstance(thing, Tensor):
        return {name: thing}
    parts = thing if isinstance(thing, list) else list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    return {k: t for i, part in enumerate(parts) for k, t in flat_tensors(part, f"{name}.{i}").items()}

"""The numbers on paper against hand arithmetic, transformers on the meta device and torch's FLOP counter."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.families.estimate import (
    TRAINING_STATES,
    count_active_parameters,
    count_parameters,
    count_table_layers,
    kv_cache_bytes_per_token,
    layer_input_bytes,
    min_ranks,
    parameter_split,
    recurrent_state_bytes,
    training_flops_per_token,
    training_flops_split,
    training_state_bytes,
    weight_bytes,
)
from model.families.gpt2.config import GPT2Config
from model.families.presets import PRESETS
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.families.world.presets import WORLD_235B, hybrid
from storage.config import changed

torch.set_num_threads(1)

NEOX = RopeConfig(
    n_layers=3, n_heads=4, n_kv_heads=4, d_model=128, d_ff=512, feed_forward="gelu", tie_embeddings=False,
    vocab_size=1000, max_seq_len=64,
)  # fmt: skip
UNTIED = changed(PRESETS["tatar-large"], tie_embeddings=False)


def number_of_parameters(make: Any) -> int:
    """Count what a class creates; a tied parameter is listed once."""
    with torch.device("meta"):
        model = make()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_count_equals_the_model_on_the_meta_device(name: str) -> None:
    from model.families.registry import build_model

    assert count_parameters(PRESETS[name]) == number_of_parameters(lambda: build_model(PRESETS[name]))


@pytest.mark.parametrize("config", [NEOX, UNTIED], ids=["gelu-untied", "swiglu-untied"])
def test_count_of_variants_equals_the_model_on_the_meta_device(config: RopeConfig) -> None:
    from model.families.registry import build_model

    assert count_parameters(config) == number_of_parameters(lambda: build_model(config))


@pytest.mark.parametrize("name", ["gpt2-124m", "gpt2-tiny"])
def test_count_of_gpt2_equals_transformers(name: str) -> None:
    import transformers

    config = PRESETS[name]
    assert isinstance(config, GPT2Config)
    theirs = transformers.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.max_seq_len, n_embd=config.d_model,
        n_layer=config.n_layers, n_head=config.n_heads,
    )  # fmt: skip
    assert count_parameters(config) == number_of_parameters(lambda: transformers.GPT2LMHeadModel(theirs))


@pytest.mark.parametrize(
    "config", [PRESETS["tatar-large"], UNTIED, PRESETS["demo"]], ids=["tied", "untied", "demo"]
)
def test_count_of_rope_swiglu_equals_transformers_llama(config: RopeConfig) -> None:
    import transformers

    theirs = transformers.LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.d_model, intermediate_size=config.d_ff,
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads, tie_word_embeddings=config.tie_embeddings,
    )  # fmt: skip
    assert count_parameters(config) == number_of_parameters(lambda: transformers.LlamaForCausalLM(theirs))


@pytest.mark.parametrize("tied", [False, True])
def test_count_of_rope_gelu_equals_transformers_neox(tied: bool) -> None:
    import transformers

    config = changed(NEOX, tie_embeddings=tied)
    theirs = transformers.GPTNeoXConfig(
        vocab_size=config.vocab_size, hidden_size=config.d_model, intermediate_size=config.d_ff,
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads, tie_word_embeddings=tied,
    )  # fmt: skip
    assert count_parameters(config) == number_of_parameters(lambda: transformers.GPTNeoXForCausalLM(theirs))


@pytest.mark.parametrize("config", [PRESETS["hybrid-1m"], hybrid(WORLD_235B)], ids=["1m", "235b"])
def test_count_of_hybrid_equals_transformers_qwen3_next(config: WorldConfig) -> None:
    import transformers

    theirs = transformers.Qwen3NextConfig(
        vocab_size=config.vocab_size, hidden_size=config.d_model, num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads, head_dim=config.head_dim,
        linear_num_key_heads=config.n_key_heads, linear_key_head_dim=config.key_dim,
        linear_num_value_heads=config.n_value_heads, linear_value_head_dim=config.value_dim,
        linear_conv_kernel_dim=config.conv_taps, num_experts=config.num_experts,
        num_experts_per_tok=config.top_k, moe_intermediate_size=config.d_expert,
        shared_expert_intermediate_size=config.d_shared, tie_word_embeddings=config.tie_embeddings,
        layer_types=["linear_attention" if kind == "D" else "full_attention" for kind in "DDDADDDA"]
        * config.n_superblocks,
    )  # fmt: skip
    assert count_parameters(config) == number_of_parameters(lambda: transformers.Qwen3NextForCausalLM(theirs))


# The numbers that the README and the specification state.
STATED = {
    "world-235b": (234_788_390_442, 48_720_676_394),
    "world-800m": (839_574_696, 266_265_768),
    "world-20m": (20_932_436, 10_708_820),
    "world-1m": (1_125_500, 486_524),
    "gpt2-124m": (124_439_808, 124_439_808 - 1024 * 768),
}


@pytest.mark.parametrize("name", STATED)
def test_count_is_the_stated_number(name: str) -> None:
    assert (count_parameters(PRESETS[name]), count_active_parameters(PRESETS[name])) == STATED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_split_sums_to_the_count(name: str) -> None:
    split = parameter_split(PRESETS[name])
    assert sum(split.values()) == count_parameters(PRESETS[name])
    assert all(part >= 0 for part in split.values())


def test_split_of_the_235b_model_by_hand() -> None:
    split = parameter_split(WORLD_235B)
    assert split["experts"] == 96 * 256 * 3 * 4096 * 736
    assert split["shared_experts"] == 96 * (3 * 4096 * 736 + 4096)
    assert split["router"] == 96 * 256 * 4096
    assert split["embedding_and_head"] == 2 * 65_536 * 4096
    assert split["delta_net"] == 72 * (
        12_288 * 4096 + 8192 * 4096 + 128 * 4096 + 4 * 12_288 + 64 + 64 + 128 + 4096 * 8192
    )
    assert split["attention"] == 24 * (16_384 * 4096 + 2 * 512 * 4096 + 4096 * 8192 + 256 + 256)
    assert split["norms"] == 96 * 2 * 4096 + 4096
    assert split["context"] == 12 * (4096 + 64 * 4096 + 2 * 64 + 2 + 2 * 32 + 2 * 32 + 6 * 64)
    assert split["classification_heads"] == (6 + 12) * 4097


@pytest.mark.parametrize(
    ("changes", "billions"),
    [
        ({"d_expert": 704, "d_shared": 704}, 225.09),
        ({"d_expert": 768, "d_shared": 768}, 244.49),
        ({"d_model": 5120, "d_expert": 576, "d_shared": 576, "n_heads": 40, "n_value_heads": 80}, 235.88),
    ],
    ids=["704", "768", "5120"],
)
def test_count_of_the_shapes_not_chosen(changes: dict[str, int], billions: float) -> None:
    assert count_parameters(changed(WORLD_235B, **changes)) / 1e9 == pytest.approx(billions, abs=0.005)


def test_active_parameters_leave_out_idle_experts_and_the_embedding_look_up() -> None:
    assert count_parameters(WORLD_235B) - count_active_parameters(WORLD_235B) == (
        96 * (256 - 42) * 3 * 4096 * 736 + 65_536 * 4096
    )
    assert count_active_parameters(PRESETS["demo"]) == count_parameters(PRESETS["demo"])
    assert count_active_parameters(UNTIED) == count_active_parameters(PRESETS["tatar-large"])


def test_flops_of_the_235b_model_by_hand() -> None:
    split = training_flops_split(WORLD_235B, 4096)
    assert split["parameters"] == 6 * 48_720_676_394  # 292.3 GFLOP
    assert split["attention"] == 24 * 3 * 2 * 2 * 8192 * 4096 // 2  # 4.8 GFLOP
    assert split["delta_net"] / 1e9 == pytest.approx(1.9, abs=0.05)
    assert training_flops_per_token(WORLD_235B, 4096) == sum(split.values())
    assert training_flops_per_token(WORLD_235B, 4096) / 1e9 == pytest.approx(299, abs=0.5)


def test_flops_of_delta_net_equal_counted_products_of_one_chunk() -> None:
    chunk, key, value = 64, WORLD_235B.key_dim, WORLD_235B.value_dim
    with torch.device("meta"):
        q, k, v = torch.empty(chunk, key), torch.empty(chunk, key), torch.empty(chunk, value)
        triangle, state = torch.empty(chunk, chunk), torch.empty(key, value)
    with FlopCounterMode(display=False) as triangular:  # torch counts both halves of a triangle
        for product in (k @ k.T, q @ k.T, triangle @ k, triangle @ v, triangle @ v):
            assert product.numel()
    with FlopCounterMode(display=False) as whole:
        for product in (k @ state, q @ state, k.T @ v):
            assert product.numel()
    forward = triangular.get_total_flops() // 2 + whole.get_total_flops()
    heads = 72 * WORLD_235B.n_value_heads
    assert training_flops_split(WORLD_235B, 4096)["delta_net"] * chunk == 3 * heads * forward


@pytest.mark.parametrize("name", ["gpt2-tiny", "demo"])
def test_flops_equal_those_that_torch_counts(name: str) -> None:
    import transformers

    config: Any = PRESETS[name]
    length = config.max_seq_len
    if name == "gpt2-tiny":
        theirs: Any = transformers.GPT2Config(
            vocab_size=config.vocab_size, n_positions=length, n_embd=config.d_model, n_layer=config.n_layers,
            n_head=config.n_heads, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0,
        )  # fmt: skip
    else:
        theirs = transformers.LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.d_model, intermediate_size=config.d_ff,
            num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads, tie_word_embeddings=True,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long)).logits.sum().backward()
    split = training_flops_split(config, length)
    counted = counter.get_total_flops() / length  # with the masked half of attention, without norms and biases
    assert split["parameters"] + 2 * split["attention"] == pytest.approx(counted, rel=0.005)


def test_training_states_of_the_235b_model() -> None:
    total = 234_788_390_442
    assert training_state_bytes(WORLD_235B) == 16 * total  # 3.76 TB
    assert [round(sum(TRAINING_STATES[kind]) * total / 1e12, 2) for kind in TRAINING_STATES] == [
        3.76, 4.23, 3.76, 2.35, 1.88,
    ]  # fmt: skip
    per_rank = {n: round(training_state_bytes(WORLD_235B, n_ranks=n) / 1e9, 1) for n in (64, 128, 256)}
    assert per_rank == {64: 58.7, 128: 29.3, 256: 14.7}
    assert weight_bytes(WORLD_235B) == 2 * total  # 470 GB
    assert training_state_bytes(PRESETS["world-800m"]) / 1e9 == pytest.approx(13.4, abs=0.05)


def test_training_states_are_covered_by_their_ranks() -> None:
    config = PRESETS["world-1m"]  # 1,125,500 parameters are not a multiple of 7
    assert 0 <= 7 * training_state_bytes(config, n_ranks=7) - training_state_bytes(config) < 7


def test_min_ranks_is_the_smallest_number_that_fits() -> None:
    for room in (80e9, 64e9, 141e9):
        ranks = min_ranks(WORLD_235B, room)
        assert training_state_bytes(WORLD_235B, n_ranks=ranks) <= room
        assert training_state_bytes(WORLD_235B, n_ranks=ranks - 1) > room
    assert min_ranks(PRESETS["demo"], 80e9) == 1


def test_generation_memory_of_the_235b_model() -> None:
    assert kv_cache_bytes_per_token(WORLD_235B) == 48 * 1024
    state = 72 * 64 * 128 * 128 * 4
    taps = 72 * 3 * (2048 + 2048 + 8192) * 2
    assert recurrent_state_bytes(WORLD_235B) == state + taps
    assert round(recurrent_state_bytes(WORLD_235B) / 1e6) == 307
    assert recurrent_state_bytes(WORLD_235B) / kv_cache_bytes_per_token(WORLD_235B) == pytest.approx(6250, abs=5)
    assert layer_input_bytes(WORLD_235B, 4096) / 1e9 == pytest.approx(3.2, abs=0.05)


def test_generation_memory_of_dense_models() -> None:
    assert kv_cache_bytes_per_token(PRESETS["gpt2-124m"], bytes_per_value=4) == 12 * 2 * 768 * 4
    assert kv_cache_bytes_per_token(PRESETS["tatar-large"]) == 12 * 2 * 4 * 64 * 2
    assert recurrent_state_bytes(PRESETS["gpt2-124m"]) == 0


@pytest.mark.parametrize(("name", "rows"), [("world-235b", 101), ("world-800m", 29), ("hybrid-1m", 13)])
def test_table_layers_are_the_rows_of_the_layer_table(name: str, rows: int) -> None:
    from model.families.world.measurements.layer_table import layer_table
    from model.families.world.network import WorldModel

    config = PRESETS[name]
    assert isinstance(config, WorldConfig)
    with torch.device("meta"):
        model = WorldModel(config)
    assert count_table_layers(config) == rows == len(layer_table(model))


def test_table_layers_of_dense_models_are_their_blocks() -> None:
    assert count_table_layers(PRESETS["gpt2-124m"]) == 12


def test_import_loads_no_torch() -> None:
    code = "import sys, model.families.estimate, model.families.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The mixture of experts against transformers' block and against a sum over all experts."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.config import WorldConfig
from model.families.world.experts import Experts, MixtureOfExperts
from model.families.world.presets import WORLD_1M
from model.families.world.trace import Trace
from model.layers.basic import init_weights
from storage.config import changed

SMALL = changed(WORLD_1M, d_model=32, num_experts=8, top_k=3, d_expert=16, d_shared=24)
SOFTMAX = changed(SMALL, router="softmax_aux")
SHAPES = {
    "grouped": SMALL,
    "all-experts": changed(SMALL, top_k=8),
    "one-expert": changed(SMALL, num_experts=1, top_k=1),
    "odd-expert-width": changed(SMALL, d_expert=7),
    "odd-model-width": changed(SMALL, d_model=30),
}

# Sums of the same float32 numbers in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As in training: operations that add in any order raise."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def large_weights(module: nn.Module) -> nn.Module:
    """Draw weights of such a size that all parts of the block matter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return module


def make_block(config: WorldConfig) -> MixtureOfExperts:
    block = MixtureOfExperts(config)
    large_weights(block)
    if config.router == "sigmoid_bias":
        block.gate.e_score_correction_bias.normal_(std=0.2)
    return block


def dense_sum(experts: Experts, x_NC: Tensor, weights_NE: Tensor) -> Tensor:
    """Every expert on every token, weighted with what is mostly 0."""
    gate, up = torch.einsum("nc,efc->nef", x_NC, experts.gate_up_proj).chunk(2, dim=-1)
    return torch.einsum("nef,ecf,ne->nc", F.silu(gate) * up, experts.down_proj, weights_NE)


def values_and_gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), inputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_experts_equal_dense_sum(config: WorldConfig, dtype: torch.dtype) -> None:
    experts = large_weights(Experts(config)).to(dtype)
    x = torch.randn(19, config.d_model, dtype=dtype, requires_grad=True)
    weights, chosen = torch.randn(19, config.num_experts, dtype=dtype).topk(config.top_k)
    weights.requires_grad_()
    inputs = [x, weights, *experts.parameters()]
    sparse = torch.zeros(19, config.num_experts, dtype=dtype).scatter(1, chosen, weights)
    expected = values_and_gradients(dense_sum(experts, x, sparse), inputs)
    torch.testing.assert_close(values_and_gradients(experts(x, chosen, weights), inputs), expected, **CLOSE)


@pytest.mark.parametrize("width", [16, 7], ids=["grouped", "looped"])
def test_experts_without_tokens_have_gradient_zero(width: int) -> None:
    experts = large_weights(Experts(changed(SMALL, d_expert=width)))
    chosen = torch.tensor([[6, 2, 3], [3, 6, 2]])  # neither the first nor the last expert
    experts(torch.randn(2, 32), chosen, torch.rand(2, 3)).sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        used = parameter.grad.flatten(1).abs().sum(dim=1) > 0
        assert used.nonzero().flatten().tolist() == [2, 3, 6]


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=str)
@pytest.mark.parametrize(
    "config", [SMALL, SOFTMAX, changed(SMALL, d_expert=7)], ids=["sigmoid", "softmax", "looped"]
)
def test_block_without_tokens_has_gradients_zero_for_all_parameters(
    config: WorldConfig, shape: tuple[int, int]
) -> None:
    block, trace = make_block(config), Trace()
    y = block(torch.randn(*shape, 32, requires_grad=True), trace)
    assert y.shape == (*shape, 32)
    (y.sum() + trace.routers[0].loss).backward()
    assert trace.routers[0].loss == 0
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_stacks_that_are_freed_after_forward_and_restored_for_backward_are_not_kept() -> None:
    """As ZeRO-3 does with the parameters that it gathers."""
    experts = large_weights(Experts(SMALL))
    x = torch.randn(19, SMALL.d_model, requires_grad=True)
    weights, chosen = torch.rand(19, SMALL.num_experts).topk(SMALL.top_k)
    inputs = [x, *experts.parameters()]
    wanted = values_and_gradients(experts(x, chosen, weights), inputs)
    whole = [parameter.detach().numpy().copy() for parameter in experts.parameters()]
    gathered = []
    for parameter, values in zip(experts.parameters(), whole, strict=True):
        memory = values.copy()
        gathered.append(weakref.ref(memory))
        parameter.data = torch.from_numpy(memory)
        del memory
    y = experts(x, chosen, weights)
    for parameter in experts.parameters():
        parameter.data = torch.empty(0)
    assert [memory() for memory in gathered] == [None, None]
    for parameter, values in zip(experts.parameters(), whole, strict=True):
        parameter.data = torch.from_numpy(values)
    for one, other in zip(values_and_gradients(y, inputs), wanted, strict=True):
        assert torch.equal(one, other)


def qwen_block(config: WorldConfig) -> nn.Module:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextSparseMoeBlock

    return Qwen3NextSparseMoeBlock(
        Qwen3NextConfig(
            hidden_size=config.d_model,
            num_experts=config.num_experts,
            num_experts_per_tok=config.top_k,
            moe_intermediate_size=config.d_expert,
            shared_expert_intermediate_size=config.d_shared,
            norm_topk_prob=True,
        )
    )


@pytest.mark.parametrize("width", [16, 7], ids=["grouped", "looped"])
def test_softmax_block_equals_qwen3_next(width: int) -> None:
    config = changed(SOFTMAX, d_expert=width)
    theirs, ours = qwen_block(config), MixtureOfExperts(config)
    large_weights(theirs)
    ours.load_state_dict(theirs.state_dict())  # the same names and shapes
    with torch.no_grad():
        theirs.experts.down_proj *= config.top_k**0.5
    x = torch.randn(3, 11, 32, requires_grad=True)
    torch.testing.assert_close(values_and_gradients(ours(x), [x]), values_and_gradients(theirs(x), [x]), **CLOSE)


def test_sigmoid_block_equals_definition_token_by_token() -> None:
    block = make_block(SMALL)
    x = torch.randn(2, 5, 32)
    expected = torch.empty_like(x)
    for place in [(b, t) for b in range(2) for t in range(5)]:
        scores = torch.sigmoid(block.gate.weight @ x[place])
        best = (scores + block.gate.e_score_correction_bias).argsort(descending=True)[:3]
        weights = torch.zeros(8).index_copy(0, best, scores[best] / scores[best].sum() * 3**0.5)
        shared = block.shared_expert
        inner = F.silu(shared.gate_proj.weight @ x[place]) * (shared.up_proj.weight @ x[place])
        expected[place] = dense_sum(block.experts, x[place][None], weights[None])[0] + torch.sigmoid(
            block.shared_expert_gate.weight[0] @ x[place]
        ) * (shared.down_proj.weight @ inner)
    torch.testing.assert_close(block(x), expected, **CLOSE)


def test_permuted_tokens_permute_outputs() -> None:
    block, x = make_block(SMALL), torch.randn(1, 40, 32)
    order = torch.randperm(40)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], **CLOSE)


@pytest.mark.parametrize("width", [16, 12], ids=["grouped", "looped"])
def test_block_under_autocast_computes_in_bfloat16_near_float32(width: int) -> None:
    block, x = make_block(changed(SMALL, d_expert=width)), torch.randn(2, 9, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(parameter.grad is not None for parameter in block.parameters())
    error = (y.float() - block(x)).norm() / block(x).norm()
    assert error < 0.02  # 5 roundings of 2^-9 one after the other


@pytest.mark.parametrize(
    ("config", "dtype"),
    [(SMALL, torch.bfloat16), (SOFTMAX, torch.bfloat16), (SMALL, torch.float32)],
    ids=["sigmoid", "softmax", "float32"],
)
def test_compiled_block_equals_block_for_any_length(config: WorldConfig, dtype: torch.dtype) -> None:
    block = make_block(config).to(dtype)
    one_graph = dtype == torch.bfloat16
    compiled = torch.compile(block, backend="aot_eager", fullgraph=one_graph, dynamic=True)
    for length in (12, 31):
        x, results = torch.randn(2, length, 32, dtype=dtype, requires_grad=True), []
        for forward in (compiled, block):
            trace = Trace()
            y = forward(x, trace)
            results.append(
                [
                    *values_and_gradients(y, [x, *block.parameters()]),
                    trace.routers[0].loss,
                    trace.routers[0].counts_E,
                ]
            )
        torch.testing.assert_close(*results)
    assert block.gate.load.sum() == 2 * (12 + 31) * 2 * config.top_k


def test_block_on_meta_device_has_the_specified_state() -> None:
    with torch.device("meta"):
        block = MixtureOfExperts(SMALL)
        assert block.to(torch.bfloat16)(torch.empty(2, 5, 32, dtype=torch.bfloat16)).shape == (2, 5, 32)
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    assert shapes == {
        "gate.weight": (8, 32),
        "gate.e_score_correction_bias": (8,),
        "experts.gate_up_proj": (8, 32, 32),
        "experts.down_proj": (8, 32, 16),
        "shared_expert.gate_proj.weight": (24, 32),
        "shared_expert.up_proj.weight": (24, 32),
        "shared_expert.down_proj.weight": (32, 24),
        "shared_expert_gate.weight": (1, 32),
    }
    assert {name for name, _ in block.named_buffers()} == {"gate.e_score_correction_bias", "gate.load"}
    assert {name for name, _ in MixtureOfExperts(SOFTMAX).named_buffers()} == {"gate.load"}


def test_weights_drawn_after_the_meta_device_equal_those_of_the_constructor() -> None:
    torch.manual_seed(1)
    direct = MixtureOfExperts(SMALL)
    with torch.device("meta"):
        block = MixtureOfExperts(SMALL)
    block.to_empty(device="cpu")
    torch.manual_seed(1)
    init_weights(block)
    torch.testing.assert_close(block.state_dict(), direct.state_dict(), rtol=0, atol=0)
    assert not block.gate.load.any()
    residual = 0.02 / (2 * SMALL.n_layers) ** 0.5
    spreads = {name: 0.02 for name, _ in block.named_parameters()}
    spreads |= {"experts.down_proj": residual, "shared_expert.down_proj.weight": residual}
    for name, parameter in block.named_parameters():  # 32 numbers in the smallest: 4 standard errors of a spread
        assert parameter.std().item() == pytest.approx(spreads[name], rel=4 / (2 * parameter.numel()) ** 0.5), name


def test_trace_keeps_scalars_and_counts_only() -> None:
    trace = Trace()
    make_block(SMALL)(torch.randn(2, 9, 32), trace)
    assert [tensor.numel() for tensor in vars(trace.routers[0]).values()] == [8, 1, 1, 1]

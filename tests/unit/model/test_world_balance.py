"""The router's choices, its losses, and the bias that evens the load."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.families.world.balance import (
    Router,
    balance_loss,
    expert_loads,
    load_metrics,
    router_loss,
    update_expert_biases,
)
from model.families.world.config import WorldConfig
from model.families.world.presets import WORLD_1M
from model.families.world.trace import RouterTrace, Trace
from storage.config import changed

SMALL = changed(WORLD_1M, d_model=32, num_experts=8, top_k=3)
ROUTERS = {"sigmoid": SMALL, "softmax": changed(SMALL, router="softmax_aux")}
each_router = pytest.mark.parametrize("config", ROUTERS.values(), ids=ROUTERS)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def make_router(config: WorldConfig) -> Router:
    router = Router(config)
    nn.init.normal_(router.weight, std=0.2)
    return router


def traced(router: Router, x: Tensor) -> RouterTrace:
    trace = Trace()
    router(x, trace)
    return trace.routers[0]


def count(experts_NK: Tensor, num_experts: int) -> list[int]:
    return torch.bincount(experts_NK.flatten(), minlength=num_experts).tolist()


@each_router
def test_router_under_autocast_equals_float32_bitwise(config: WorldConfig) -> None:
    router, x = make_router(config), torch.randn(4, 64, 32)
    experts, weights = router(x)
    expected = traced(router, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same_experts, same_weights = router(x)
        found = traced(router, x)
    assert weights.dtype == same_weights.dtype == torch.float32
    assert torch.equal(experts, same_experts)
    assert torch.equal(weights, same_weights)
    for name, tensor in vars(expected).items():
        assert torch.equal(vars(found)[name], tensor), name


@each_router
def test_weights_sum_to_the_scale(config: WorldConfig) -> None:
    for scale, expected in ((0.0, math.sqrt(3)), (2.5, 2.5)):
        _, weights = make_router(changed(config, route_scale=scale))(torch.randn(2, 9, 32))
        torch.testing.assert_close(weights.sum(dim=-1), torch.full((18,), expected))


def test_bias_changes_the_choice_but_not_the_weights() -> None:
    router, x = make_router(SMALL), torch.randn(2, 9, 32)
    router.e_score_correction_bias[5] = 10.0
    experts, weights = router(x)
    assert (experts == 5).any(dim=1).all()
    scores = torch.sigmoid(x.flatten(0, 1) @ router.weight.T).gather(1, experts)
    torch.testing.assert_close(weights, scores / scores.sum(dim=1, keepdim=True) * math.sqrt(3))


@each_router
def test_load_counts_the_choices_in_training_only(config: WorldConfig) -> None:
    router, x = make_router(config), torch.randn(2, 9, 32)
    first, _ = router(x)
    second, _ = router(2 - x)
    router.eval()
    assert traced(router, x).counts_E.tolist() == count(first, 8)
    assert router.load.tolist() == count(torch.cat((first, second)), 8)
    assert "load" not in router.state_dict()


@each_router
def test_balance_loss_is_one_with_even_and_most_with_one_sided_load(config: WorldConfig) -> None:
    router = make_router(changed(config, d_model=8, top_k=2))
    with torch.no_grad():
        router.weight.copy_(20 * torch.eye(8))
    ring = torch.eye(8) + torch.eye(8).roll(1, dims=1)  # every expert is chosen by two of eight tokens
    if config.router == "sigmoid_bias":
        ring = 2 * ring - 1  # scores of 1 and 0
    assert traced(router, ring[None]).balance.item() == pytest.approx(1, abs=1e-5)
    assert traced(router, ring[:1].repeat(1, 8, 1).view(1, 8, 8)).balance.item() == pytest.approx(8 / 2, abs=1e-5)


def test_balance_loss_is_one_with_even_load_for_any_scores() -> None:
    assert balance_loss(torch.rand(2, 9, 8), torch.full((2, 8), 3 / 8), 3).item() == pytest.approx(1, abs=1e-6)


@each_router
def test_losses_equal_their_formulas(config: WorldConfig) -> None:
    router, x = make_router(config), torch.randn(2, 9, 32)
    experts, _ = router(x)
    logits = x.double() @ router.weight.double().T
    sigmoid = config.router == "sigmoid_bias"
    scores = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)
    rows = (
        [(scores[b], experts.view(2, 9, 3)[b]) for b in range(2)] if sigmoid else [(scores.flatten(0, 1), experts)]
    )
    balance = 0.0
    for row, chosen in rows:
        p = (row / row.sum(dim=1, keepdim=True)).mean(dim=0)
        balance += sum(count(chosen, 8)[e] / len(row) * p[e] for e in range(8)) * 8 / 3 / len(rows)
    z = (logits**2).mean() if sigmoid else (logits.exp().sum(dim=-1).log() ** 2).mean()
    trace = traced(router, x)
    weights = (1e-4, 1e-5) if sigmoid else (1e-3, 1e-4)
    assert trace.balance.item() == pytest.approx(balance.item(), rel=1e-5)
    assert trace.z.item() == pytest.approx(z.item(), rel=1e-5)
    expected = 2 * (weights[0] * balance + weights[1] * z).item()
    assert router_loss([trace, trace]).item() == pytest.approx(expected, rel=1e-5)


@each_router
def test_descending_the_balance_loss_evens_the_load(config: WorldConfig) -> None:
    router, x = make_router(config), torch.randn(1, 512, 32) + 0.5
    before = load_metrics(router, traced(router, x).counts_E[None])["max_load/00"]
    optimizer = torch.optim.Adam(router.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        traced(router, x).balance.backward()
        optimizer.step()
    after = load_metrics(router, traced(router, x).counts_E[None])["max_load/00"]
    assert after < 1 + (before - 1) / 2


def test_bias_evens_256_experts_with_42_active() -> None:
    router = Router(changed(WORLD_1M, d_model=128, num_experts=256, top_k=42))
    mean, spread = 0.5 * torch.randn(128), torch.randn(128).exp()  # skewed, with a direction that all tokens share

    def max_load(tokens: int) -> float:
        router(mean + spread * torch.randn(1, tokens, 128))
        return load_metrics(router, expert_loads(router))["max_load/00"]

    with torch.no_grad():
        before = max_load(4096)
        for _ in range(400):
            max_load(1024)
            update_expert_biases(router, expert_loads(router), rate=2e-3)
        assert before > 2
        assert max_load(4096) < 1.3
    assert abs(router.e_score_correction_bias.mean()) < 1e-4


def test_update_moves_biases_by_the_sign_and_resets_the_load() -> None:
    model = nn.ModuleList([make_router(changed(SMALL, num_experts=4)), make_router(changed(SMALL, num_experts=4))])
    for router, load in zip(model, ([1, 1, 1, 9], [5, 5, 5, 5]), strict=True):
        router.load.copy_(torch.tensor(load))
    assert expert_loads(model).tolist() == [[1, 1, 1, 9], [5, 5, 5, 5]]
    update_expert_biases(model, 2 * expert_loads(model), rate=0.1)
    torch.testing.assert_close(model[0].e_score_correction_bias, torch.tensor([0.05, 0.05, 0.05, -0.15]))
    assert not model[1].e_score_correction_bias.any()
    assert not expert_loads(model).any()


def test_update_of_a_softmax_router_resets_the_load_only() -> None:
    router = make_router(ROUTERS["softmax"])
    router(torch.randn(2, 9, 32))
    before = router.weight.clone()
    update_expert_biases(router, expert_loads(router), rate=1.0)
    assert not router.load.any()
    assert torch.equal(router.weight, before)


def test_bias_stays_float32_when_the_model_is_cast() -> None:
    router = make_router(SMALL)
    bias = router.e_score_correction_bias.normal_().clone()
    router.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert router.load.dtype == torch.int64
    assert torch.equal(router.state_dict()["e_score_correction_bias"], bias)
    _, weights = router(torch.randn(2, 9, 32).bfloat16())
    assert weights.dtype == torch.float32


def test_load_metrics_of_known_loads() -> None:
    model = nn.ModuleList([make_router(changed(SMALL, num_experts=4)), make_router(ROUTERS["softmax"])])
    model[0].e_score_correction_bias.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0]))
    metrics = load_metrics(model, torch.tensor([[6, 6, 0, 0], [0, 0, 0, 0]]))
    expected = {"load_entropy/00": 0.5, "max_load/00": 2.0, "dead_experts/00": 2.0, "router_bias/00": 0.5}
    expected |= {"load_entropy/01": 0.0, "max_load/01": 0.0, "dead_experts/01": 4.0}
    assert metrics == pytest.approx(expected)
    even = load_metrics(model[0], torch.full((1, 4), 7))
    assert even["load_entropy/00"] == pytest.approx(1)
    assert even["max_load/00"] == pytest.approx(1)


def _balance_of_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    router, x = torch.load(f"{folder}/input.pt", weights_only=False)
    torch.save(traced(router, x[rank : rank + 1]).balance.item(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_softmax_balance_loss_averages_over_processes_to_that_of_the_whole_batch(tmp_path: Path) -> None:
    router, x = make_router(ROUTERS["softmax"]), torch.randn(2, 9, 32)
    torch.save((router, x), tmp_path / "input.pt")
    torch.multiprocessing.spawn(_balance_of_half, (str(tmp_path),), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert sum(halves) / 2 == pytest.approx(traced(router, x).balance.item(), rel=1e-5)

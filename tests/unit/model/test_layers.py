"""The shared layers: the projection that decodes faster, and initialization after the meta device."""

import pytest
import torch
from torch.nn import functional as F

from model.families.presets import PRESETS
from model.families.registry import build_model
from model.layers.basic import FEW_VECTORS, ROW_GROUPS, init_weights, project, rotary_angles, rotate
from storage.config import changed


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("outputs", [1, 6, ROW_GROUPS - 1, ROW_GROUPS, ROW_GROUPS + 5, 1000])
@pytest.mark.parametrize(
    "shape", [(16,), (1, 1, 16), (FEW_VECTORS, 16), (FEW_VECTORS + 1, 16), (2, 3, 16), (0, 16)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_projection_equals_a_linear_layer(outputs: int, shape: tuple[int, ...], bias: bool) -> None:
    x, weight = torch.randn(*shape), torch.randn(outputs, 16)
    added = torch.randn(outputs) if bias else None
    expected = F.linear(x, weight, added)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(project(x, weight, added), expected, rtol=1e-5, atol=1e-5)
    half = project(x.bfloat16(), weight.bfloat16(), None if added is None else added.bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["gpt2-tiny", "demo", "world-1m", "hybrid-1m"])
def test_model_from_the_meta_device_starts_as_one_that_was_built_here(name: str) -> None:
    config = changed(PRESETS[name], vocab_size=4000)
    built = build_model(config)
    with torch.device("meta"):
        model = build_model(config)
    init_weights(model.to_empty(device="cpu"))
    for name, parameter in built.named_parameters():
        expected, drawn = parameter.detach(), model.get_parameter(name).detach()
        if parameter.numel() > 500:  # enough numbers for their spread to be compared
            assert float(drawn.std()) == pytest.approx(float(expected.std()), rel=0.2, abs=1e-7), name
            assert float((drawn.mean() - expected.mean()).abs()) < 0.2 * float(expected.std()) + 1e-7, name
    for name, buffer in built.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)


def test_rotation_keeps_lengths_and_depends_on_distances_only() -> None:
    q, k = torch.randn(8), torch.randn(8)

    def product(i: int, j: int) -> float:
        cos, sin = rotary_angles(torch.tensor([i, j]), 4, 100.0)  # half of the channels
        rotated = rotate(torch.stack((q, k))[None, None], (cos, sin))[0, 0]
        torch.testing.assert_close(rotated.norm(dim=-1), torch.stack((q, k)).norm(dim=-1))
        return float(rotated[0] @ rotated[1])

    assert product(3, 1) == pytest.approx(product(12, 10), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)

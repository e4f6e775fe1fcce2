"""A compiled network, and one with channels last: the same weights by the same names."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from litlab.config.compose import load
from litlab.config.constraints import device_reasons
from litlab.runs.checkpoint.metadata import load as read
from litlab.training import compile
from litlab.training.preflight import preflight
from litlab.utils.errors import ConfigError, EnvironmentFault, refuse
from run_helpers import THIRD_PARTY, small_run

pytestmark = [
    *THIRD_PARTY,
    pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning"),  # torch to itself
]


class Network(nn.Sequential):
    """A class of its own: torch.compile passes over those of torch.nn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def network() -> nn.Module:
    torch.manual_seed(0)
    return Network(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # a bias before batch norm has no gradient
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 4),
    )


def trained(model: nn.Module, steps: int = 5) -> nn.Module:
    """Take some steps on fixed noise."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    for _ in range(steps):
        x = torch.randn(16, 3, 8, 8, generator=generator)
        y = torch.randint(0, 4, (16,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def close(a: nn.Module, b: nn.Module) -> None:
    assert list(a.state_dict()) == list(b.state_dict())
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


def test_channels_last_trains_the_same_weights() -> None:
    plain = trained(network())
    turned = network()
    compile.use_channels_last(turned)
    seen: list[torch.Tensor] = []
    turned[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    close(trained(turned), plain)
    assert turned[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_auto_is_for_convolutions_of_a_cpu() -> None:
    wants, model = compile.wants_channels_last, network()
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert wants("auto", model, cpu, plain=True)
    assert not wants("auto", model, cpu, plain=False)
    assert not wants("auto", model, gpu, plain=True)
    assert not wants(False, model, cpu, plain=True)
    assert wants(True, model, gpu, plain=False)
    assert not wants("auto", nn.Linear(2, 2), cpu, plain=True)
    with pytest.warns(UserWarning, match="channels_last"):
        assert not wants(True, nn.Linear(2, 2), cpu, plain=True)


@pytest.mark.parametrize("saved_turned", [False, True])
def test_state_of_another_layout_is_laid_out_anew(saved_turned: bool) -> None:
    def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> None:
        for k in range(2):
            weight.grad = torch.empty_like(weight).copy_(gradient * (k + 1) + weight.detach())
            optimizer.step()

    def weight_of(start: torch.Tensor, turned: bool) -> nn.Parameter:
        layout = torch.channels_last if turned else torch.contiguous_format
        return nn.Parameter(start.contiguous(memory_format=layout))

    torch.manual_seed(0)
    start, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    reference = weight_of(start, saved_turned)
    optimizer = torch.optim.AdamW([reference], lr=0.1, fused=True)
    steps(optimizer, reference)
    state, halfway = copy.deepcopy(optimizer.state_dict()), reference.detach().clone()
    steps(optimizer, reference)

    resumed = weight_of(halfway, not saved_turned)
    optimizer = torch.optim.AdamW([resumed], lr=0.1, fused=True)
    optimizer.load_state_dict(state)
    compile.lay_out_as_parameters(optimizer)
    steps(optimizer, resumed)
    torch.testing.assert_close(resumed.detach(), reference.detach())


def test_a_run_compiles_its_network_and_leaves_the_same_checkpoint(project, monkeypatch) -> None:
    calls: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_with(self, backend))
    plain = small_run(project, out=project / "plain")
    compiled = small_run(project, "trainer.compile=true", out=project / "compiled")
    assert calls
    a, b = (read(run.checkpoint).weights for run in (plain, compiled))
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def compile_with(module: nn.Module, backend) -> None:
    module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_weights() -> None:
    plain, compiled = trained(network()), network()
    compile.compile_in_place(compiled)
    close(trained(compiled), plain)


def test_a_failed_compilation_is_one_line() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        raise RuntimeError("no such kernel\nand much more")

    model = network()
    compile_with(model, broken)
    message = r"torch\.compile failed.*no such kernel"
    with pytest.raises(EnvironmentFault, match=message), compile.explained():
        model(torch.ones(2, 3, 8, 8))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), compile.explained():
        nn.Linear(2, 2)(torch.ones(1, 3))


def test_a_missing_compiler_is_refused_before_anything_else(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    settings = load(["trainer.accelerator=cpu"]).trainer.model_copy(update={"compile": True})
    with pytest.raises(EnvironmentFault, match="no-such-compiler"):
        refuse(device_reasons(settings))


@pytest.mark.parametrize("setting", ["compile", "channels_last"])
def test_neither_goes_with_sharded_weights(setting: str) -> None:
    config = load(["trainer.accelerator=cpu", "trainer.devices=2"])
    trainer = config.trainer.model_copy(update={"strategy": "fsdp2", setting: True})
    with pytest.raises(ConfigError, match=f"trainer.{setting}, trainer.strategy"):
        preflight(config.model_copy(update={"trainer": trainer}))

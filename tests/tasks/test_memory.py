"""What does not fit into memory is refused in one line, before it is allocated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from litlab.tasks import memory
from litlab.tasks.memory import (
    GIB,
    enough_for_model,
    explained,
    free_memory,
    is_out_of_memory,
    resident,
)
from litlab.utils.errors import ConfigError, EnvironmentFault

HUGE = 10**8


@pytest.mark.parametrize(
    "setting",
    [
        ["model=mlp", f"model.hidden=[{HUGE}]"],
        ["model=mlp", f"model.hidden=[{HUGE},{HUGE}]"],
        ["model=cnn", f"model.channels=[{10**6},{10**6}]"],
        ["model=transformer", f"model.embed_dim={HUGE}", "model.num_heads=1"],
        ["model=mlp", "data.source.kind=text", f"model.embed_dim={10**11}"],
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    litlab: Any, project: Path, setting: list[str]
) -> None:
    before = resident()
    code, _, err = litlab("train", "data=synthetic", "data.source.num_samples=60", *setting)
    assert code == 2
    assert "Traceback" not in err
    refused = err.splitlines()[-1]
    assert refused.startswith("error: the network needs ")
    assert "GiB of memory or more (4 times its weights, to train it)" in refused
    assert resident() - before < GIB
    assert not (project / "runs").exists()


def built(width: int, free: float, factor: float = 1.0) -> nn.Module:
    with enough_for_model({"memory": (free, factor)}):
        return nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, width))


def test_weights_are_counted_to_the_byte() -> None:
    size = 4 * (2 * 50 * 50 + 50)
    assert sum(p.nbytes for p in built(50, size).parameters()) == size
    assert built(50, 4 * size, 4.0)
    with pytest.raises(ConfigError, match="needs"):
        built(50, size - 1)
    with pytest.raises(ConfigError, match="4 times its weights"):
        built(50, 4 * size - 1, 4.0)


def test_many_small_layers_count_as_much() -> None:
    layers = []
    with pytest.raises(ConfigError), enough_for_model({"memory": (10_000, 1.0)}):
        layers += [nn.Linear(10, 10) for _ in range(1000)]


def test_a_shared_weight_counts_once() -> None:
    with enough_for_model({"memory": (4 * 2500, 1.0)}):
        first, second = nn.Linear(50, 50, bias=False), nn.Module()
        second.weight = first.weight


def test_a_layer_whose_size_is_not_known_yet() -> None:
    with enough_for_model():
        assert nn.LazyLinear(5)(torch.ones(2, 3)).shape == (2, 5)


def test_it_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(5, 5).weight
    torch.manual_seed(0)
    with enough_for_model():
        assert torch.equal(nn.Linear(5, 5).weight, expected)


def test_an_allocation_that_fails_is_one_line() -> None:
    with pytest.raises(EnvironmentFault, match="GiB of it are free") as caught, enough_for_model():
        torch.arange(2).expand(10**15, 2).clone()  # as a model of the user's own might
    assert caught.value.exit_code == 5
    with pytest.raises(RuntimeError, match="something else"), explained("x", "y", "z"):
        raise RuntimeError("something else")
    with pytest.raises(EnvironmentFault), explained("x", "y", "z"):
        raise MemoryError


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(("most", "expected"), [("3000", 2500), ("max", None)])
def test_a_cgroup_limits_it(
    most: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"memory.max": most, "memory.current": "1000", "memory.stat": "inactive_file 500\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    assert free_memory() == expected or (expected is None and free_memory() > 2500)


def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (2**50, 2**50))
    unlimited = list(memory._of_process())
    monkeypatch.setattr("resource.getrlimit", lambda _: (2**49, 2**49))
    assert unlimited[0] - next(memory._of_process()) == pytest.approx(2**49, rel=1e-3)

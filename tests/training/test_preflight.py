"""What cannot be trained is refused before data are read, all reasons at once."""

import pytest
import torch

from litlab.config import constraints
from litlab.config.schema import Config
from litlab.training.preflight import check_with_data, folds, preflight, study
from litlab.utils.errors import ConfigError, Refused
from run_helpers import THIRD_PARTY, small, small_run

pytestmark = THIRD_PARTY


def changed(config: Config, **settings: object) -> Config:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update=settings)})


def test_a_build_of_torch_without_the_device_is_refused(project, monkeypatch) -> None:
    config = small()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    preflight(config)
    preflight(changed(config, precision="bf16-mixed"))
    with pytest.raises(ConfigError, match="this machine has 0"):
        preflight(changed(config, accelerator="gpu"))
    monkeypatch.setattr(constraints, "_count_cuda", lambda: 1)
    with pytest.raises(ConfigError, match="cannot use a gpu"):
        preflight(changed(config, accelerator="gpu"))
    with pytest.raises(ConfigError, match="fastest algorithm"):
        preflight(changed(config, deterministic=True, benchmark=True))


def test_a_gpu_without_bfloat16_is_refused(project, monkeypatch) -> None:
    config = changed(small(), accelerator="gpu", precision="bf16-mixed")
    monkeypatch.setattr(constraints, "_count_cuda", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ConfigError, match="Old GPU has no bfloat16"):
        preflight(config)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    preflight(config)


def test_what_processes_cannot_do_together_is_said_at_once(project) -> None:
    config = changed(
        small("loader.batch_size=1"), devices=2, budget="1m", lr_find="use", batch_size_find="use"
    )
    with pytest.raises(Refused) as error:
        preflight(config)
    assert [reason.where for reason in error.value.reasons] == [
        "trainer.budget",
        "trainer.batch_size_find",
        "trainer.lr_find",
        "loader.batch_size",
    ]


def test_a_single_process_has_nothing_to_share(project) -> None:
    with pytest.raises(ConfigError, match="but there is one"):
        preflight(changed(small(), strategy="fsdp2"))


def test_rules_of_a_command_come_on_top(project) -> None:
    config = changed(small("monitor=train/loss"), devices=2)
    preflight(config)
    with pytest.raises(Refused, match="number of folds") as error:
        preflight(config, [folds])
    assert len(error.value.reasons) == 2
    with pytest.raises(ConfigError, match="validation"):
        preflight(config, [study])


def test_nothing_is_prepared_for_what_is_refused(project) -> None:
    config = changed(small(), deterministic=True, benchmark=True, ema={"decay": 0.9}, swa={"lr": 1})
    with pytest.raises(Refused) as error:
        small_run(project, trainer=config.trainer)
    assert len(error.value.reasons) == 2
    assert not (project / "data" / "prepared").exists()
    assert not (project / "runs").exists()


def test_reasons_that_need_the_data(project) -> None:
    class Spec:
        kind, cardinalities = "tabular", (3,)
        sizes = {"train": 5, "val": 5}  # noqa: RUF012

    config = changed(small("loader.batch_size=10", "loader.drop_last=true"), precision="bf16-true")
    with pytest.raises(Refused) as error:
        check_with_data(config, Spec(), torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    wheres = [reason.where for reason in error.value.reasons]
    assert wheres == ["trainer.precision", "loader.batch_size"]

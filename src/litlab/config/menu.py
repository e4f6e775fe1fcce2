"""What conf/ offers, read as plain YAML: help must not wait for Hydra, let alone torch."""

from contextlib import suppress
from typing import Any

from litlab.utils.paths import choice_files, conf_folders

# The settings most often changed, and what they are.
OFTEN_CHANGED = {
    "trainer.max_epochs": "number of epochs",
    "loader.batch_size": "samples per step",
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "model.dropout": "dropout rate",
    "seed": "of weights, batch order and augmentation",
    "trainer.early_stopping": "stop without improvement: {patience: 10}, in epochs",
    "trainer.accelerator": "cpu, gpu, cuda, mps",
    "trainer.devices": "number of processes or GPUs",
    "trainer.precision": "32-true, bf16-mixed, 16-mixed (GPU), ...",
}
# The settings of a study, `study.NAME`, and what they are.
STUDY_SETTINGS = {
    "n_trials": "number of trials, those of earlier commands included",
    "time_limit": "start no trial after this time, e.g. 10m",
    "workers": "processes that train in parallel",
    "space": "what is varied: 'study.space.optimizer.lr={low: 1e-4, high: 0.1}'",
    "objectives": "what is optimized: '[val/accuracy, parameters]'; empty: monitor",
    "sampler": "tpe, gp, cmaes, random, grid, qmc",
    "pruner": "median, hyperband, patient, none",
    "finalists": "number of best trials to train again on new seeds",
    "finalist_seeds": "number of new seeds for each of them",
    "name": "of the study; the same name resumes it",
    "storage": "address of a database that several machines share",
    "stale_after": "time without a heartbeat after which a trial is taken over",
    "seed": "of the sampler",
}


def groups() -> dict[str, list[str]]:
    """Return every configuration group with the names of its choices, both sorted."""
    names = {path.parent.name for conf in conf_folders() for path in conf.glob("*/*.yaml")}
    return {group: sorted(choice_files(group)) for group in sorted(names)}


def read(name: str) -> dict[str, Any]:
    """Return one file of conf/ as it is written, nothing composed; {} if it cannot be read.

    Args:
        name: Its path below conf/, such as "model/cnn.yaml".
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    path = next((f / name for f in conf_folders() if (f / name).is_file()), None)
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
        content = yaml.load(path.read_bytes(), Loader=loader) if path else None
        if isinstance(content, dict):
            return content
    return {}


def describe(name: str) -> str:
    """Return the first sentence of the comment that a file of conf/ opens with, or ""."""
    for conf in conf_folders():
        with suppress(OSError, UnicodeDecodeError):
            lines = (conf / name).read_text(encoding="utf-8").splitlines()
            comments = [line[1:].strip() for line in lines if line.startswith("# ")]
            return next((c for c in comments if not c.startswith("@package")), "")
    return ""


def defaults() -> dict[str, Any]:
    """Return the value of each setting in `OFTEN_CHANGED` when nothing is overridden."""
    chosen = _chosen()
    values = {}
    for setting in OFTEN_CHANGED:
        group, _, key = setting.rpartition(".")
        for content in [_of_choice(group, chosen[group])] if group in chosen else _main_files():
            section = content if group in ("", *chosen) else content.get(group) or {}
            if key in section:
                values[setting] = section[key]
    return values


def _main_files() -> list[dict[str, Any]]:
    """Return base.yaml and what is set on top of it, in Hydra's order."""
    return [read(name) for name in ("base.yaml", "project.yaml", "config.yaml")]


def _chosen() -> dict[str, str]:
    """Return the choice of each group; a data set overrides those of its task, as in Hydra."""
    chosen: dict[str, str] = {}
    for content in _main_files():
        chosen |= _entries(content) | _entries(content, "override /")
    by_data = _entries(read(f"data/{chosen.get('data')}.yaml"), "override /")
    chosen |= by_data
    return chosen | _entries(read(f"task/{chosen.get('task')}.yaml"), "override /") | by_data


def _entries(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    listed = [e for e in content.get("defaults") or [] if isinstance(e, dict)]
    entries = {str(k): v for entry in listed for k, v in entry.items() if isinstance(v, str)}
    return {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}


def _of_choice(group: str, choice: str) -> dict[str, Any]:
    """Return a choice's own settings, on top of those of the choice it is based on."""
    content = read(f"{group}/{choice}.yaml")
    based_on = [e for e in content.get("defaults") or [] if isinstance(e, str) and e != "_self_"]
    inherited = _of_choice(group, based_on[0]) if based_on and based_on[0] != choice else {}
    return {**inherited, **content}

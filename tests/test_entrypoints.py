"""MLproject, Makefile and README name commands that exist."""

import re
from pathlib import Path

import yaml

from litlab.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
VERBS = {command.name or command.callback.__name__ for command in app.registered_commands}


def test_every_mlproject_command_is_a_verb_with_its_parameters():
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for name, entry in entry_points.items():
        if name == "main":
            assert entry["command"] == "dvc repro"
            continue
        assert name in VERBS
        assert entry["command"].startswith(f"python src/litlab {name}")
        used = set(re.findall(r"\{(\w+)\}", entry["command"]))
        assert used == set(entry.get("parameters", {})), name


def test_every_stage_has_an_entry_point():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(stages) <= set(entry_points)


def test_readme_lists_every_verb_and_no_other():
    text = (ROOT / "README.md").read_text()
    listed = set(re.findall(r"^\| `litlab (\w+)", text, flags=re.M))
    assert listed == VERBS


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_readme_is_finished():
    assert "@@" not in (ROOT / "README.md").read_text()

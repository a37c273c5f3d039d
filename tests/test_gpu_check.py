"""The check for a GPU runs on the CPU with tiny sizes, so that it is ready when there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def check(out, *options):
    command = [sys.executable, "-m", "tools.gpu_check", "--device", "cpu", "--tiny", "--out", out]
    run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    report = json.loads((out / "gpu_check.json").read_text())
    return run, report, {part["name"]: part for part in report["parts"]}


def test_parts_that_pass(tmp_path):
    run, report, parts = check(tmp_path, "--minutes", "30", "--only", "memory", "encoding")
    assert run.returncode == 0, run.stdout + run.stderr
    assert [(name, part["result"]) for name, part in parts.items()] == [
        ("memory", "passed"),
        ("encoding", "passed"),
    ]
    assert report["torch"] and report["card"] and report["cores"] > 0
    assert [row.get("images at a time") for row in parts["memory"]["rows"]] == [16, 16, 16, None]
    assert {row["encoder"] for row in parts["encoding"]["rows"]} == {"mini", "ViT-S-32-alt"}
    table = (tmp_path / "gpu_check.md").read_text()
    assert report["card"] in table and "bare tower" in table


def test_a_check_that_is_cut_off_leaves_a_report(tmp_path):
    run, _, parts = check(tmp_path, "--minutes", "0.02", "--only", "same results", "memory")
    assert run.returncode == 1
    assert parts["same results"]["result"] == "failed"
    assert "'same results' is failed: it was ended after" in run.stderr
    assert "memory" in (tmp_path / "gpu_check.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_each_part_that_fails_is_named(tmp_path):
    run, _, parts = check(tmp_path, "--device", "cuda", "--only", "memory", "encoding")
    assert run.returncode == 1
    for name in parts:
        assert f"The part {name!r} is failed: " in run.stderr and "NVIDIA" in run.stderr


@pytest.mark.slow
def test_the_other_parts(tmp_path):
    """But the suite's tests, which run anyway."""
    only = ("--only", "same results", "notebook", "epochs")
    run, _, parts = check(tmp_path, "--minutes", "30", *only)
    assert run.returncode == 0, run.stdout + run.stderr
    assert all(part["result"] == "passed" and part["rows"] for part in parts.values())
    log = (tmp_path / "gpu_check.log").read_text()
    assert all(f"--- {name}" in log for name in parts)

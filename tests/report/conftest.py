"""Fake run folders, written as the runtime writes them."""

import json
from pathlib import Path

import pytest

CONFIG = 'seed = 0\nrounds = 3\n[data]\nname = "mnist"\n[model]\nname = "lenet"\n[method]\nname = "fedpm"\n'
PARAMETERS = 266_610


def fake_round(number, rounds, up_bpp, top, previous_bytes):
    """One line of a ledger: accuracy climbs to `top`, the uplink costs `up_bpp` and gets cheaper."""
    up_bpp_now = up_bpp * (1 - 0.4 * number / rounds)
    up_bytes, down_bytes = int(10 * up_bpp_now * PARAMETERS / 8), int(1.1 * 10 * up_bpp * PARAMETERS / 8)
    return {
        "round": number,
        "accuracy": top * (1 - 0.8 ** (1 + 30 * number / rounds)),
        "loss": 2.3 * 0.9**number,
        "up_bytes": up_bytes,
        "down_bytes": down_bytes,
        "evaluate_bytes": 1000,
        "up_bpp": up_bpp_now,
        "down_bpp": up_bpp * 1.1,
        "up_bpp_marginal": up_bpp,
        "total_bytes": previous_bytes + up_bytes + down_bytes + 1000,
        "clients": 10,
        "seconds": {"train": 1.5, "encode": 0.12, "decode": 0.07, "evaluate": 0.4},
        "dropped": [],
        "personal_accuracy": None,
        "personal_worst_decile": None,
        "link_seconds": None,
        "nmse": None,
        "worst_nmse": None,
        "missed": None,
        "up_by_sort": {"update": up_bytes - 37, "request": 37},
        "down_by_sort": {"keyframe": 1000, "step": down_bytes - 1000},
        "up_parts": {"frame": 430, "mask": up_bytes - 37 - 430},
    }


def fake_rounds(rounds=3, up_bpp=0.9, top=0.98):
    rows = []
    for number in range(1, rounds + 1):
        rows.append(fake_round(number, rounds, up_bpp, top, rows[-1]["total_bytes"] if rows else 0))
    return rows


def fake_summary(rows, **changes):
    summary = {
        "method": "fedpm",
        "uplink": "shared_mask",
        "downlink": "float32",
        "data": "mnist",
        "model": "lenet",
        "parameters": PARAMETERS,
        "clients": 20,
        "rounds": len(rows),
        "accuracy": rows[-1]["accuracy"] if rows else None,
        "best_accuracy": max((row["accuracy"] or 0 for row in rows), default=None),
        "model_accuracy": 0.975,
        "up_bytes": sum(row["up_bytes"] for row in rows),
        "down_bytes": sum(row["down_bytes"] for row in rows),
        "evaluate_bytes": sum(row["evaluate_bytes"] for row in rows),
        "mean_up_bpp": rows[0]["up_bpp"] if rows else None,
        "mean_down_bpp": rows[0]["down_bpp"] if rows else None,
        "last_up_bpp": rows[-1]["up_bpp"] if rows else None,
        "model_bytes": 31_204,
        "model_bpp": 0.936,
        "wall_seconds": 12.34,
        "error_feedback": False,
    }
    return {**summary, **changes}


def write_run(folder: Path, rows=None, config=CONFIG, finished=True, **summary):
    rows = fake_rounds() if rows is None else rows
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config, encoding="utf-8")
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if finished:
        (folder / "summary.json").write_text(json.dumps(fake_summary(rows, **summary)), encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, rows=..., config=..., finished=..., **summary keys) -> folder"""
    return lambda name="a", **options: write_run(tmp_path / name, **options)


@pytest.fixture(scope="session")
def make_rounds():
    return fake_rounds


@pytest.fixture(scope="session")
def make_run_at():
    """make_run_at(folder, rows=..., config=..., finished=..., **summary keys) -> folder"""
    return write_run

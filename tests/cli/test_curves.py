"""The points behind figures and tables are those of the ledgers."""

import csv

from experiments import curves

from thinwire.compare import compare, read


def test_the_points_of_a_suite_are_those_of_its_ledgers(tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'seeds = [0, 1]\nrounds = 4\n[data]\nname = "digits"\nclients = 3\n[model]\nname = "linear"\n'
        '[evaluation]\nserver_every = 2\n[method]\nname = "fedavg"\n'
        '[entries.plain]\n[entries.thin]\nuplink = { id = "stc", keep = 0.01 }\n'
    )
    rows = compare(read([str(suite)]), tmp_path / "runs")
    curves.main(suite, tmp_path / "runs")
    with open(suite.with_suffix(".csv"), newline="") as file:
        points = list(csv.DictReader(file))
    assert [(p["entry"], p["seed"], p["round"]) for p in points] == [
        (entry, seed, done) for entry in ("plain", "thin") for seed in "01" for done in "24"
    ]
    for row in rows:
        last = [p for p in points if p["entry"] == row["entry"] and p["round"] == "4"]
        for column in ("accuracy", "up_bytes", "down_bytes"):
            assert sum(float(p[column]) for p in last) / 2 == row[column]

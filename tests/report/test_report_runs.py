import json

import pytest

from thinwire.errors import DataError
from thinwire.report import read_run
from thinwire.report.runs import read_runs, total_bytes


def test_a_finished_run_is_read_as_written(make_run, make_rounds):
    folder = make_run(rows=make_rounds(4), accuracy=0.5)
    run = read_run(folder)
    assert run.finished
    assert run.path == folder
    assert run.rounds == make_rounds(4)
    assert run.summary["accuracy"] == 0.5
    assert run.config_text == (folder / "config.toml").read_text()


def test_a_path_may_be_text(make_run):
    assert read_run(str(make_run())).summary["method"] == "fedpm"


def test_an_unfinished_run_tells_what_its_rounds_tell(make_run, make_rounds):
    rows = make_rounds(3)
    rows[1]["accuracy"] = 0.99
    run = read_run(make_run(rows=rows, finished=False))
    assert not run.finished
    expected = {"method": "fedpm", "data": "mnist", "model": "lenet", "rounds": 3, "best_accuracy": 0.99}
    assert {key: run.summary[key] for key in expected} == expected
    assert run.summary["accuracy"] == rows[2]["accuracy"]
    assert run.summary["last_up_bpp"] == rows[2]["up_bpp"]
    assert run.summary["mean_up_bpp"] == pytest.approx(sum(row["up_bpp"] for row in rows) / 3)
    assert run.summary["model_bytes"] is None
    assert total_bytes(run) == rows[2]["total_bytes"]


def test_an_unfinished_run_without_rounds_is_a_run(make_run):
    run = read_run(make_run(rows=[], finished=False))
    assert run.rounds == []
    assert run.summary["accuracy"] is None


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("", {}),
        ("method = 3\n", {}),
        ('[data]\nload = "mine:data"\n[model]\nbuild = "mine:net"\n', {"data": "mine:data", "model": "mine:net"}),
        ('[data]\npath = "p"\nname = "n"\n[uplink]\nid = "eden"\n', {"data": "n", "uplink": "eden"}),
    ],
)
def test_names_of_an_unfinished_run_come_from_its_configuration(make_run, config, names):
    summary = read_run(make_run(config=config, finished=False)).summary
    assert {key: summary[key] for key in ("method", "data", "model", "uplink") if key in summary} == names


@pytest.mark.parametrize("cut", [2, 20, 150])
def test_a_last_line_cut_in_the_middle_is_left_out(make_run, make_rounds, cut):
    folder = make_run(rows=make_rounds(3))
    ledger = folder / "rounds.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-cut])
    run = read_run(folder)
    assert run.rounds == make_rounds(3)[:2]
    assert run.remarks == [f"{ledger}, line 3: cut in the middle"]


def test_a_whole_last_line_without_its_line_end_counts(make_run, make_rounds):
    folder = make_run(rows=make_rounds(3))
    ledger = folder / "rounds.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-1])
    assert read_run(folder).rounds == make_rounds(3)
    assert read_run(folder).remarks == []


def test_lines_of_another_version_are_left_out_and_counted(make_run, make_rounds):
    rows = [{**row, "new": [1]} for row in make_rounds(4)]
    del rows[1]["accuracy"], rows[2]["accuracy"], rows[3]["up_bytes"], rows[3]["total_bytes"]
    run = read_run(make_run(rows=rows, finished=False))
    assert [(row["round"], row["new"]) for row in run.rounds] == [(1, [1])]
    ledger = run.path / "rounds.jsonl"
    assert run.remarks == [
        f"{ledger}: 2 of 4 lines, without accuracy",
        f"{ledger}: 1 of 4 lines, without up_bytes, total_bytes",
    ]
    assert run.summary["rounds"] == 1


def test_of_several_runs_those_that_can_be_read_are(make_run, tmp_path):
    good, cut, bare = make_run("good"), make_run("cut"), make_run("bare")
    (bare / "rounds.jsonl").unlink()
    with open(cut / "rounds.jsonl", "a") as ledger:
        ledger.write('{"rou')
    told = []
    runs = read_runs([good, tmp_path / "nowhere", bare, cut], told.append)
    assert [run.path for run in runs] == [good, cut]
    assert told == [
        f"{tmp_path}/nowhere: not a run folder",
        f"{bare}/rounds.jsonl: missing",
        f"{cut}/rounds.jsonl, line 4: cut in the middle",
    ]


def test_no_run_that_can_be_read_is_an_error(make_run, tmp_path):
    bare = make_run("bare")
    (bare / "config.toml").unlink()
    with pytest.raises(DataError) as caught:
        read_runs([bare, tmp_path / "nowhere"], pytest.fail)
    assert str(caught.value) == f"{bare}/config.toml: missing; {tmp_path}/nowhere: not a run folder"


def test_a_cut_inside_a_character_is_left_out(make_run, make_rounds):
    folder = make_run(rows=make_rounds(1))
    with (folder / "rounds.jsonl").open("ab") as ledger:
        ledger.write('{"round": 2, "dropped": [{"reason": "é'.encode()[:-1])
    assert len(read_run(folder).rounds) == 1


def test_absent_and_unfinite_numbers_are_none(make_run, make_rounds):
    rows = make_rounds(1)
    rows[0]["loss"] = float("nan")
    rows[0]["up_bpp"] = float("inf")
    del rows[0]["up_bpp_marginal"], rows[0]["dropped"], rows[0]["seconds"]
    (row,) = read_run(make_run(rows=rows, finished=False)).rounds
    assert (row["loss"], row["up_bpp"], row["up_bpp_marginal"]) == (None, None, None)
    assert (row["dropped"], row["seconds"]) == ([], {})


def test_total_bytes_is_none_where_nothing_is_known(make_run):
    assert total_bytes(read_run(make_run(up_bytes=None, down_bytes=None, evaluate_bytes=None))) is None


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: not a run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.toml", "rounds.jsonl"])
def test_a_missing_file_is_named(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        read_run(folder)


def test_a_file_that_cannot_be_read_is_named(make_run):
    folder = make_run(finished=False)
    (folder / "summary.json").mkdir()
    with pytest.raises(DataError, match=r"summary\.json: cannot be read"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.toml", b"\xff", "config.toml: not UTF-8 text"),
        ("config.toml", b"a = = 1\n", "config.toml: not TOML"),
        ("summary.json", b"{", "summary.json: not JSON"),
        ("summary.json", b"[" * 200_000, "summary.json: not JSON"),
        ("summary.json", b"[]", "summary.json: not a JSON object"),
        ("summary.json", b'{"accuracy": "<b>"}', "summary.json: accuracy is not a number"),
        ("summary.json", b'{"up_bytes": true}', "summary.json: up_bytes is not a number"),
        ("rounds.jsonl", b'{"round": 1}\n{"rou\n{"round": 3}\n', "rounds.jsonl, line 2: not JSON"),
        ("rounds.jsonl", b"\xff\n", "rounds.jsonl, line 1: not JSON"),
        ("rounds.jsonl", b"7\n", "rounds.jsonl, line 1: not a JSON object"),
        ("rounds.jsonl", b"{}\n", "line 1: round = None is not a whole number"),
        ("rounds.jsonl", b'{"round": 1, "up_bytes": []}\n', "line 1: up_bytes is not a number"),
        ("rounds.jsonl", b'{"round": 1, "seconds": 3}\n', "line 1, seconds: not an object of names and numbers"),
        ("rounds.jsonl", b'{"round": 1, "seconds": {"train": "x"}}\n', "line 1, seconds: train is not a number"),
        ("rounds.jsonl", b'{"round": 1, "dropped": [3]}\n', "line 1: dropped is not a list of objects"),
        ("rounds.jsonl", b'{"round": 1, "dropped": {"client": 3}}\n', "line 1: dropped is not a list of objects"),
    ],
)
def test_a_broken_file_is_one_clear_line(make_run, name, content, message):
    folder = make_run()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_run(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_kept(make_run):
    folder = make_run()
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "new": "x"}))
    assert read_run(folder).summary["new"] == "x"


def test_a_ledger_whose_rounds_do_not_count_is_remarked_on(make_run, make_rounds):
    """As two runs at once in one directory leave it, where nothing keeps them apart."""
    first, second, third = make_rounds(3)
    folder = make_run(rows=[first, second, second, third])
    assert list(read_run(folder).remarks) == [
        f"{folder / 'rounds.jsonl'}, line 3: is of round 2, lines must count 1, 2, 3 …"
    ]
    assert not read_run(make_run("b", rows=[first, second, third])).remarks

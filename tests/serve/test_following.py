"""What a page is told while a run goes on: only what changed, from where it was, and who has died."""

import asyncio
import json
import random
import time

import pytest

from saelight.files import hold
from saelight.run import evaluation_file
from saelight.serve import watching
from saelight.serve.log_tail import CurveTail, Thinning, text_from
from tests.report.invented import invent
from tests.serve.client import answer, events, in_loop, served, write_progress

HEAD = "step,train/loss,train/l0,train/fvu,val/fvu\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(watching, "PAUSE", 0.05)


@in_loop
async def test_a_run_is_followed_from_its_start_to_the_death_of_its_process(tmp_path):
    run = tmp_path / "runs" / "one"
    write_progress(run, 1, a="running", b="running")
    lock = hold(run / ".lock")
    async with served(tmp_path / "runs") as (_, client):
        async with client.get("/api/events?of=one") as response:
            following = events(response)
            first, begun = await anext(following)
            assert [sae["state"] for sae in begun["saes"].values()] == ["running", "running"]
            assert begun["head"]["groups"][0]["eta"] == 9
            saes = json.loads((run / "progress.json").read_text())["saes"]
            saes["b"] |= {"state": "quarantined", "reason": "its loss was not finite, at step 2"}
            content = json.loads((run / "progress.json").read_text()) | {"saes": saes}
            (run / "progress.json").write_text(json.dumps(content))
            second, change = await anext(following)
            assert list(change["saes"]) == ["1"]
            assert change["saes"]["1"]["reason"] == "its loss was not finite, at step 2"
            assert set(change["head"]) == {"sources", "groups"}
        lock.close()
        async with client.get("/api/events?of=one", headers={"Last-Event-ID": second}) as response:
            third, change = await anext(events(response))
            assert {i: sae["state"] for i, sae in change["saes"].items()} == {"0": "interrupted"}
        # From before: both changes at once. From another life of the server's: all.
        for known, expected in ((first, ["0", "1"]), ("other-1", ["0", "1"]), (f"{first}9" * 9, ["0", "1"])):
            async with client.get("/api/events?of=one", headers={"Last-Event-ID": known}) as response:
                number, change = await anext(events(response))
                assert (number, list(change["saes"])) == (third, expected)
        assert (await answer(client, "/api/document?of=one"))[1]["id"] == third


@in_loop
async def test_an_evaluation_that_comes_later_is_told_in_table_and_front(tmp_path):
    run = invent(tmp_path / "one", 2)
    async with served(tmp_path) as (_, client), client.get("/api/events?of=one") as response:
        following = events(response)
        assert "loss_recovered" not in (await anext(following))[1]["head"]["metrics"]
        for recovered in (0.5, 0.75):
            evaluation_file.write(run / "saes/relu-1/evaluation.json", {"metrics": {"loss_recovered": recovered}})
            change = (await anext(following))[1]
            assert change["saes"]["1"]["metrics"]["loss_recovered"] == recovered
        shown = (await answer(client, "/api/document?of=one"))[1]
        assert shown["fronts"]["loss_recovered"][0]["all"] == [1]


@in_loop
async def test_progress_is_told_by_websocket_too(tmp_path):
    run = tmp_path / "one"
    write_progress(run, 1, a="running")
    async with served(tmp_path) as (_, client), client.ws_connect("/api/progress/ws?of=one") as socket:
        told = await socket.receive_json()
        assert (told["of"], told["saes"][0]["steps"], told["saes"][0]["state"]) == ("one", 1, "interrupted")
        write_progress(run, 2, a="running")
        assert (await socket.receive_json())["saes"][0]["steps"] == 2


@in_loop
async def test_a_page_of_a_folder_that_goes_away_says_so(tmp_path):
    run = invent(tmp_path / "runs" / "one", 1)
    async with served(tmp_path / "runs") as (_, client), client.get("/api/events?of=one") as response:
        following = events(response)
        await anext(following)
        (run / "results.jsonl").rename(run / "gone")
        for name in ("saes", "logs"):
            (run / name).rename(tmp_path / name)
        assert "is no run's folder" in (await anext(following))[1]["head"]["trouble"]


def test_a_log_is_read_once_as_it_grows(tmp_path):
    path = tmp_path / "metrics.csv"
    tail = CurveTail(path, 100)
    assert tail.read() is None
    path.write_text(HEAD + "0,3,1,,\n10,2,1,0.5,\n20,")
    assert tail.read() == {"step": [0, 10], "loss": [3, 2], "l0": [1, 1], "fvu": [None, 0.5]}
    with path.open("a") as file:
        file.write("1,1,0.25,\n20,,,,0.9\n30,nan,1,1,\n")
    assert tail.read() == {"step": [0, 10, 20, 30], "loss": [3, 2, 1, None], "l0": [1] * 4, "fvu": [None, 0.5, 0.25, 1]}
    # What has been read is not read again.
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content))
    with path.open("ab") as file:
        file.write(b"40,7,1,1,\n")
    assert tail.read()["step"] == [0, 10, 20, 30, 40]
    # A resume replaces the file.
    other = tmp_path / "partial"
    other.write_text("step,train/loss,train/l0,train/fvu,new\n0,3,1,,\n")
    other.replace(path)
    assert tail.read()["step"] == [0]
    path.unlink()
    assert tail.read() is None


def test_a_log_of_no_csv_is_no_curve(tmp_path):
    path = tmp_path / "metrics.csv"
    for content in (
        b"",
        b"\0" * 100,
        b"\n" * 100,
        b"\xff\xfe\n" * 9,
        b'"' * 999,
        b"a" * 3_000_000,
        b"step\n1\n",
        b"x,y\n1,2\n",
    ):
        path.write_bytes(content)
        assert CurveTail(path, 10).read() is None


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 99, 100, 101, 1000, 12_345])
def test_thinning_keeps_ends_and_spikes(n):
    rng = random.Random(n)
    rows = [(float(i), rng.random()) for i in range(n)]
    for spike in rng.sample(range(n), min(n, 1)):
        rows[spike] = (float(spike), 100.0)
    thinning = Thinning(100)
    for row in rows:
        thinning.add(row)
    kept = thinning.rows()
    assert kept == sorted(set(kept))
    assert set(kept) <= set(rows)
    assert len(kept) <= 102
    assert not rows or (kept[0], kept[-1]) == (rows[0], rows[-1])
    assert max(rows, key=lambda row: row[1], default=None) in [*kept, None]
    # What is old is no coarser than what is new.
    if n > 1000:
        early = sum(step < n / 2 for step, _ in kept)
        assert 0.35 * len(kept) < early < 0.65 * len(kept)


def test_a_text_is_read_on_from_where_it_was(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("one\ntwo\n")
    assert text_from(path, None, 4) == ("two\n", 8)
    assert text_from(path, 8, 4) == ("", 8)
    path.write_text("x")
    assert text_from(path, 8, 4) == ("x", 1)


@pytest.mark.slow
@in_loop
async def test_912_saes_of_a_million_points_stay_smooth(tmp_path):
    run = invent(tmp_path / "many", 912, logged=1100)
    write_progress(run, 1, **{f"topk-{i}": "running" for i in range(0, 912, 3)})
    async with served(tmp_path) as (_, client):
        began = time.perf_counter()
        status, whole = await answer(client, "/api/document?of=many")
        first = time.perf_counter() - began
        assert (status, len(whole["saes"])) == (200, 912)
        ids = "&".join(f"id={i}" for i in range(24))
        times = []
        for _ in range(2):
            began = time.perf_counter()
            curves = (await answer(client, f"/api/curves?of=many&{ids}"))[1]["curves"]
            times.append(time.perf_counter() - began)
        assert all(70 <= len(curve["step"]) <= 152 for curve in curves.values())
        async with client.get(f"/api/events?of=many&after={whole['id']}") as response:
            following = events(response)
            content = json.loads((run / "progress.json").read_text())
            content["saes"]["topk-0"]["loss"] = 0.5
            (run / "progress.json").write_text(json.dumps(content))
            began, beats = time.perf_counter(), []

            async def ask() -> None:
                while True:
                    at = time.perf_counter()
                    await answer(client, "/api/health")
                    beats.append(time.perf_counter() - at)
                    await asyncio.sleep(0.01)

            asking = asyncio.create_task(ask())
            _, change = await anext(following)
            asking.cancel()
        print(
            f"document {first:.2f} s; 24 curves {times[0]:.2f} s, again {times[1]:.3f} s; change {len(json.dumps(change))} B"
        )
        print(
            f"change after {time.perf_counter() - began:.2f} s; the slowest of {len(beats)} other answers {max(beats):.2f} s"
        )
        assert list(change["saes"]) == ["0"]
        assert first < 5
        assert times[1] < times[0]

"""A sweep's page: its groups as they are, what happened to each, a runner that died, and logs that are followed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saelight.serve import watching
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.sweep_folder import SweepFolder
from tests.serve.client import answer, events, in_loop, served, write_progress
from tests.support import sweeps
from tests.support.commands import saelight_


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of six points in two groups, that was expanded."""
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        assert saelight_("sweep", "expand", sweeps.write(), "--max-saes", "3", "--out", str(path / "small")) == 0
    return SweepFolder(path / "small")


@in_loop
async def test_groups_are_followed_and_a_dead_runner_is_told(folder, monkeypatch):
    monkeypatch.setattr(watching, "PAUSE", 0.05)
    monkeypatch.setattr(watching, "_OLDEST", 0.2)
    runner = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    async with served(folder.path.parent) as (_, client), client.get("/api/events?of=small") as response:
        following = events(response)
        _, begun = await anext(following)
        assert [group["states"] for group in begun["head"]["groups"]] == [{"waiting": 3}, {"waiting": 3}]
        Journal(folder.path).add("group-000", "submitted", pid=runner.pid, device="cuda:3", launcher="local")
        names = [entry.name for entry in folder.read().entries.values()][:3]
        write_progress(folder.run("group-000"), 7, **dict.fromkeys(names, "running"))
        group = await group_once(following, lambda group: group["steps"] == 7)
        assert (group["states"], group["device"], group["eta"]) == ({"running": 3}, "cuda:3", 9)
        assert [(event["event"], event["device"]) for event in group["events"]] == [("submitted", "cuda:3")]
        runner.communicate(b"\n")
        group = await group_once(following, lambda group: "running" not in group["states"])
        assert (group["states"], group["eta"], group["runner"]) == ({"interrupted": 3}, None, False)


async def group_once(following, fits):
    """The first group, when it is as it is to be."""
    async for _, change in following:
        if "groups" in change["head"] and fits(group := change["head"]["groups"][0]):
            return group
    raise AssertionError("the stream has ended")


@in_loop
async def test_logs_are_read_on_and_only_in_the_roots(folder, tmp_path):
    log = folder.path / "logs" / "group-001.txt"
    log.parent.mkdir(exist_ok=True)
    async with served(folder.path.parent) as (_, client):
        asked = "/api/log?of=small&group=group-001"
        assert (await answer(client, asked))[1] == {"error": "group-001 has no log yet"}
        log.write_text("one\n")
        assert (await answer(client, asked))[1] == {"text": "one\n", "next": 4}
        log.write_text("one\ntwo\n")
        assert (await answer(client, f"{asked}&from=4"))[1] == {"text": "two\n", "next": 8}
        log.write_text("x" * 100_000)
        assert len((await answer(client, asked))[1]["text"]) == 65_536
        assert (await answer(client, f"{asked}&from=x"))[1]["next"] == 100_000
        for group in ("group-002", "../group-001", "..%2f..%2fsecret"):
            status, content = await answer(client, f"/api/log?of=small&group={group}")
            assert (status, content["error"].startswith("no group '")) == (404, True)
        log.unlink()
        (tmp_path / "secret.txt").write_text("secret")
        log.symlink_to(tmp_path / "secret.txt")
        assert (await answer(client, asked))[1] == {"error": "group-001 has no log yet"}
        log.unlink()


@in_loop
async def test_two_sweeps_are_side_by_side(folder):
    other = Path(os.path.realpath(folder.path.parent.parent)) / "others"
    assert saelight_("sweep", "expand", sweeps.write(), "--out", str(other / "small")) == 0
    async with served(folder.path.parent, other) as (_, client):
        keys = [one["key"] for one in (await answer(client, "/api/folders"))[1]["folders"]]
        assert sorted(keys) == sorted([f"{folder.path.parent.name}/small", "others/small"])
        status, both = await answer(client, "/api/document", params=[("of", key) for key in keys])
        assert (status, len(both["saes"]), len(both["sources"])) == (200, 12, 2)
        assert [group["source"] for group in both["groups"]] in ([0, 1, 1], [0, 0, 1])

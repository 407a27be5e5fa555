"""Training that is asked for over HTTP: what a request comes to, and one that is trained, stopped, and gone on with."""

import asyncio
import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from saelight.errors import UserError
from saelight.serve.answers import TrainRequest
from saelight.serve.train_requests import PRESETS, DataRoots, plan, preset_config
from tests.serve.client import answer, events, in_loop, served
from tests.support.import_graph import PACKAGE


def shards(path, hook):
    path.mkdir(parents=True)
    (path / "metadata.json").write_text(json.dumps({"hook": hook}))


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "acts.npy", np.zeros((4, 2), dtype="float32"))
    (tmp_path / "acts.parquet").touch()
    (tmp_path / "odd:name.npy").touch()
    shards(tmp_path / "one", "encoder.layer.3")
    shards(tmp_path / "several" / "encoder.layer.3", "encoder.layer.3")
    shards(tmp_path / "several" / "encoder.layer.5", "encoder.layer.5")
    shards(tmp_path / "nameless", "embeddings")
    return DataRoots([tmp_path])


def asked(path, **fields):
    return TrainRequest.model_validate({"activation_data_path": path, **fields})


@pytest.mark.parametrize("preset", PRESETS)
def test_the_fields_change_the_preset_and_nothing_else(data, preset, tmp_path):
    request = asked("acts.npy", latent_dim=64, batch_size=32, max_samples=100, max_epochs=3, num_workers=8)
    planned = plan(request, preset, data, "job")
    shipped = preset_config(preset)
    saes = shipped["model"]["saes"]
    for sae in saes.values():
        sae["init_args"].pop("expansion", None)
        sae["init_args"]["d_sae"] = 64
    assert {run["name"]: run["sae"] for run in planned.sweep["runs"]} == {
        name: {"class_path": sae["class_path"], **sae["init_args"]} for name, sae in saes.items()
    }
    shipped["trainer"]["max_epochs"] = 3
    shipped["data"]["init_args"] |= {"path": str(tmp_path / "acts.npy"), "batch_size": 32, "max_samples": 100}
    assert planned.base["trainer"] == shipped["trainer"]
    assert planned.base["data"] == shipped["data"]
    assert planned.notes == ["num_workers is not used: saelight reads ahead by a thread of its own"]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_those_that_are_shipped(preset):
    assert (PACKAGE / "serve/presets" / f"{preset}.yaml").read_text() == (
        PACKAGE.parent / f"configs/{preset}.yaml"
    ).read_text()


@pytest.mark.parametrize(
    ("path", "layer", "address", "note"),
    [
        ("acts.npy", None, "acts.npy", None),
        ("acts.npy", 6, "acts.npy", "layer_idx is not used: acts.npy has one layer"),
        ("./one/../acts.npy", None, "acts.npy", None),
        ("odd:name.npy", None, "odd:name.npy", None),
        ("acts.parquet", 6, "acts.parquet@6", None),
        ("acts.parquet:x", 6, "acts.parquet:x@6", None),
        ("acts.parquet:x@6", 6, "acts.parquet:x@6", None),
        ("acts.parquet@6", None, "acts.parquet@6", None),
        ("one", 3, "one", None),
        ("several", 5, "several/encoder.layer.5", None),
        ("nameless", 5, "nameless", "holds one hook, 'embeddings'"),
    ],
)
def test_a_path_and_a_layer_say_what_to_train_on(data, tmp_path, path, layer, address, note):
    for given in (path, str(tmp_path / path)):
        planned = plan(asked(given, layer_idx=layer), "fast", data, "job")
        assert planned.base["data"]["init_args"]["path"] == str(tmp_path / address)
        assert [note is not None and note in said for said in planned.notes] == [True] * (note is not None)


@pytest.mark.parametrize(
    ("path", "layer", "said"),
    [
        ("/etc/passwd", None, "is not in"),
        ("../elsewhere.npy", None, "is not in"),
        ("several/../../elsewhere.npy", None, "is not in"),
        ("outside", None, "is not in"),
        ("linked", None, "is a link that leads out of what may be read"),
        ("nothing.npy", None, "is not in"),
        ("s3://bucket/acts.npy", None, "is not in"),
        ("hf://someone/acts", None, "is not in"),
        ("a\0b", None, "is not in"),
        ("acts.parquet@5", 6, "activation_data_path says layer 5 and layer_idx 6: leave one out"),
        ("one", 4, "holds 'encoder.layer.3', and layer_idx is 4: give 3, or the path of the other layer"),
        ("several", 4, "has shards of layers 3, 5, and none of layer 4: give layer_idx one of these"),
    ],
)
def test_what_may_not_be_read_is_refused(data, tmp_path, tmp_path_factory, path, layer, said):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "acts.npy"
    elsewhere.touch()
    (tmp_path / "outside").symlink_to(elsewhere)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "acts.npy").symlink_to(elsewhere)
    with pytest.raises(UserError) as raised:
        plan(asked(path, layer_idx=layer), "fast", data, "job")
    assert said in str(raised.value)


async def until(client, job, state, patience=300.0):
    """The job, once it is in a state."""
    async with asyncio.timeout(patience):
        while (found := (await answer(client, f"/api/jobs/{job}"))[1])["state"] != state:
            assert found["state"] not in ("failed", "finished"), found
            await asyncio.sleep(0.1)
    return found


def run_shown_client(port, folder):
    """Run the client that docs/serve.md shows, on little; the states that it has seen."""
    (block,) = re.findall(r"```python\n(.*?)```", (PACKAGE.parent / "docs/serve.md").read_text(), re.DOTALL)
    program = (
        block.replace(":8765", f":{port}")
        .replace('"latent_dim": 4096', '"latent_dim": 32, "max_samples": 1000')
        .replace(": 5}", ": 1}")
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    return [line.split()[0] for line in done.stdout.splitlines()]


@pytest.mark.slow
@in_loop
async def test_a_job_is_trained_stopped_gone_on_with_and_outlives_the_server(tmp_path):
    np.save(tmp_path / "acts.npy", np.random.default_rng(0).standard_normal((20_000, 16), dtype="float32"))
    body = {"activation_data_path": "acts.npy", "layer_idx": 6, "latent_dim": 64, "max_samples": 10_000, "batch_size": 64}
    (tmp_path / "notes.txt").touch()
    options = {"train": True, "data": [str(tmp_path)]}
    runs = tmp_path / "runs"
    async with served(runs, **options) as (_, client):
        for field, value, said in (
            ("latent_dim", 10**7, "a run on cpu may take"),
            ("activation_data_path", "notes.txt", "no shards at"),
        ):
            status, content = await answer(client, "/api/sae/train", "POST", json=body | {field: value})
            assert (status, said in content["error"]) == (400, True), content
        assert list(runs.iterdir()) == []
        status, job = await answer(client, "/api/sae/train-fast", "POST", json=body | {"max_epochs": 400})
        assert (status, job["job"], job["notes"]) == (202, "fast", ["layer_idx is not used: acts.npy has one layer"])
        status, other = await answer(client, "/api/sae/train-fast", "POST", json=body | {"max_epochs": 1, "name": "next"})
        assert (status, other["state"]) == (202, "waiting")
        async with client.get("/api/progress/events?of=fast") as response, asyncio.timeout(300):
            async for _, told in events(response):
                if (told["saes"][0]["steps"] or 0) > 0:
                    break
        assert told["saes"][0]["state"] == "running"
        async with client.ws_connect("/api/progress/ws?of=fast") as socket:
            assert (await socket.receive_json())["saes"][0]["steps"] > 0
        assert (await answer(client, "/api/jobs/next/stop", "POST", json={}))[0] == 202
        assert (await answer(client, "/api/jobs/next"))[1]["state"] == "stopped"
        assert (await answer(client, "/api/jobs/fast/stop", "POST", json={}))[1]["state"] == "stopping"
        await until(client, "fast", "stopped")
        assert (await answer(client, "/api/jobs/fast/stop", "POST", json={}))[0] == 409
        states = [sae["state"] for sae in (await answer(client, "/api/progress?of=fast"))[1]["saes"]]
        assert states == ["interrupted", "interrupted"]
        assert (runs / "fast/runs/group-000/checkpoints/last.ckpt").is_file()
        await answer(client, "/api/jobs/fast/resume", "POST", json={})
        await until(client, "fast", "running")
    # The server was stopped while it trained: another one goes on with what was wanted.
    async with served(runs, **options) as (serving, client):
        jobs = (await answer(client, "/api/jobs"))[1]["jobs"]
        assert [(job["job"], job["state"] in ("waiting", "running")) for job in jobs] == [("fast", True), ("next", False)]
        await until(client, "fast", "running")
        await answer(client, "/api/jobs/fast/stop", "POST", json={})
        await until(client, "fast", "stopped")
        assert (await answer(client, "/api/jobs/next/resume", "POST", json={}))[0] == 202
        async with asyncio.timeout(300):
            while (await answer(client, "/api/jobs/next"))[1]["state"] != "finished":
                await asyncio.sleep(0.2)
        status, log = await answer(client, "/api/log?of=next&group=group-000")
        assert (status, log["next"]) == (200, (runs / "next/logs/group-000.txt").stat().st_size)
        seen = await asyncio.to_thread(run_shown_client, serving.port, tmp_path)
        assert set(seen) <= {"waiting", "running"}
        assert (await answer(client, "/api/jobs/fast-2"))[1]["state"] == "finished"
        progress = (await answer(client, "/api/progress?of=next"))[1]
        assert [sae["state"] for sae in progress["saes"]] == ["finished", "finished"]
    # One that only reads shows them all.
    async with served(runs) as (_, client):
        folders = (await answer(client, "/api/folders"))[1]["folders"]
        assert {folder["key"]: folder["states"] for folder in folders} == {
            "fast": {"interrupted": 2},
            "fast-2": {"finished": 2},
            "next": {"finished": 2},
        }


@pytest.mark.slow
def test_ctrl_c_ends_it_and_torch_is_never_loaded(tmp_path):
    (tmp_path / "runs").mkdir()
    program = (
        "import sys, atexit\natexit.register(lambda: print('torch' in sys.modules))\nfrom saelight.cli.main import main\n"
    )
    command = [sys.executable, "-c", f"{program}sys.exit(main(['serve', '--port', '0']))"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    assert server.stdout.readline().startswith(f"saelight shows {tmp_path / 'runs'}: open http://127.0.0.1:")
    server.send_signal(signal.SIGINT)
    said, _ = server.communicate(timeout=20)
    assert (server.returncode, said) == (0, "False\n")

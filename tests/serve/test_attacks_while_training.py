"""Attacks on a server whose job trains: each has its one answer, others are answered meanwhile, and the weights are those of
a training that nobody disturbed."""

import asyncio
import contextlib
import io
import json
import socket
import time

import numpy as np
import pytest

from tests.serve.bad_requests import READING, TRAINING
from tests.serve.client import answer, in_loop, served

BODY = {"activation_data_path": "acts.npy", "latent_dim": 64, "max_samples": 10_000, "batch_size": 64, "max_epochs": 4}
READ_ONLY = "this server only reads"
SOON = 10
"""Seconds within which anybody is answered, on a machine that trains and is shared."""


async def trained(client, runs, meanwhile=None):
    """The weights that a job comes to, by SAE; how often something was done meanwhile."""
    status, job = await answer(client, "/api/sae/train-fast", "POST", json=BODY | {"name": "job"})
    assert status == 202, job
    rounds = 0
    async with asyncio.timeout(500):
        while (state := (await answer(client, "/api/jobs/job"))[1]["state"]) != "finished":
            assert state in ("waiting", "running")
            if state == "running" and meanwhile is not None:
                await meanwhile()
                rounds += 1
            else:
                await asyncio.sleep(0.1)
    found = {path.parent.name: path.read_bytes() for path in runs.glob("job/runs/*/saes/*/*.safetensors")}
    assert len(found) == 2
    return found, rounds


async def attack(client, port):
    """Every bad request once, beside many idle clients, one that never reads, and a stream whose client never does."""
    host = f"Host: 127.0.0.1:{port}\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            # The server is in this loop: it has to take each in.
            stack.enter_context(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port)))
        for path, times in (("/api/document?of=job", 60), ("/api/events?of=job", 1)):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n".encode() * times)
        for method, path, headers, body, status, said in READING:
            if said.startswith(READ_ONLY) or "tin" in path:
                continue  # of a server that only reads, and of a run that is not here
            data = io.BytesIO(body) if body else None
            found, content = await answer(client, path, method, headers=headers, data=data)
            assert (found, list(content)) == (status, ["error"]), (path, content)
        for path, headers, body, status, said in TRAINING:
            found, content = await answer(client, path, "POST", headers=headers, data=body)
            assert (found, said in content["error"]) == (status, True), (path, content)
        began = time.monotonic()
        status, progress = await answer(client, "/api/progress?of=job")
        assert (status, len(progress["saes"])) == (200, 2)
        assert time.monotonic() - began < SOON


@pytest.mark.slow
@in_loop
async def test_a_training_is_undisturbed(tmp_path):
    np.save(tmp_path / "acts.npy", np.random.default_rng(0).standard_normal((20_000, 16), dtype="float32"))
    options = {"train": True, "data": [str(tmp_path)]}
    async with served(tmp_path / "calm", **options) as (_, client):
        calm, _ = await trained(client, tmp_path / "calm")
    async with served(tmp_path / "attacked", **options) as (serving, client):
        serving.streams.patience = 0.5
        attacked, rounds = await trained(client, tmp_path / "attacked", lambda: attack(client, serving.port))
        assert (await answer(client, "/api/health"))[0] == 200
        jobs = (await answer(client, "/api/jobs"))[1]["jobs"]
        assert [job["job"] for job in jobs] == ["job"]
    assert rounds > 0
    assert attacked == calm
    assert (
        json.loads(next((tmp_path / "attacked").rglob("results.jsonl")).read_text().splitlines()[0])["state"] == "finished"
    )

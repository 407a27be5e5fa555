"""What a server refuses: one clear line each, and it goes on serving."""

import asyncio
import io
import socket
from pathlib import Path

import pytest

from saelight.errors import UserError
from saelight.serve.served_folders import Roots
from tests.report.invented import invent
from tests.serve.bad_requests import JSON, READING, TRAIN, TRAINING
from tests.serve.client import answer, in_loop, served
from tests.support.commands import refused


@pytest.fixture
def runs(tmp_path):
    invent(tmp_path / "runs" / "tiny", 3)
    return tmp_path / "runs"


@in_loop
async def test_each_request_is_refused_in_one_line(runs):
    async with served(runs) as (_, client):
        for method, path, headers, body, status, said in READING:
            found, content = await answer(client, path, method, headers=headers, data=io.BytesIO(body) if body else None)
            assert (found, list(content)) == (status, ["error"]), (path, content)
            assert said in content["error"]
            assert "\n" not in content["error"]
            assert (await answer(client, "/api/health"))[0] == 200


@in_loop
async def test_each_bad_request_to_train_is_refused_in_one_line(runs):
    async with served(runs, train=True) as (_, client):
        for path, headers, body, status, said in TRAINING:
            found, content = await answer(client, path, "POST", headers=headers, data=body)
            assert (found, list(content)) == (status, ["error"]), (body, content)
            assert said in content["error"]
            assert "\n" not in content["error"]

        async def endless():
            for _ in range(1_000):
                yield b" " * 10_000

        assert await answer(client, TRAIN, "POST", headers=JSON, data=endless()) == (
            413,
            {"error": "the body is too large: send at most 65536 bytes"},
        )
        assert await answer(client, "/api/jobs") == (200, {"jobs": []})
    assert [path.name for path in runs.iterdir()] == ["tiny"]


@in_loop
async def test_a_token_is_asked_for(runs):
    async with served(runs, token=True) as (serving, client):
        assert (await answer(client, "/api/folders"))[1]["error"].startswith("no token, or a wrong one: open the address")
        assert (await answer(client, "/api/folders?token=x"))[0] == 401
        assert (await answer(client, "/api/folders", headers={"Authorization": f"Bearer {serving.token}"}))[0] == 200
        async with client.get(serving.address, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            assert "HttpOnly" in response.headers["Set-Cookie"]
            assert "SameSite=Strict" in response.headers["Set-Cookie"]
            (cookie,) = response.cookies.values()
        assert (await answer(client, "/api/folders", cookies={cookie.key: "x"}))[0] == 401
        client.cookie_jar.update_cookies({cookie.key: cookie.value})
        assert (await answer(client, "/api/folders"))[0] == 200


@in_loop
async def test_pages_forbid_what_is_not_the_servers(runs):
    async with served(runs) as (_, client):
        for path in ("/show?of=tiny", "/"):
            async with client.get(path) as response:
                assert "default-src 'none'; script-src 'self'" in response.headers["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
                assert "Access-Control-Allow-Origin" not in response.headers
                assert response.headers["X-Content-Type-Options"] == "nosniff"


@in_loop
async def test_idle_clients_and_one_that_never_reads_hinder_nobody(runs):
    invent(runs / "many", 60)
    async with served(runs) as (serving, client):
        serving.streams.patience = 0.2
        idle = [await asyncio.open_connection("127.0.0.1", serving.port) for _ in range(200)]
        deaf = socket.create_connection(("127.0.0.1", serving.port))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host = f"Host: 127.0.0.1:{serving.port}\r\n"
        deaf.sendall(b"".join(f"GET /api/document?of=many HTTP/1.1\r\n{host}\r\n".encode() for _ in range(60)))
        with socket.create_connection(("127.0.0.1", serving.port)) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(f"GET /api/events?of=many HTTP/1.1\r\n{host}\r\n".encode())
            async with asyncio.timeout(20):
                assert (await answer(client, "/api/folders"))[0] == 200
        for _, writer in idle:
            writer.close()
        deaf.close()


@in_loop
async def test_streams_are_counted(runs):
    async with served(runs) as (serving, client):
        serving.streams.most = 1
        async with client.get("/api/events?of=tiny") as response:
            await response.content.readline()
            status, content = await answer(client, "/api/events?of=tiny")
            assert (status, content["error"]) == (
                503,
                "1 clients are watching already: close a page, or ask /api/progress now and then",
            )


def test_what_leads_out_of_the_roots_is_not_shown(runs, tmp_path):
    secret = invent(tmp_path / "elsewhere" / "secret", 1)
    (runs / "linked").symlink_to(secret)
    roots = Roots([runs])
    assert list(roots.folders()) == ["tiny"]
    assert roots.strays() == [f"{runs / 'linked'} leads to {secret}, outside what is served: name that folder too"]
    assert sorted(Roots([runs, tmp_path / "elsewhere"]).folders()) == ["linked", "secret", "tiny"]


@in_loop
async def test_a_link_in_a_run_that_leads_out_is_refused(runs, tmp_path):
    (tmp_path / "passwords").write_text("step,train/loss\n1,2\n")
    log = runs / "tiny" / "logs" / "topk-0" / "metrics.csv"
    log.unlink()
    log.symlink_to(tmp_path / "passwords")
    async with served(runs) as (_, client):
        for path in ("/api/document?of=tiny", "/show?of=tiny", "/api/progress?of=tiny", "/api/curves?of=tiny&id=0"):
            status, content = await answer(client, path)
            assert status == 409
            assert "is a link that leads out of what is served" in content["error"]
        assert "leads out" in (await answer(client, "/api/folders"))[1]["folders"][0]["trouble"]


def test_a_port_that_is_taken_names_the_next_free_one(runs, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(capsys, "serve", str(runs), "--port", str(port))
    assert said.startswith(f"saelight: error: port {port} is taken: --port ")
    assert said.endswith("is free")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], "is no folder: name the one that holds your runs, as `saelight serve runs`"),
        (["--port", "x"], "argument --port: expected a port, 0 to 65535, got 'x'"),
        (["--port", "70000"], "argument --port: expected a port, 0 to 65535, got '70000'"),
        (["--train", "one"], "one is a run or a sweep: --train makes others beside such, so name the folder of all"),
        (["--data", "x"], "--data goes with --train: add that, or drop it"),
        (["--host", "203.0.113.7", "--port", "0", "."], "--host 203.0.113.7 cannot be listened on"),
        (["--train", "--data", "nowhere", "."], "nowhere: there is no such folder: name the one that holds"),
    ],
)
def test_a_command_that_cannot_be_served_is_refused(args, said, capsys):
    invent(Path("one"), 1)
    assert said in refused(capsys, "serve", *args)


def test_a_root_that_is_not_there():
    with pytest.raises(UserError, match="is no folder"):
        Roots(["nowhere"])

"""As much of W&B's server as `wandb sweep`, `wandb agent` and online runs need, on the loopback. It keeps all it hears."""

import contextlib
import gzip
import itertools
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

ENTITY = {"id": "e1", "name": "local"}
USER = {
    "id": "u1",
    "entity": "local",
    "username": "local",
    "name": "local",
    "email": "",
    "admin": False,
    "flags": "{}",
    "deletedAt": None,
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}


class Server(ThreadingHTTPServer):
    """Hands out the points of grids, one per agent's heartbeat without a running run."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.RLock()
        self.sweeps, self.agents, self.runs = {}, {}, {}

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the server."""

    # --- sweeps

    def UpsertSweep(self, given):
        name = uuid.uuid4().hex[:8]
        config = yaml.safe_load(given["config"])
        points = itertools.product(*(spec.get("values", [spec.get("value")]) for spec in config["parameters"].values()))
        points = [dict(zip(config["parameters"], point, strict=True)) for point in points]
        self.sweeps[name] = {
            "name": name,
            "text": given["config"],
            "config": config,
            "points": points,
            "again": [],
            "project": given["projectName"],
        }
        project = {"id": "p1", "name": given["projectName"], "entity": ENTITY}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def SweepWithRuns(self, given):
        sweep = self.sweeps[given["sweep"]]
        said = {"id": sweep["name"], "name": sweep["name"], "config": sweep["text"], "method": "grid", "state": "RUNNING"}
        empty = dict.fromkeys(["description", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler"])
        return {"project": {"sweep": empty | said | {"createdAt": "", "earlyStopJobRunning": False, "runs": {"edges": []}}}}

    def CreateAgent(self, given):
        agent = uuid.uuid4().hex[:8]
        self.agents[agent] = self.sweeps[given["sweep"]]
        return {"createAgent": {"agent": {"id": agent}}}

    def Heartbeat(self, given):
        sweep = self.agents[given["id"]]
        busy = [run for run, alive in json.loads(given["runState"] or "{}").items() if alive]
        commands = [{"type": "stop", "run_id": run} for run in busy if self.runs[run].get("stop")]
        if not busy and sweep["again"]:
            run = self.runs[sweep["again"].pop()]
            commands.append({"type": "resume", "run_id": run["name"], "program": None, "args": run["args"], "logs": []})
        elif not busy and sweep["points"]:
            args = {key: {"value": value} for key, value in sweep["points"].pop(0).items()}
            run = self.run(uuid.uuid4().hex[:8])
            run |= {"agent": given["id"], "args": args, "config": dict(args)}
            run |= {"sweep": sweep["name"], "project": sweep["project"]}
            commands.append({"type": "run", "run_id": run["name"], "program": None, "args": args, "logs": []})
        elif not busy:
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    # --- runs

    def run(self, name):
        return self.runs.setdefault(name, {"name": name, "config": {}, "summary": {}, "exit": [], "rows": 0})

    def UpsertBucket(self, given):
        run = self.run(given.get("name") or given["id"])
        run["config"] |= json.loads(given.get("config") or "{}")
        run["summary"] |= json.loads(given.get("summaryMetrics") or "{}")
        told = {"group": "groupName", "display": "displayName", "sweep": "sweep", "project": "project", "entity": "entity"}
        run |= {key: given[name] for key, name in told.items() if given.get(name)}
        return {"upsertBucket": {"bucket": self.bucket(run), "inserted": True}}

    def RunResumeStatus(self, given):
        run = self.runs.get(given["name"])
        return {"model": {"id": "p1", "name": given["project"], "entity": ENTITY, "bucket": run and self.bucket(run)}}

    def bucket(self, run):
        project = {"id": "p1", "name": run.get("project"), "entity": ENTITY}
        return {
            "id": run["name"],
            "name": run["name"],
            "displayName": run.get("display"),
            "config": json.dumps(run["config"]),
            "summaryMetrics": json.dumps(run["summary"]),
            "sweepName": run.get("sweep"),
            "project": project,
            "historyLineCount": run["rows"],
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": "[]",
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }

    def stream(self, run, content):
        for name, part in (content.get("files") or {}).items():
            if name == "wandb-summary.json":
                run["summary"] |= json.loads(part["content"][-1])
            elif name == "wandb-history.jsonl":
                run["rows"] += len(part["content"])
        if content.get("complete"):
            run["exit"].append(content["exitcode"])

    # --- the rest

    def Viewer(self, given):
        return {"viewer": USER}

    GetViewer = Viewer

    def ServerFeaturesQuery(self, given):
        return {"serverInfo": {"features": []}}

    def RunStoppedStatus(self, given):
        return {"project": {"run": {"stopped": False}}}

    def CreateRunFiles(self, given):
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def ServerInfo(self, given):
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}, "latestLocalVersionInfo": None}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        answer = {}
        with self.server.lock:
            if self.path == "/graphql":
                query = json.loads(body)
                name = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])[1]
                call = getattr(self.server, name, None)
                answer = {"data": call(query.get("variables") or {}) if call else {}}
            elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                self.server.stream(self.server.run(match[1]), json.loads(body))
                answer = {"exitcode": None, "limits": {}}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST


@contextlib.contextmanager
def serving():
    """A server of its own, for as long as this lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()

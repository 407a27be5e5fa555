"""What a server refuses: method, path, headers and body, and the answer's status and words."""

JSON = {"Content-Type": "application/json"}
TRAIN = "/api/sae/train"
READING = [
    # Paths that lead elsewhere
    ("GET", "/../../etc/passwd", {}, b"", 404, "there is no /etc/passwd: GET /api/openapi.json lists what there is"),
    ("GET", "/assets/..%2f..%2fguards.py", {}, b"", 404, "there is no /assets/../../guards.py"),
    ("GET", "/assets/report.html", {}, b"", 404, "there is no /assets/report.html"),
    ("GET", "/api/document?of=../secret", {}, b"", 404, "no run '../secret' here"),
    ("GET", "/api/document?of=/etc", {}, b"", 404, "no run '/etc' here"),
    ("GET", "/api/document?of=%00", {}, b"", 404, "no run '\\x00' here"),
    ("GET", "/api/log?of=tiny&group=../../x", {}, b"", 404, "is no sweep's folder"),
    ("GET", "/api/document?of=tinny", {}, b"", 404, "no run 'tinny' here; did you mean 'tiny'?"),
    # Who asks
    ("GET", "/api/folders", {"Host": "evil.example"}, b"", 403, "this server is not called 'evil.example': open it as"),
    ("GET", "/api/folders", {"Host": ""}, b"", 403, "this server is not called ''"),
    ("GET", "/api/folders", {"Host": "10.0.0.1"}, b"", 403, "this server is not called '10.0.0.1'"),
    ("GET", "/api/folders", {"Origin": "http://evil.example"}, b"", 403, "a page of 'http://evil.example' may not ask"),
    ("GET", "/api/folders", {"Origin": "null"}, b"", 403, "a page of 'null' may not ask"),
    ("GET", "/api/progress/ws?of=tiny", {"Origin": "http://evil.example"}, b"", 403, "a page of"),
    # What is asked
    ("GET", "/api/document", {}, b"", 400, "name a run or a sweep, as of=quickstart"),
    ("GET", "/api/document?of=tiny&of=tiny", {}, b"", 400, "tiny is compared with itself"),
    ("GET", "/api/document?of=tiny&of=tiny&of=tiny", {}, b"", 400, "name a run or a sweep"),
    ("GET", "/api/curves?of=tiny&id=x", {}, b"", 400, "name 1 to 32 SAEs by their numbers"),
    ("GET", "/api/progress/ws?of=tiny", {}, b"", 400, "open this by a WebSocket: /api/progress/events has"),
    ("POST", "/api/folders", JSON, b"{}", 405, "/api/folders takes GET, not POST"),
    ("POST", TRAIN, JSON, b"{}", 403, "this server only reads: start it with `saelight serve --train` to train"),
    ("POST", "/api/jobs/x/stop", JSON, b"{}", 403, "this server only reads"),
    ("POST", TRAIN, JSON, b" " * 10_000_000, 413, "the body has 10000000 bytes: send at most 65536"),
]
TRAINING = [
    (TRAIN, {"Content-Type": "text/plain"}, b"{}", 415, "Content-Type is text/plain: send JSON"),
    (TRAIN, JSON, b"{bad", 400, "the body is no JSON ("),
    (TRAIN, JSON, b"\xff\xfe", 400, "the body is no JSON ("),
    (TRAIN, JSON, b"[" * 60_000, 400, "the body is no JSON ("),
    (TRAIN, JSON, b"[]", 400, "the body is no JSON object: send the fields activation_data_path, layer_idx"),
    (TRAIN, JSON, b"{}", 400, "activation_data_path: Field required"),
    (TRAIN, JSON, b'{"latentdim": 3}', 400, "no field 'latentdim'; did you mean 'latent_dim'?"),
    (TRAIN, JSON, b'{"activation_data_path": "a.npy", "max_epochs": 0}', 400, "max_epochs: Input should be greater than"),
    (
        TRAIN,
        JSON,
        b'{"activation_data_path": "a.npy", "max_epochs": true}',
        400,
        "max_epochs: Input should be a valid integer",
    ),
    (
        TRAIN,
        JSON,
        b'{"activation_data_path": "a.npy", "max_epochs": NaN}',
        400,
        "max_epochs: Input should be a valid integer",
    ),
    ("/api/jobs/nope/stop", JSON, b"{}", 404, "no job 'nope': GET /api/jobs lists them"),
    ("/api/jobs/..%2f..%2fx/stop", JSON, b"{}", 404, "no job '../../x'"),
]

"""300 folders of shards, each damaged in one way that its seed decides. None may end in a traceback, wait, or pass."""

import json
import os
import random
import shutil
import signal
import socket
import string
from collections import Counter
from pathlib import Path

import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.row_filter import RowFilter
from saelight.data.shard_summary import summary
from saelight.data.shards.filtering import filter_shards
from saelight.data.shards.reader import ShardedRows
from saelight.data.shards.verify import verify
from saelight.errors import UserError
from saelight.files import table
from tests.data.folders import edit, edit_header, seal, write

CASES = 300
METADATA = "metadata.json"


def train(path):
    """Open and read a folder as `fit` does."""
    data = ActivationDataModule(str(path), batch_size=50)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for _ in loader:
            pass


def filter_(path):
    """`saelight shards filter`, which leaves a whole folder or nothing."""
    out = Path(path).with_name("out")
    try:
        filter_shards(path, out, RowFilter())
        verify(out)
        shutil.rmtree(out)
    finally:
        assert not list(out.parent.glob("out*"))


# --- damages: each changes the folder, and says whether opening it must find that. `verify` must find all.


def files(path):
    return sorted(path.glob("*.safetensors"))


def header_bytes(raw):
    return 8 + int.from_bytes(raw[:8], "little")


def replace_byte(raw, at, chance):
    """One bit flipped, or a whole other byte."""
    new = bytearray(raw)
    new[at] ^= 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)
    return bytes(new)


def flip_in_metadata(path, chance):
    raw = (path / METADATA).read_bytes()
    (path / METADATA).write_bytes(replace_byte(raw, chance.randrange(len(raw)), chance))
    return True


def flip_in_a_header(path, chance):
    file = chance.choice(files(path))
    raw = file.read_bytes()
    at = chance.randrange(header_bytes(raw))
    new = replace_byte(raw, at, chance)
    file.write_bytes(new)
    # A blank for another one says the same.
    return not (raw[at : at + 1].isspace() and new[at : at + 1].isspace())


def flip_in_rows(path, chance):
    file = chance.choice(files(path))
    raw = file.read_bytes()
    file.write_bytes(replace_byte(raw, chance.randrange(header_bytes(raw), len(raw)), chance))
    return False


def resize(path, chance):
    file = chance.choice([*files(path), path / METADATA])
    raw = file.read_bytes()
    cut = chance.random() < 0.7
    file.write_bytes(raw[: chance.randrange(len(raw))] if cut else raw + chance.randbytes(chance.randrange(1, 50)))
    return True


def blank(path, chance):
    """Zeros where a block was not written."""
    file = chance.choice([*files(path), path / METADATA])
    raw = file.read_bytes()
    begin = chance.randrange(len(raw) - 8)
    end = min(len(raw), begin + chance.randrange(8, 600))
    new = raw[:begin] + bytes(end - begin) + raw[end:]
    if new == raw:
        return blank(path, chance)
    file.write_bytes(new)
    return file.name == METADATA or raw[: header_bytes(raw)] != new[: header_bytes(raw)]


DEEP = json.loads("[" * 200 + "]" * 200)
WRONG = {
    int: lambda n: [None, True, str(n), float(n), n + 0.5, [], {}, [n], 2**70, DEEP],
    float: lambda x: [None, True, str(x), [], {}, [x], float("nan"), float("inf"), 10**400, DEEP],
    str: lambda s: [None, True, 5, 1.5, [], {}, [s], DEEP],
    list: lambda items: [None, True, 5, "x", {}, {"0": items}, DEEP],
    dict: lambda items: [None, True, 5, "x", [], [items], DEEP],
}
"""By the type of what is there: values of other types, or of none."""
NULLABLE = {"max_norm", "limit"}
FREE = {"reasons", "positions", "norm_places"}
"""Objects whose keys the format does not name."""


def places(value, path=()):
    """All that a JSON value holds, by its path in it."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key), item
        yield from places(item, (*path, key))


def mutate(value, path, chance):
    """Give what lies at `path` a value of another type, or take a key away that must be there."""
    *outer, last = path
    inner = value
    for key in outer:
        inner = inner[key]
    if isinstance(inner, dict) and not FREE & {*outer} and last != "dropped" and chance.random() < 0.2:
        del inner[last]
        return
    wrong = WRONG[type(inner[last])](inner[last])
    inner[last] = chance.choice([w for w in wrong if w is not None or last not in NULLABLE])


def retype_metadata(path, chance):
    meta = json.loads((path / METADATA).read_text())
    top = chance.choice([key for key in meta if key != "sha256"])
    depth = 1 if top == "source" else 99  # what the source's object holds is free
    chosen = [p for p, v in places(meta) if p[0] == top and len(p) <= depth and v is not None]
    mutate(meta, chance.choice(chosen), chance)
    seal(path / METADATA, json.dumps(meta, indent=1))
    return True


def value_at(value, path):
    for key in path:
        value = value[key]
    return value


def retype_header(path, chance):
    def change(header):
        if chance.random() < 0.3:
            name = chance.choice([*header])
            other = "".join(chance.choices(string.printable, k=chance.choice([1, 8, 5000])))
            header[other] = header.pop(name) if chance.random() < 0.5 else chance.choice([5, None, DEEP, header[name]])
        else:
            mutate(header, chance.choice([p for p, _ in places(header)]), chance)

    edit_header(path, chance.randrange(len(files(path))), change)
    return True


def renumber_metadata(path, chance):
    """Numbers of the right type that are not true."""
    meta = json.loads((path / METADATA).read_text())
    numbers = [p for p, v in places(meta) if type(v) in (int, float) and p[0] not in ("source", "dropped")]
    chosen = chance.choice(numbers)
    inner = value_at(meta, chosen[:-1])
    old = inner[chosen[-1]]
    inner[chosen[-1]] = chance.choice([old + 1, old - 1, 2 * old + 1, -old - 1])
    seal(path / METADATA, json.dumps(meta, indent=1))
    return chosen[0] != "sums" or chosen[1] == "count"


def rename(path, chance):
    """Names in the metadata that lead elsewhere."""
    shards = json.loads((path / METADATA).read_text())["shards"]
    entry = chance.choice(shards)
    name, outside = entry["file"], path.parent / "stranger" / entry["file"]
    there = [
        "",
        ".",
        "..",
        f"./{name}",
        f"../stranger/{name}",
        str(outside),
        f"{name}/",
        f"{name}\0",
        name.upper(),
        "x" * 5000,
    ]
    entry["file"] = chance.choice([*there, f"..\\{name}", METADATA, shards[entry is shards[0]]["file"]])
    edit(path, shards=shards)
    return True


def replace(path, chance):
    """Another file, or none, in a file's place."""
    file = chance.choice(files(path))
    stranger = path.parent / "stranger"
    what = chance.choice(["gone", "swapped", "stranger", "its metadata", "itself as metadata"])
    if what == "gone":
        chance.choice([file, path / METADATA]).unlink()
    elif what == "swapped":
        first, second, *_ = files(path)
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
    elif what == "stranger":
        shutil.copy(stranger / file.name, file)
    elif what == "its metadata":
        shutil.copy(stranger / METADATA, path / METADATA)
    else:
        shutil.copy(file, path / METADATA)
    return what in ("gone", "itself as metadata")


def impostor(path, chance):
    """Something that is no file in a file's place, or the folder's."""
    place = chance.choice([*files(path), path / METADATA, path])
    if place == path:
        shutil.rmtree(path)
    else:
        place.unlink()
    kind = chance.choice(["folder", "pipe", "socket", "device", "loop", "nothing"])
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(os.path.relpath(place))
    else:
        place.symlink_to({"device": "/dev/zero", "loop": place.name, "nothing": "nowhere"}[kind])
    return True


DAMAGES = [
    flip_in_metadata,
    flip_in_a_header,
    flip_in_rows,
    resize,
    blank,
    retype_metadata,
    retype_header,
    renumber_metadata,
    rename,
    replace,
    impostor,
]


def late(*_):
    raise TimeoutError


def outcome(reader, path):
    """How `reader` ends: "refused" in one line, "accepted", "hang", or the traceback's last line."""
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        reader(str(path))
    except UserError as error:
        return "refused" if len(str(error).splitlines()) == 1 and len(str(error)) < 800 else f"not one line: {error}"
    except TimeoutError:
        return "hang"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "accepted"


def make(path, seed):
    x = torch.randn(250, 4, generator=torch.Generator().manual_seed(seed))
    write(path, x, document=10, token_ids=torch.arange(250) % 50, positions=torch.arange(250) % 10)
    filter_shards(path, path.with_name("filtered"), RowFilter(max_norm=1.5, skip_positions=1, drop_tokens=[3, 33]))
    edit(path, dropped=ShardedRows(path.with_name("filtered")).metadata["dropped"])
    shutil.rmtree(path.with_name("filtered"))


@pytest.mark.slow
def test_damaged_folders(tmp_path, capsys):
    signal.signal(signal.SIGALRM, late)
    make(tmp_path / "whole", seed=0)
    make(tmp_path / "stranger", seed=1)
    readers = {"fit": train, "verify": verify, "info": summary, "filter": filter_}
    for reader in readers.values():
        assert outcome(reader, tmp_path / "whole") == "accepted"
    counts, wrong = Counter(), []
    for case in range(CASES):
        chance, damage = random.Random(case), DAMAGES[case % len(DAMAGES)]
        path = Path(shutil.copytree(tmp_path / "whole", tmp_path / "damaged"))
        found_on_opening = damage(path, chance)
        ends = {name: outcome(reader, path) for name, reader in readers.items()}
        fine = ends["verify"] == "refused" and {*ends.values()} <= {"refused", "accepted"}
        if not fine or (found_on_opening and {*ends.values()} != {"refused"}):
            wrong.append((case, damage.__name__, ends))
        counts[damage.__name__] += 1
        counts.update((damage.__name__, name) for name, end in ends.items() if end == "refused")
        counts.update(end.partition(":")[0] for end in ends.values())
        counts["missed"] += "accepted" in (ends["verify"], found_on_opening and ends["fit"])
        _remove(path)
    lines = [[d.__name__, counts[d.__name__], *(counts[d.__name__, name] for name in readers)] for d in DAMAGES]
    with capsys.disabled():
        print("\n" + table([["damage", "folders", *(f"{name} refused" for name in readers)], *lines]))
        print(
            f"{CASES} damaged folders: {counts['traceback'] + counts['not one line']} tracebacks, {counts['hang']} hangs, "
            f"{counts['missed']} silently accepted"
        )
    assert wrong == []


def _remove(path):
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)

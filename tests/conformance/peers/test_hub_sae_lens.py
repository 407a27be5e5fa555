"""What saelight shares in SAELens' layout, SAELens loads from the hub by its repository's name, and the card says how."""

import re

from huggingface_hub import constants

from saelight.convert import write
from saelight.hub import push
from saelight.saes import HardConcrete
from tests.conformance.peers.support import peer
from tests.support.conversions import CONFIGS, D, F, rows, same, same_sae, trained
from tests.support.hub_repositories import USER
from tests.support.hub_server import standing_in

sae_lens = peer("sae_lens")


def test_what_was_pushed_opens_by_name(tmp_path, monkeypatch):
    saes = {name: trained(CONFIGS[name]) for name in ("jump_relu", "topk", "batch_topk")}
    saes["gates"] = HardConcrete(d_sae=F).build(D, seed=1).eval()
    for name, sae in saes.items():
        write(sae, tmp_path / "run" / name)
    with standing_in(tmp_path / "cache") as hub:
        # As HF_ENDPOINT does to a process that begins with it.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        push(tmp_path / "run", f"{USER}/saes", "sae_lens")
        card = hub.repos[f"{USER}/saes"].files["README.md"].decode()
        blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(blocks) == 2
        for block in blocks:
            told: dict[str, object] = {}
            exec(block, told)
            assert same(saes["batch_topk"](rows()), told["sae"](rows()))
        for name, sae in saes.items():
            theirs = sae_lens.SAE.from_pretrained(f"{USER}/saes", name)
            if name == "gates":
                assert same(sae(rows()), theirs(rows()))
            else:
                same_sae(sae, theirs.encode, theirs, rows())

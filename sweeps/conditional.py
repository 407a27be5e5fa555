"""conditional.yaml in Python: wider SAEs at lower learning rates."""

name = "conditional"
base = "../configs/minilm.yaml"
sae = {"class_path": "TopK", "k": 32}


def make_cfgs() -> list[dict]:
    cfgs = []
    for d_sae in [8192, 16384, 32768]:
        for lr in [1e-3, 3e-3] if d_sae <= 16384 else [3e-4, 1e-3]:
            cfgs.append({"sae": {"d_sae": d_sae, "lr": lr}})
    return cfgs

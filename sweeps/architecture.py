"""architecture.yaml in Python: three sizes, each with its learning rate."""

name = "architecture"
base = "../configs/minilm.yaml"
sae = {"class_path": "TopK", "k": 32}


def make_cfgs() -> list[dict]:
    sizes = [("small", 8192, 1e-3), ("medium", 16384, 5e-4), ("large", 32768, 3e-4)]
    return [{"name": name, "sae": {"d_sae": d_sae, "lr": lr}} for name, d_sae, lr in sizes]

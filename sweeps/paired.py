"""paired.yaml in Python: 54 SAEs in six groups, one per layer."""

name = "paired"
base = "../configs/minilm.yaml"
sae = {"class_path": "ReLU", "expansion": 8}


def make_cfgs() -> list[dict]:
    return [
        {
            "sae": {"lr": lr, "sparsity": sparsity},
            "data": {"path": f"shards/layer{layer}", "val_path": f"shards/val-layer{layer}"},
        }
        for lr in [3e-4, 1e-3, 3e-3]
        for sparsity in [0.05, 0.1, 0.2]
        for layer in range(6)
    ]

"""Pairs of inputs and targets: row by row the same tokens, each side as it would be alone, and what is refused."""

import itertools
import pickle

import pytest
import torch

from saelight.data.datamodule import ActivationDataModule, SyntheticDataModule
from saelight.data.pairs import Pair, PairedRows
from saelight.data.shards.reader import ShardedRows
from saelight.data.stream.loaders import SequentialStream, TrainStream
from saelight.data.stream.order import cut
from saelight.errors import UserError
from tests.data.folders import counted, poison, write

N = 3000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random inputs 6 wide and targets 3 wide, in documents of 70, cut into shards at different rows."""
    root, g, tokens = tmp_path_factory.mktemp("pairs"), torch.Generator().manual_seed(0), torch.arange(N) % 50
    x = write(root / "x", torch.randn(N, 6, generator=g), rows_per_shard=700, document=70, token_ids=tokens)
    y = write(root / "y", 9 * torch.randn(N, 3, generator=g), rows_per_shard=450, document=70, token_ids=tokens)
    return {"path": str(x), "target_path": str(y)}


def delivered(data, loader):
    """Batches as the model gets them."""
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def test_known_after_init(folders):
    data = ActivationDataModule(**folders)
    x, y = (ShardedRows(path) for path in folders.values())
    assert (data.d_in, data.d_out) == (6, 3)
    assert (data.source, data.target_source) == (x.source, y.source)
    for got, side, width in ((data.normalisation, x, 6), (data.target_normalisation, y, 3)):
        mean_D = side.sums.sum_D / N
        assert got.kind == "standard"
        assert torch.equal(got.mean_D, mean_D)
        assert got.scale == pytest.approx((width / (side.mean_square_norm - mean_D.square().sum())) ** 0.5)
    plain = ActivationDataModule(folders["path"], normalise="none", target_path=folders["target_path"])
    assert all(n.scale == 1 and n.mean_D is None for n in (plain.normalisation, plain.target_normalisation))


def test_without_a_target_there_is_none(folders):
    for data in (ActivationDataModule(folders["path"], batch_size=100), SyntheticDataModule(rows=1000, val_rows=100)):
        assert (data.d_out, data.target_source, data.target_normalisation) == (None, None, None)
        assert isinstance(data.init_sample(9), torch.Tensor)


@pytest.mark.parametrize("fields", [{}, {"normalise": "none"}, {"max_samples": 1700, "seed": 3, "predict_rows": 1234}])
def test_each_side_is_bit_for_bit_what_it_would_be_alone(folders, fields):
    fields = {"batch_size": 256, "val_batch_size": 64, "val_fraction": 0.1} | fields
    pairs = ActivationDataModule(**folders, **fields)
    alone = [ActivationDataModule(path, **fields) for path in folders.values()]

    def loaders(data):
        train = data.train_dataloader()  # two epochs of it
        return [train, train, data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()]

    for together, *apart in zip(loaders(pairs), *map(loaders, alone), strict=True):
        assert len(together) == len(apart[0])
        for pair, x, y in zip(delivered(pairs, together), *map(delivered, alone, apart), strict=True):
            assert isinstance(pair, Pair)
            assert torch.equal(pair.x_BD, x)
            assert torch.equal(pair.y_BD, y)
            assert all(t.dtype == torch.float32 and t.is_contiguous() for t in pair)
    sample = pairs.init_sample(500)
    assert isinstance(sample, Pair)
    assert torch.equal(sample.x_BD, alone[0].init_sample(500))
    assert torch.equal(sample.y_BD, alone[1].init_sample(500))


def test_normalisation_is_each_sides_own(folders):
    data = ActivationDataModule(**folders, batch_size=500)
    x, y = (torch.cat(side) for side in zip(*delivered(data, data.predict_dataloader()), strict=True))
    assert x.square().sum(1).mean() == pytest.approx(6, rel=1e-5)
    assert y.square().sum(1).mean() == pytest.approx(3, rel=1e-5)
    assert max(x.mean(0).abs().max(), y.mean(0).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("left", "right", "kept"),
    [
        ("bfloat16", "bfloat16", torch.bfloat16),
        ("bfloat16", "float32", torch.float32),
        ("float32", "float16", torch.float32),
        ("float16", "bfloat16", torch.float32),
    ],
)
def test_sides_of_any_dtypes_keep_their_values(tmp_path, left, right, kept):
    x, y = torch.randn(300, 5), torch.randn(300, 70)
    rows = PairedRows(
        *(
            ShardedRows(write(tmp_path / d, z, dtype=d2, rows_per_shard=k))
            for d, z, d2, k in (("x", x, left, 90), ("y", y, right, 64))
        )
    )
    assert (rows.d_in, rows.dtype) == (75, kept)
    for start, n in [(0, 300), (299, 1), (63, 2), (80, 150)]:
        out = torch.empty(n, 75, dtype=kept)
        rows.read(start, out)
        rows.will_need(start, n)
        assert torch.equal(out[:, :5], x[start : start + n].to(getattr(torch, left)).to(kept))
        assert torch.equal(out[:, 5:], y[start : start + n].to(getattr(torch, right)).to(kept))


def test_rows_wider_than_torch_copies_alone(tmp_path):
    x, y = torch.randn(20, 40_000), torch.randn(20, 2)
    rows = PairedRows(ShardedRows(write(tmp_path / "x", x)), ShardedRows(write(tmp_path / "y", y)))
    out = torch.empty(20, 40_002)
    pickle.loads(pickle.dumps(rows)).read(0, out)
    assert torch.equal(out, torch.cat([x, y], 1))


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_gets_the_pairs_of_its_rows(folders, rank):
    sides = [ShardedRows(path) for path in folders.values()]
    pairs = PairedRows(*sides)

    def loaders(rows):
        train = TrainStream(rows, cut(0, N), 100, rank=rank, world=2, window=2)
        return itertools.chain(train, train, SequentialStream(rows, 0, N, 100, rank, 2))

    for together, x, y in zip(*map(loaders, (pairs, *sides)), strict=True):
        assert torch.equal(together, torch.cat([x, y], 1))


def test_validation_folders(tmp_path, folders):
    v, w, wide = (str(write(tmp_path / name, torch.randn(70, d))) for name, d in (("v", 6), ("w", 3), ("wide", 4)))
    data = ActivationDataModule(**folders, batch_size=50, val_path=v, target_val_path=w)
    assert (data.n_train_rows, data.n_val_rows) == (N, 70)
    x, y = (torch.cat(side) for side in zip(*delivered(data, data.val_dataloader()), strict=True))
    assert (x.shape, y.shape) == ((70, 6), (70, 3))
    with pytest.raises(UserError, match=r"data.target_val_path .*wide has width 4, data.target_path has 3"):
        ActivationDataModule(**folders, val_path=v, target_val_path=wide)
    with pytest.raises(UserError, match=r"data.val_path .*wide has width 4, data.path has 6"):
        ActivationDataModule(**folders, val_path=wide, target_val_path=w)


def test_documents_of_either_side_bound_validation(tmp_path):
    with_documents, without = write(tmp_path / "a", counted(900), document=70), write(tmp_path / "b", counted(900))
    for path, target in ((with_documents, without), (without, with_documents)):
        data = ActivationDataModule(str(path), batch_size=100, val_fraction=0.1, target_path=str(target))
        assert data.n_train_rows == 840
    assert ActivationDataModule(str(without), val_fraction=0.1, target_path=str(without)).n_train_rows == 810


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("y", r"^NaN or infinite activations: \S*/y/activations-00003\.safetensors, row 17 \(row 317 in all\)"),
        ("x", r"^NaN or infinite activations: \S*/x/activations-00003\.safetensors, row 17 \(row 317 in all\)"),
        ("xy", r"/x/activations-00003\.safetensors, row 17 and \S*/y/activations-00003\.safetensors, row 17 \(row 317"),
    ],
)
def test_nan_names_the_side_it_is_on(tmp_path, bad, named):
    paths = {side: write(tmp_path / side, counted(400)) for side in "xy"}
    for side in bad:
        poison(paths[side], shard=3, row=17)
    data = ActivationDataModule(str(paths["x"]), batch_size=50, val_fraction=0, target_path=str(paths["y"]))
    for loader in (data.train_dataloader(), data.predict_dataloader()):
        with pytest.raises(UserError, match=named):
            list(loader)


def test_another_number_of_rows_is_refused(tmp_path):
    x, y = write(tmp_path / "x", counted(400)), write(tmp_path / "y", counted(399))
    with pytest.raises(UserError, match=r"x has 400 rows, \S*y has 399; harvest both hooks in one command") as caught:
        ActivationDataModule(str(x), target_path=str(y))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["token_ids", "positions", "document_ids"])
def test_rows_of_other_tokens_are_refused(tmp_path, column):
    values = torch.arange(400) // 2
    other = values.clone()
    other[250:] += 1
    x, y = (write(tmp_path / name, counted(400), **{column: c}) for name, c in (("x", values), ("y", other)))
    with pytest.raises(UserError, match=rf"not of the same tokens: .*differ in {column} at row 250; harvest both") as caught:
        ActivationDataModule(str(x), target_path=str(y))
    assert "\n" not in str(caught.value)


def test_a_shifted_stretch_of_many_rows_is_found(tmp_path):
    n = 200_000
    tokens = torch.randint(1000, (n,), generator=torch.Generator().manual_seed(0))
    write(tmp_path / "x", torch.ones(n, 1), rows_per_shard=None, piece=n, token_ids=tokens)
    for start in (0, 77_777, n - n // 63):
        shifted, stop = tokens.clone(), start + n // 63
        shifted[start:stop] = tokens[start:stop].roll(1)
        write(tmp_path / f"{start}", torch.ones(n, 1), rows_per_shard=None, piece=n, token_ids=shifted)
        with pytest.raises(UserError, match="differ in token_ids at row"):
            ActivationDataModule(str(tmp_path / "x"), target_path=str(tmp_path / f"{start}"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"val_path": "v"}, r"data.val_path has no targets; set data.target_val_path"),
        ({"target_val_path": "v"}, r"set data.val_path, or leave it out"),
        ({"target_path": None, "val_path": "v", "target_val_path": "w"}, r"set data.target_path, or leave it out"),
        ({"target_path": "nowhere"}, "no shards at nowhere"),
    ],
)
def test_settings_that_do_not_fit_get_one_line(folders, fields, words):
    with pytest.raises(UserError, match=words) as caught:
        ActivationDataModule(**folders | fields)
    assert "\n" not in str(caught.value)


def test_targets_of_zeros_cannot_be_normalised(tmp_path, folders):
    zeros = str(write(tmp_path / "zeros", torch.zeros(N, 4)))
    with pytest.raises(UserError, match=r"normalise standard is impossible: the targets' mean ‖x‖² is 0"):
        ActivationDataModule(folders["path"], target_path=zeros)
    data = ActivationDataModule(folders["path"], target_path=zeros, normalise="none")
    assert data.target_normalisation.scale == 1.0


def test_resume_with_another_target_is_refused(tmp_path, folders):
    other = str(write(tmp_path / "y", torch.randn(N, 3)))
    streams = [
        ActivationDataModule(folders["path"], batch_size=100, target_path=target).train_dataloader()
        for target in (folders["target_path"], other, None)
    ]
    for stream in streams[1:]:
        with pytest.raises(UserError, match="cannot resume the data: the checkpoint has data fingerprint"):
            stream.load_state_dict(streams[0].state_dict())

"""One Slurm for all tests here, where it can be started."""

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def on_cluster(cluster, monkeypatch):
    """Commands speak to that Slurm."""
    for key, value in cluster.env.items():
        monkeypatch.setenv(key, value)

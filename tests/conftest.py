"""What every test needs: one thread, no network, a terminal of known width, and a cache folder of its own."""

import os
import socket

import pytest

# Before anything imports torch or numpy: two test workers on two cores, and sums that do not depend on threads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"
for _variable in ("FORCE_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "PY_COLORS"):
    os.environ.pop(_variable, None)  # with these rich writes escape codes into a pipe

_connect = socket.socket.connect


def _connect_locally(self, address):
    """Refuse the network: a test that needs it would pass on one machine and fail on the next."""
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests have no network, and this one asked for {address!r}")
    return _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def own_ledger(tmp_path_factory):
    """Keep the user's ledger of test reads out of everything, fixtures of a whole module included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WELLTUNED_STATE", str(tmp_path_factory.mktemp("session_state")))
        yield


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    """Give each test its own cache folder, its own ledger of test reads, and no network."""
    monkeypatch.setattr(socket.socket, "connect", _connect_locally)
    monkeypatch.setenv("WELLTUNED_STATE", str(tmp_path_factory.mktemp("state", numbered=True)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache", numbered=True)))


def pytest_collection_modifyitems(items):
    """Skip what this machine cannot run, with the reason."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))

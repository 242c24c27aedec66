"""An MLflow server that is not there is known before any work."""

import socket

import pytest

from actors.training.trackers.mlflow_runs import MLflow
from infra.config import ConfigError


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "https://127.0.0.1:1/path", "http://:80", "http://127.0.0.1:999999"])
def test_a_server_that_takes_no_connections_is_refused_with_the_remedy(uri):
    with pytest.raises(ConfigError, match=f"--mlflow {uri}: no server takes connections there .* or leave the flag out"):
        MLflow(uri=uri).check()


def test_a_server_that_listens_and_a_store_of_files_are_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        MLflow(uri=f"http://127.0.0.1:{server.getsockname()[1]}").check()
    MLflow(uri="sqlite:///mlflow.db").check()

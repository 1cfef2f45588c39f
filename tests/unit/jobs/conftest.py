"""MLflow for all tests of the jobs: making its database takes many times longer than what a test does with it."""

import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of an sqlite database that all tests share, with its tables; each test's job has a uid of its own."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    MlflowClient(uri).search_experiments()
    return uri

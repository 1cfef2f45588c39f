"""A registered model comes over the wire, too: from a server that serves the files itself."""

from pathlib import Path

from kompress_api.places import Tracking
from kompress_jobs.tracking import registered
from kompress_jobs.tracking.mlflow import Mlflow


def test_a_version_is_asked_for_and_downloaded_from_a_server_with_its_folders(server: Mlflow, restartable, tmp_path: Path) -> None:
    (tmp_path / "made/tokenizers/0").mkdir(parents=True)
    (tmp_path / "made/bundle.json").write_text("{}")
    (tmp_path / "made/tokenizers/0/tokenizer.json").write_text("[]")
    far = Mlflow(Tracking(uri=restartable.uri, experiment="flowers"), server.job, patience=60)
    model = far.client.create_logged_model(far.experiment, name="flowers", source_run_id=far.open_parent())
    far.fill_model(far.open_parent(), model.model_id, tmp_path / "made", [])
    name = f"flowers-{server.job.uid[-12:]}"
    far.client.create_registered_model(name)
    far.client.create_model_version(name, f"models:/{model.model_id}", model_id=model.model_id)
    far.client.set_registered_model_alias(name, "champion", "1")
    asked = registered.answer(restartable.uri, name, "@champion", None, 60)
    brought = registered.answer(restartable.uri, name, "1", tmp_path / "brought", 60)
    assert asked == brought
    assert asked["version"] == "1"
    assert (tmp_path / "brought/bundle.json").read_text() == "{}"
    assert (tmp_path / "brought/tokenizers/0/tokenizer.json").read_text() == "[]"

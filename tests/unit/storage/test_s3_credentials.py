"""Whose keys a place is opened with, and how it is addressed. Nothing here sends a request."""

from pathlib import Path

import pytest

from kompress_api.errors import CredentialsRefused, InvalidManifest, SpecCannotWork
from kompress_api.places import Dataset, Output
from kompress_jobs.storage.credentials import aws_session
from kompress_jobs.storage.s3 import S3Store
from kompress_jobs.storage.store import open_store

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the machine's AWS settings nor an instance's metadata service."""
    for name in (*AWS, "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("KOMPRESS_CREDENTIALS", str(tmp_path / "mounted"))


def mount(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def test_each_role_has_the_keys_of_its_own_secret(tmp_path: Path) -> None:
    for role in ("output", "dataset"):
        mount(tmp_path / "mounted" / role, AWS_ACCESS_KEY_ID=f"{role}-key", AWS_SECRET_ACCESS_KEY="s", AWS_SESSION_TOKEN="t")
        got = aws_session(role, "a-secret").get_credentials().get_frozen_credentials()
        assert (got.access_key, got.secret_key, got.token) == (f"{role}-key", "s", "t")


def test_a_renewed_secret_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kompress_jobs.storage.credentials.REREAD_MINUTES", 5)  # less than botocore's margin: it asks each time
    mount(tmp_path / "mounted/output", AWS_ACCESS_KEY_ID="old", AWS_SECRET_ACCESS_KEY="s")
    credentials = aws_session("output", "a-secret").get_credentials()
    assert credentials.get_frozen_credentials().access_key == "old"
    mount(tmp_path / "mounted/output", AWS_ACCESS_KEY_ID="new")
    assert credentials.get_frozen_credentials().access_key == "new"


def test_without_a_secret_the_sdks_own_chain_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert aws_session("output", None).get_credentials().access_key == "mine"


def test_on_a_laptop_the_users_own_profile_wins_over_the_secret_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("KOMPRESS_CREDENTIALS", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert aws_session("output", "a-secret").get_credentials().access_key == "mine"
    assert "the Secret a-secret of output is not used" in caplog.text


@pytest.mark.parametrize("mounted", [None, {}, {"AWS_ACCESS_KEY_ID": "k"}, {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": ""}])
def test_a_secret_that_lacks_something_is_refused_by_the_name_of_the_key(tmp_path: Path, mounted: dict[str, str] | None) -> None:
    if mounted is not None:
        mount(tmp_path / "mounted/output", **mounted)
    with pytest.raises(CredentialsRefused, match=r"mounted/output/AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)"):
        open_store(Output(uri="s3://models", credentials_secret="a-secret"), "output")


@pytest.mark.parametrize("by", ["manifest", "environment"])
def test_a_custom_endpoint_is_addressed_by_path(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    if by == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.ml:9000")
    endpoint = "http://minio.ml:9000" if by == "manifest" else None
    store = open_store(Output(uri="s3://models/flowers/", endpoint=endpoint), "output")
    assert isinstance(store, S3Store)
    assert (
        store._client()
        .generate_presigned_url("get_object", Params=store._address("a/b"))
        .startswith("http://minio.ml:9000/models/flowers/a/b?")
    )
    assert store.uri == "s3://models/flowers"


def test_the_region_of_the_manifest_holds() -> None:
    store = open_store(Dataset(source="s3://data", format="imagefolder", region="eu-central-1"), "dataset")
    assert isinstance(store, S3Store)
    assert store._client().meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"


def test_a_uri_without_a_bucket_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="names no bucket"):
        open_store(Output(uri="s3:///flowers"), "output")


def test_a_profile_that_is_not_there_is_a_matter_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsRefused, match="nobody"):
        open_store(Output(uri="s3://models"), "output")


@pytest.mark.parametrize(("field", "value"), [("endpoint", "minio:9000"), ("endpoint", "minio.ml"), ("region", "not a region")])
def test_an_endpoint_or_region_that_can_be_none_is_refused_for_good(field: str, value: str) -> None:
    with pytest.raises(SpecCannotWork, match=value):
        open_store(Output.model_validate({"uri": "s3://models", field: value}), "output")

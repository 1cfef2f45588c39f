"""Where models, data, results and metrics are: the model source, the dataset, the output and the tracking server."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model, Rule
from kompress_api.names import Arguments, Glob, ShortText, Uri

SecretName = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

LIBRARY_SCHEMES = ("timm", "torchvision", "hf")
"""Libraries that build a model by its name."""
PLACE_SCHEMES = ("mlflow", "s3", "file")
"""Where models are kept."""
REMOTE_SCHEMES = ("s3", "mlflow")
"""Those of them that take an address and credentials."""
MODEL_SCHEMES = (*LIBRARY_SCHEMES, *PLACE_SCHEMES, "python")
DATA_SCHEMES = ("builtin", "s3", "file", "python")
OUTPUT_SCHEMES = ("s3", "file")


def scheme_rule(field: str, schemes: tuple[str, ...]) -> Rule:
    """`field` is a URI of one of these schemes."""
    known = ", ".join(f"{scheme}://" for scheme in schemes)
    prefixes = tuple(f"{scheme}://" for scheme in schemes)
    pattern = f"^({'|'.join(schemes)})://.+"

    def holds(model: object) -> bool:
        value = getattr(model, field)
        return value is None or any(value.startswith(prefix) and value != prefix for prefix in prefixes)

    return Rule(
        cel=f"!has(self.{field}) || self.{field}.matches('{pattern}')",
        holds=holds,
        message=lambda model: f"{getattr(model, field)} is no URI that can be used here: use one of {known}",
        message_cel=f"'%s is no URI that can be used here: use one of {known}'.format([self.{field}])",
        field=field,
    )


class Access(Model):
    """How a remote place is reached. Every remote place takes these."""

    endpoint: Uri | None = None
    """S3 endpoint, such as `http://minio.ml:9000`, absent: the SDK's default; of mlflow:// the tracking server, absent: the job's own."""
    region: ShortText | None = None
    """S3 region; absent: the SDK's default."""
    credentials_secret: SecretName | None = None
    """Name of a Secret in the job's namespace with AWS names as keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, optionally
    AWS_SESSION_TOKEN), for mlflow:// those of `tracking.credentialsSecret`. Mounted as files. Absent: the SDK's default chain (a
    service account's role, for example).
    On a laptop the user's own AWS profile is used instead."""


def access_rule(schemes: tuple[str, ...]) -> Rule:
    """endpoint, region and credentialsSecret stand only where they are looked at."""
    known = " and ".join(f"{scheme}://" for scheme in schemes)
    return Rule(
        cel=f"!(has(self.endpoint) || has(self.region) || has(self.credentialsSecret)) || self.source.matches('^({'|'.join(schemes)})://')",
        holds=lambda place: (
            not (place.endpoint or place.region or place.credentials_secret)
            or place.source.startswith(tuple(f"{scheme}://" for scheme in schemes))
        ),
        message=f"endpoint, region and credentialsSecret are for {known} and would be ignored here; hubs go by the pod's environment "
        "(HF_ENDPOINT, HF_TOKEN)",
    )


class WeightSource(Access):
    """Weights taken over in part, from another checkpoint or architecture."""

    source: Uri
    """A bundle or a safetensors file: s3://, file:// or mlflow://."""
    include: Annotated[list[Glob], Field(max_length=64)] = ["*"]
    """Globs of parameter names, or of the modules that hold them, to take over; the names are those of the source."""
    exclude: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs of those to leave out."""
    rename: Annotated[dict[ShortText, ShortText], Field(max_length=16)] = {}
    """Beginnings of names there -> here: {"encoder.": "backbone."}. An empty one is the beginning of every name."""

    rules = (scheme_rule("source", PLACE_SCHEMES), access_rule(REMOTE_SCHEMES))


class ModelSource(Access):
    """A model: an architecture of a library, a bundle, a registered model, or the user's own module."""

    source: Uri
    """timm://resnet50 · torchvision://resnet18 · hf://name or folder · mlflow://name@alias or name/version · s3://bucket/bundle ·
    file:///path/bundle · python://package.module:factory (only below the packages of KOMPRESS_FACTORIES in the image)."""
    pretrained: bool = False
    """Load the library's pretrained weights."""
    architecture: Uri | None = None
    """Where `source` is a plain safetensors state dict (s3://, file:// or mlflow://): the architecture that it belongs to, such as
    timm://resnet18."""
    arguments: Arguments = {}
    """Keyword arguments (JSON) of the factory or of the library's constructor."""
    weights: Annotated[list[WeightSource], Field(max_length=8)] = []
    """Weights taken over in part, in this order, after all others: for example the backbone of another architecture."""

    rules = (
        scheme_rule("source", MODEL_SCHEMES),
        scheme_rule("architecture", (*LIBRARY_SCHEMES, "python")),
        access_rule(REMOTE_SCHEMES),
    )


class Splits(Model):
    """Names of the folders or splits. A missing split is cut from train by hash, 10 % of it."""

    train: ShortText = "train"
    """Split to learn from."""
    validation: ShortText = "validation"
    """Split that searches, soups and early stopping look at."""
    test: ShortText = "test"
    """Split that goals are judged on; nothing else looks at it."""


class DataFormat(StrEnum):
    """How samples lie in the source."""

    IMAGE_FOLDER = "imagefolder"
    AUDIO_FOLDER = "audiofolder"
    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"
    ARROW = "arrow"


class Dataset(Access):
    """Labelled samples."""

    source: Uri
    """builtin://digits, words or phrases · s3://bucket/prefix · file:///path · python://package.module:factory. Sets of the hub of Hugging
    Face are read from where you put them (`hf download --repo-type dataset`): format parquet, or arrow after `save_to_disk`."""
    format: DataFormat | None = None
    """imagefolder, audiofolder: <split>/<label>/<file>; parquet, csv, json, arrow (as `datasets` saves a set): tables; not needed for
    builtin:// and python://."""
    input_column: ShortText | None = None
    """Column that holds the sample, for table formats: a text, the bytes of an image or sound, or the path of one."""
    label_column: ShortText | None = None
    """Column that holds the label, for table formats; with multiLabel a list of them, in csv separated by | or as a JSON list; of
    speech-recognition what is said."""
    splits: Splits = Splits()
    """Names of the splits."""
    image_size: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Side in pixels that images are resized to; absent: the data's own where all have one size, else 224. Of sound: side that
    spectrograms are stretched to, for models that take one size only; absent: as they come."""
    max_length: Annotated[int, Field(ge=8, le=32768)] | None = None
    """Tokens that texts are cut to; absent: as many as the model takes, at most 512."""
    clip_seconds: Annotated[float, Field(gt=0, le=60)] | None = None
    """Length that sound clips are cut or filled up to; absent: the longest clip's, rounded up to half a second, at most 10."""
    max_unreadable_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of a split's samples that may be unreadable: they are counted, named and skipped; more fails the stage with 65."""
    multi_label: bool = False
    """A sample may carry several labels, or none (image-classification, from tables)."""
    arguments: Arguments = {}
    """Keyword arguments (JSON) of a python:// factory, or of a builtin:// set that takes some."""

    rules = (
        scheme_rule("source", DATA_SCHEMES),
        access_rule(("s3",)),
        Rule(
            cel="!self.source.matches('^(s3|file)://.+') || has(self.format)",
            holds=lambda d: not d.source.startswith(("s3://", "file://")) or d.format is not None,
            message="format is needed for s3:// and file:// data: one of imagefolder, audiofolder, parquet, csv, json, arrow",
        ),
    )


class Output(Access):
    """Where artifacts and checkpoints are kept."""

    uri: Uri
    """s3://bucket/prefix or file:///path. Stages of all jobs that share it reuse each other's results."""

    rules = (scheme_rule("uri", OUTPUT_SCHEMES),)


class Tracking(Model):
    """The MLflow server."""

    uri: Uri
    """Tracking URI as pods reach it, such as http://mlflow.ml:5000 (locally also sqlite:///path)."""
    external_uri: Uri | None = None
    """Address of the same server for people; used in links only."""
    experiment: ShortText | None = None
    """Experiment; absent: the job's name."""
    registered_model: ShortText | None = None
    """Registered model that gets a new version when every goal is met; absent: nothing is registered."""
    credentials_secret: SecretName | None = None
    """Secret with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."""

    rules = (scheme_rule("uri", ("http", "https", "sqlite")),)


Task = Literal["image-classification", "text-classification", "audio-classification", "speech-recognition"]

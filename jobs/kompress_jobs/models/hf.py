"""hf://NAME or hf:///FOLDER: architectures of transformers, from a config.json, for the task's kind of answer.

A bundle holds the whole config, so that it is rebuilt without the hub or the folder. Weights are read from safetensors only,
and nothing that a repository holds is executed: an architecture that transformers itself does not have is refused.
"""

import difflib
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kompress_api.canonical import digest
from kompress_api.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    CredentialsRefused,
    InvalidManifest,
    MethodRefused,
    StorageUnavailable,
    UnknownModel,
    UnsafeFile,
)
from kompress_jobs import registry
from kompress_jobs.models import Pretrained
from kompress_jobs.preprocessing import Preprocessing, text
from kompress_jobs.preprocessing.text import DEFAULT_LENGTH, require_texts
from kompress_jobs.samples.splits import Data

CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "speech-recognition": "AutoModelForCTC",
}
"""Task -> the class of transformers that knows which architectures have such a head."""
SOUND = ("audio-classification", "speech-recognition")
CONFIG, TOKENIZER_CONFIG, PREPROCESSOR = "config.json", "tokenizer_config.json", "preprocessor_config.json"
WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
SETTLED = "config"
"""Key of a bundle's arguments that holds the whole config."""
UNSETTLED = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")
"""What a config says of a checkpoint and not of the architecture."""
HUB_SECONDS = 5
"""Until the hub must have answered."""


def settled(name: str, arguments: Mapping[str, Any], task: str, *, field: str) -> dict[str, Any]:
    """The whole config with the manifest's changes."""
    config = configured(name, arguments, field=field).to_dict()
    return {SETTLED: {key: value for key, value in config.items() if key not in UNSETTLED}}


def construct(name: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Build the architecture with fresh weights and `num_classes` outputs; it returns the scores alone."""
    known = library()
    given = arguments if SETTLED in arguments else settled(name, arguments, task, field=field)
    config = parsed(given[SETTLED], f"hf://{name}", field=field)
    config.num_labels = num_classes
    if task == "speech-recognition":
        config.vocab_size = num_classes
    try:
        model = auto_class(config, task, field=field).from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InvalidManifest(
            f"transformers {known.__version__} can't build hf://{name}: {error}", hint="change arguments", field=f"{field}.arguments"
        ) from error
    return scoring(model, inputs_of(model, task))


def pretrained(name: str, arguments: Mapping[str, Any], task: str, *, field: str) -> Pretrained:
    """The repository's weights under the names that this architecture has for them, without those that it does not hold."""
    config = configured(name, arguments, field=field)
    folder = weights_folder(name, field=field)
    try:
        model, found = auto_class(config, task, field=field).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except Exception as error:  # safetensors and transformers have no common base
        raise ArtifactCorrupt(f"the weights of hf://{name} can't be read: {error}", hint="get the files anew", field=field) from error
    strange = {*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])}
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in strange}
    if task != "image-classification":
        return Pretrained(state)
    said = read_json(name, PREPROCESSOR, field=field) or {}
    return Pretrained(state, **{key: said[f"image_{key}"] for key in ("mean", "std") if isinstance(said.get(f"image_{key}"), list)})


def preprocessing(name: str, arguments: Mapping[str, Any], model: nn.Module, data: Data, task: str, *, field: str) -> Preprocessing | None:
    """Of texts and sound: as the repository says. Of images the task decides.

    Raises MethodRefused where a text model has no tokenizer, or where more tokens are asked for than it takes.
    """
    if task in SOUND:
        said = read_json(name, PREPROCESSOR, field=field) or {}
        kind = "filterbank" if said.get("feature_extractor_type") == "ASTFeatureExtractor" else "waveform"
        heard: Preprocessing = registry.load("preprocessing", kind, field="spec.task").from_hub(said, data, field=f"{field}.source")
        return heard
    if task != "text-classification":
        return None
    require_texts(data)
    path = file_of(name, text.FILE, field=field)
    if path is None:
        raise MethodRefused(
            f"hf://{name} holds no {text.FILE}",
            hint="make one where transformers is installed: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it from vocab.txt and its like",
            field=f"{field}.source",
        )
    most = longest(model, (read_json(name, TOKENIZER_CONFIG, field=field) or {}).get("model_max_length"))
    if data.max_length > (most or data.max_length):
        raise MethodRefused(
            f"the model takes {most} tokens, {data.max_length} are asked for",
            hint=f"lower it to {most}, or leave it out",
            field="spec.dataset.maxLength",
        )
    content = path.read_bytes()
    return text.Preprocessing(
        max_length=data.max_length or min(most or DEFAULT_LENGTH, DEFAULT_LENGTH),
        pad_id=padding_token(content, arguments[SETTLED], f"hf://{name}", field=field),
        inputs=list(model.input_names),  # type: ignore[arg-type]
        tokenizer=content,
    )


def padding_token(content: bytes, config: Mapping[str, Any], shown: str, *, field: str) -> int:
    """What the tokenizer, or else the config, fills up with; raises MethodRefused where neither says, ArtifactCorrupt for a bad file."""
    try:
        text.open_tokenizer(content, None)
    except Exception as error:  # the library raises plain Exceptions
        raise ArtifactCorrupt(
            f"{text.FILE} of {shown} can't be read: {error}", hint="get the file anew", field=f"{field}.source"
        ) from error
    found = config.get("pad_token_id")
    if found is None:
        found = (json.loads(content).get("padding") or {}).get("pad_id")
    if found is None:
        raise MethodRefused(
            f"{shown} has no token to fill up short texts with",
            hint="name one: arguments: {pad_token_id: NUMBER}, for example the token that ends a text",
            field=f"{field}.arguments",
        )
    return int(found)


def longest(model: nn.Module, said: object) -> int | None:
    """Most tokens that the model has positions for and that its tokenizer allows; None where neither has a limit."""
    limits = [said] if isinstance(said, int) and said < 1_000_000 else []
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            before = module.padding_idx + 1 if module.padding_idx is not None else 0  # RoBERTa counts on from its padding token
            limits.append(module.num_embeddings - before)
    return min(limits, default=None)


def stands_for(name: str, *, field: str) -> str:
    """The commit of a repository, or the content of a folder."""
    if not name.startswith("/"):
        path = required(name, CONFIG, field=field)
        return f"hf {path.parent.name}"
    required(name, CONFIG, field=field)
    files = [path for path in sorted(Path(name).iterdir()) if path.suffix in (".json", ".safetensors") and path.is_file()]
    return f"hf {digest({path.name: content_of(path) for path in files})}"


def content_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library() -> Any:
    """transformers, without its progress bars and its advice."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def configured(name: str, arguments: Mapping[str, Any], *, field: str) -> Any:
    """The repository's config with the manifest's changes; raises InvalidManifest for one that the config does not have."""
    config = parsed(json_of(required(name, CONFIG, field=field), field=field), f"hf://{name}", field=field)
    known = config.to_dict()
    for key, value in arguments.items():
        if key not in known and not hasattr(config, key):
            near = difflib.get_close_matches(key, known, n=1)
            raise InvalidManifest(
                f"the config of hf://{name} ({config.model_type}) has no {key}",
                hint=f"did you mean {near[0]}?" if near else "see the architecture's page in the docs of transformers",
                field=f"{field}.arguments.{key}",
            )
        try:
            setattr(config, key, value)
        except Exception as error:  # of strict dataclasses
            raise InvalidManifest(f"{error}", hint="change it", field=f"{field}.arguments.{key}") from error
    return config


def parsed(content: Mapping[str, Any], shown: str, *, field: str) -> Any:
    """The config of an architecture that transformers has; raises UnknownModel for others."""
    kinds = library().CONFIG_MAPPING
    kind = content.get("model_type")
    if kind not in kinds:
        near = difflib.get_close_matches(str(kind), list(kinds), n=3)
        raise UnknownModel(
            f"{shown} is of the kind {kind!r}, which transformers does not have (code of a repository is never executed)",
            hint=f"near: {', '.join(near)}" if near else "use an architecture of transformers, or python:// for your own",
            field=f"{field}.source",
        )
    return kinds[kind].from_dict({key: value for key, value in content.items() if key != "auto_map"})


def auto_class(config: Any, task: str, *, field: str) -> Any:
    """The class that builds the task's models; raises MethodRefused for an architecture without such a head."""
    found = getattr(library(), CLASSES[task])
    if type(config) not in found._model_mapping:
        raise MethodRefused(
            f"transformers has no {config.model_type} with a head for {task}",
            hint=f"use an architecture of {CLASSES[task]}, or another task",
            field=f"{field}.source",
        )
    return found


def inputs_of(model: Any, task: str) -> tuple[str, ...]:
    """What the model is called with, as transformers names it."""
    takes = inspect.signature(type(model).forward).parameters
    if task == "text-classification":
        typed = getattr(model.config, "type_vocab_size", 0) > 1
        return tuple(name for name in text.INPUTS if name in takes and (name != "token_type_ids" or typed))
    return (model.main_input_name, "attention_mask") if "attention_mask" in takes else (model.main_input_name,)


def scoring(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The same model, called with inputs in order and returning the scores alone, its weights named as transformers names them."""
    own = type(model)

    class Scoring(own):  # type: ignore[misc, valid-type]
        input_names = names

        def forward(  # one by one: torch.export asks for the shapes of each
            self, first: torch.Tensor, second: torch.Tensor | None = None, third: torch.Tensor | None = None
        ) -> torch.Tensor:
            inputs = {name: part for name, part in zip(names, (first, second, third), strict=False) if part is not None}
            return super().forward(**inputs).logits  # type: ignore[no-any-return]

    Scoring.__name__, Scoring.__qualname__, Scoring.__module__ = own.__name__, own.__qualname__, own.__module__
    model.__class__ = Scoring
    return model


def weights_folder(name: str, *, field: str) -> Path:
    """The folder of the safetensors, all of it on the local disk; raises UnsafeFile where there is a pickle only."""
    if (whole := file_of(name, WEIGHTS, field=field)) is not None:
        return whole.parent
    if (index := file_of(name, INDEX, field=field)) is not None:
        for part in sorted(set(json_of(index, field=field)["weight_map"].values())):
            required(name, part, field=field)
        return index.parent
    if file_of(name, PICKLE, field=field) is not None:
        raise UnsafeFile(
            f"hf://{name} holds {PICKLE}, a pickle, and no {WEIGHTS}",
            hint="pickles execute code when read: convert the weights to safetensors, or take a revision of the repository that has them",
            field=f"{field}.pretrained",
        )
    raise ArtifactMissing(
        f"hf://{name} holds no {WEIGHTS}", hint="leave pretrained out, or name another repository", field=f"{field}.pretrained"
    )


def required(name: str, file: str, *, field: str) -> Path:
    """A file that must be there; raises UnknownModel."""
    found = file_of(name, file, field=field)
    if found is None:
        raise UnknownModel(
            f"hf://{name} holds no {file}",
            hint="name a repository of the hub, or an absolute folder (hf:///models/bert) as save_pretrained writes it",
            field=f"{field}.source",
        )
    return found


def read_json(name: str, file: str, *, field: str) -> dict[str, Any] | None:
    """A JSON file that may be missing."""
    path = file_of(name, file, field=field)
    return None if path is None else json_of(path, field=field)


def json_of(path: Path, *, field: str) -> dict[str, Any]:
    """The object of a JSON file; raises ArtifactCorrupt."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactCorrupt(f"{path} is no JSON: {error}", hint="get the file anew", field=f"{field}.source") from error
    if not isinstance(found, dict):
        raise ArtifactCorrupt(f"{path} holds no JSON object", hint="get the file anew", field=f"{field}.source")
    return found


def file_of(name: str, file: str, *, field: str) -> Path | None:
    """A file of a local folder or of the hub's cache, fetched where it must be (HF_HUB_OFFLINE is honoured); None where there is none.

    Raises UnknownModel, CredentialsRefused, StorageUnavailable.
    """
    if name.startswith("/"):
        if not Path(name).is_dir():
            raise UnknownModel(f"{name} is no folder", hint="check the path, and that the pod mounts it", field=f"{field}.source")
        path = Path(name, file)
        return path if path.is_file() else None
    from huggingface_hub import constants, errors, hf_hub_download, try_to_load_from_cache

    try:
        return Path(hf_hub_download(name, file, etag_timeout=HUB_SECONDS))
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE and isinstance(try_to_load_from_cache(name, CONFIG), str):
            return None  # the cache holds the repository, without this file
        raise StorageUnavailable(
            f"{file} of hf://{name} can't be had: {str(error).strip().splitlines()[0]}",
            hint="let the pod reach the hub, put the files into HF_HOME in the image (HF_HUB_OFFLINE=1 then saves the question), "
            "or name a local folder: hf:///models/bert",
            field=f"{field}.source",
        ) from error
    except errors.GatedRepoError as error:
        raise CredentialsRefused(
            f"hf://{name} is given only to those who were admitted", hint="set HF_TOKEN in the pod's environment", field=f"{field}.source"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UnknownModel(
            f"the hub has no {name!r}: {str(error).strip().splitlines()[0]}",
            hint="write hf://OWNER/NAME, or set HF_TOKEN for a private one; a local folder begins with a slash: hf:///models/bert",
            field=f"{field}.source",
        ) from error
    except errors.EntryNotFoundError:
        return None
    except OSError as error:  # httpx's errors among them
        raise StorageUnavailable(
            f"{file} of hf://{name} can't be had: {error}", hint="let the pod reach the hub", field=f"{field}.source"
        ) from error

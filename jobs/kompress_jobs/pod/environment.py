"""What a pod is told through its environment (`kompress_api.contract`), read once and refused clearly where it is wrong."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from kompress_api.contract import (
    ENV_INDEX,
    ENV_MASTER,
    ENV_NODES,
    ENV_PROCESSES,
    ENV_SCRATCH,
    ENV_STAGE,
    ENV_TERMINATION_LOG,
    MASTER_PORT,
    MAX_INPUT_BYTES,
    StageInput,
)
from kompress_api.errors import InvalidManifest
from kompress_api.names import attempt_name

TERMINATION_LOG = "/dev/termination-log"
_NOT_BY_HAND = "this environment is set by the kompress operator or by `kompress run`: start stages through one of them"


@dataclasses.dataclass(frozen=True)
class Pod:
    """One launcher of a gang."""

    input: StageInput
    """The stage."""
    index: int
    """Which pod of the gang this is; pod 0 holds rank 0, tracks and tells the result."""
    min_nodes: int
    """Fewest pods that the gang goes on with."""
    max_nodes: int
    """Pods of the gang."""
    processes: int | None
    """Worker processes in this pod; None: as many as GPUs, 1 without."""
    master_host: str
    """Where rank 0 is."""
    master_port: int
    """Port of its rendezvous."""
    scratch: Path
    """This pod's own local folder."""

    @property
    def elastic(self) -> bool:
        """Whether the gang may lose and gain pods."""
        return self.min_nodes != self.max_nodes

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Pod":
        """Raises InvalidManifest that names the variable."""
        stage = _stage_input(environment)
        low, _, high = environment.get(ENV_NODES, "1").partition(":")
        min_nodes = _number(ENV_NODES, low, least=1)
        max_nodes = _number(ENV_NODES, high or low, least=min_nodes)
        index = _number(ENV_INDEX, environment.get(ENV_INDEX, "0"), least=0)
        if index >= max_nodes:
            raise InvalidManifest(f"{index} is no index of a gang of {max_nodes} pods", field=ENV_INDEX, hint=_NOT_BY_HAND)
        processes = environment.get(ENV_PROCESSES, "auto")
        master = environment.get(ENV_MASTER, "")
        if max_nodes > 1 and not master:
            raise InvalidManifest(
                f"a gang of {max_nodes} pods needs the address of rank 0 (host:port)", field=ENV_MASTER, hint=_NOT_BY_HAND
            )
        host, _, port = (master or "localhost").rpartition(":") if ":" in master else (master or "localhost", "", "")
        base = Path(environment.get(ENV_SCRATCH) or tempfile.gettempdir())
        return cls(
            input=stage,
            index=index,
            min_nodes=min_nodes,
            max_nodes=max_nodes,
            processes=None if processes == "auto" else _number(ENV_PROCESSES, processes, least=1),
            master_host=host,
            master_port=_number(ENV_MASTER, port, least=1) if port else MASTER_PORT,
            scratch=base / f"{attempt_name(stage.job.name, stage.name, stage.attempt)}-{index}",
        )


def termination_log(environment: Mapping[str, str] | None = None) -> Path:
    """Where the last word goes."""
    return Path((os.environ if environment is None else environment).get(ENV_TERMINATION_LOG) or TERMINATION_LOG)


def _stage_input(environment: Mapping[str, str]) -> StageInput:
    text = environment.get(ENV_STAGE, "")
    if not text:
        raise InvalidManifest("the variable is missing or empty: it holds the stage as JSON", field=ENV_STAGE, hint=_NOT_BY_HAND)
    if len(text.encode()) > MAX_INPUT_BYTES:
        raise InvalidManifest(f"{len(text.encode())} bytes, more than {MAX_INPUT_BYTES}", field=ENV_STAGE, hint="make the spec smaller")
    try:
        return StageInput.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        shown = "" if first["type"] in ("missing", "json_invalid") else f" (given: {str(first['input'])[:80]!r})"
        raise InvalidManifest(
            f"{path or 'the JSON'}: {first['msg']}{shown}",
            field=ENV_STAGE,
            hint="operator and jobs image must be of the same version" if path else _NOT_BY_HAND,
        ) from None


def _number(variable: str, text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise InvalidManifest(f"{text!r} is no whole number from {least} up", field=variable, hint=_NOT_BY_HAND)
    return int(text)

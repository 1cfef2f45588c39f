"""What a laptop has in place of a ClusterCompressionRuntime, and which fields of a manifest it has no use for."""

import pathlib
from collections.abc import Iterator

from kompress_api.job import CompressionJobSpec
from kompress_api.merge import MergedSpec
from kompress_api.names import DEFAULT_RUNTIME
from kompress_api.places import Output, Tracking
from kompress_api.runtime import ClusterCompressionRuntimeSpec, Runtime


def local_runtime(folder: pathlib.Path) -> ClusterCompressionRuntimeSpec:
    """Output and tracking below the job's own folder, and the Python that runs this."""
    return ClusterCompressionRuntimeSpec(
        output=Output(uri=f"file://{folder / 'output'}"),
        tracking=Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}"),
        runtime=Runtime(image="this-python"),
    )


def ignored(spec: CompressionJobSpec) -> Iterator[str]:
    """One sentence for each part of the manifest that has no meaning on one machine."""
    if spec.runtime_ref.name != DEFAULT_RUNTIME:
        yield f"spec.runtimeRef: {spec.runtime_ref.name} is a cluster's; here the defaults of this machine hold"
    if (spec.max_parallel_stages or 1) > 1:
        yield f"spec.maxParallelStages: {spec.max_parallel_stages} is ignored, stages run one at a time so that latency is honest"
    blocks = [("spec.runtime", spec.runtime)]
    blocks += [(f"spec.stages[{index}].runtime", stage.runtime) for index, stage in enumerate(spec.stages)]
    for path, runtime in blocks:
        if runtime is None:
            continue
        for name in ("image", "resources", "node_selector", "tolerations", "queue_name", "pod_template"):
            if getattr(runtime, name):
                field = type(runtime).model_fields[name].alias
                yield f"{path}.{field} is ignored: stages run as processes of this machine, with all that it has"
    places = [("model", spec.model), ("dataset", spec.dataset), ("output", spec.output), ("tracking", spec.tracking)]
    for field, place in places:
        if place is not None and place.credentials_secret:
            yield f"spec.{field}.credentialsSecret: {place.credentials_secret} is a cluster's; your own environment or AWS profile is used"


def mlflow_command(merged: MergedSpec) -> str:
    """What opens the MLflow UI on the job's metrics, or its address."""
    uri = merged.tracking.external_uri or merged.tracking.uri
    return f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite:") else f"{uri}/#/experiments?workflowType=machine_learning"

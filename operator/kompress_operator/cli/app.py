"""The commands and their options; each does its work in a module of its own, imported on use."""

import pathlib
import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="kubectl kompress" if pathlib.Path(sys.argv[0]).name == "kubectl-kompress" else "kompress",
    help="Make trained models small and fast: on this machine (run), or with CompressionJobs on a cluster (submit).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="Manifest (YAML or JSON); - is standard input.", show_default=False)]
Files = Annotated[list[pathlib.Path], typer.Argument(metavar="FILE", help="Manifests; - is standard input.", show_default=False)]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Name of a CompressionJob.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Data for programs on standard output.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace; default: that of the current context.", show_default=False)]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig; default: the current one.", show_default=False)]


@app.command()
def validate(files: Files, as_json: AsJson = False) -> None:
    """Check manifests, without a cluster.

    Tells every problem of every file, in the API server's words. Exit 2 where there is one.
    """
    from kompress_operator.cli.validate import validate as command

    command(files, as_json=as_json)


@app.command()
def plan(file: File, as_json: AsJson = False) -> None:
    """Tell what a run would do on this machine.

    Runs the preflight alone: what would run, what is reused, how large the models will be. A run goes on from there.
    """
    from kompress_operator.cli.run import plan as command

    command(file, as_json=as_json)


@app.command()
def run(file: File, as_json: AsJson = False) -> None:
    """Run a job on this machine.

    Run it again to go on where it stood. State, results and metrics lie in ${KOMPRESS_HOME:-./kompress-runs}/NAME.

    Exit 0 complete, 1 a stage failed, 2 invalid manifest, 3 a goal missed, 130 interrupted.
    """
    from kompress_operator.cli.run import run as command

    command(file, as_json=as_json)


@app.command()
def verify(
    uri: Annotated[str, typer.Argument(metavar="URI", help="file:// or s3:// of an artifact, or a folder.")], as_json: AsJson = False
) -> None:
    """Check a model and reload it.

    Compares every byte with the artifact's manifest, then rebuilds the model in a clean process.
    """
    from kompress_operator.cli.verify import verify as command

    command(uri, as_json=as_json)


@app.command()
def submit(files: Files, namespace: Namespace = "", context: Context = "", as_json: AsJson = False) -> None:
    """Apply manifests to a cluster.

    All are checked first: either all are fine, or none is sent. Applying again changes nothing.
    """
    from kompress_operator.cli import cluster

    cluster.submit(files, namespace, context, as_json=as_json)


@app.command()
def get(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name; default: all of the namespace.", show_default=False)] = "",
    namespace: Namespace = "",
    context: Context = "",
    as_json: AsJson = False,
) -> None:
    """List jobs of a cluster."""
    from kompress_operator.cli import cluster

    cluster.get(job, cluster.connect(namespace, context), as_json=as_json)


@app.command()
def describe(job: Job, namespace: Namespace = "", context: Context = "", as_json: AsJson = False) -> None:
    """Tell everything about a job of a cluster.

    Its conditions, stages with their attempts, figures, goals, and where report and metrics lie.
    """
    from kompress_operator.cli import cluster

    cluster.describe(job, cluster.connect(namespace, context), as_json=as_json)


@app.command()
def logs(
    job: Job,
    stage: Annotated[str, typer.Option(help="Stage; default: the one that was started last.", show_default=False)] = "",
    rank: Annotated[int, typer.Option(min=0, help="The log of the pod that holds this rank.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow to the pod's end.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    as_json: AsJson = False,
) -> None:
    """Print the log of a stage's newest attempt."""
    from kompress_operator.cli import logs as command

    command.logs(job, stage, rank, namespace, context, follow=follow, as_json=as_json)


@app.command()
def suspend(job: Job, namespace: Namespace = "", context: Context = "", as_json: AsJson = False) -> None:
    """Stop a job of a cluster until it is resumed.

    Running stages save a checkpoint first, and no restart is spent.
    """
    from kompress_operator.cli import cluster

    cluster.set_suspended(job, True, cluster.connect(namespace, context), as_json=as_json)


@app.command()
def resume(job: Job, namespace: Namespace = "", context: Context = "", as_json: AsJson = False) -> None:
    """Let a suspended job go on."""
    from kompress_operator.cli import cluster

    cluster.set_suspended(job, False, cluster.connect(namespace, context), as_json=as_json)


@app.command()
def delete(job: Job, namespace: Namespace = "", context: Context = "", as_json: AsJson = False) -> None:
    """Delete a job of a cluster.

    Its pods go with it. Artifacts and MLflow runs stay.
    """
    from kompress_operator.cli import cluster

    cluster.delete(job, cluster.connect(namespace, context), as_json=as_json)

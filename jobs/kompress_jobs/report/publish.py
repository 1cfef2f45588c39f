"""What a report wants MLflow to be told, left in scratch for the launcher (`tracking/publication.py`)."""

from kompress_api.base import Model

FOLDER = "publish"
"""Below scratch: files for the run's artifacts."""
FILE = "publish.json"
"""In scratch: a `Publish`."""


class Publish(Model):
    """What the report asks for."""

    summary: dict[str, float]
    """Figures of the parent run."""
    note: str
    """Markdown that MLflow shows on the run's page."""
    succeeded: bool
    """FINISHED, else FAILED; only a job that succeeded is registered."""
    artifact: str = ""
    """URI of the final stage's artifact."""
    digest: str = ""
    """Its digest."""
    metrics: dict[str, float] = {}
    """The final stage's figures."""

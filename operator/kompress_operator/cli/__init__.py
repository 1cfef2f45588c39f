"""`kompress`, also as `kubectl kompress`: run a manifest on this machine, or work with CompressionJobs on a cluster."""


def main() -> None:
    """Entry point of the command."""
    from kompress_operator.cli.app import app

    app()

"""What decides touches nothing: the same observation gives the same decision wherever and whenever it is asked for."""

import subprocess
import sys

FORBIDDEN = ("kopf", "kubernetes", "aiohttp", "asyncio", "torchx", "prometheus_client")


def test_reconcile_imports_no_client_and_no_event_loop() -> None:
    code = "import sys, kompress_operator.reconcile; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in FORBIDDEN if name in modules] == []

"""`adapter-scanner serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scanner.errors import UsageError
from scanner.system.folders import server_folder

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DAY = 86_400.0
_HOUR = 3_600.0

_EPILOG = """\b
What it answers:
  POST /webhooks/mlflow       MLflow: signed (HMAC-SHA256), replay-protected
  POST /webhooks/huggingface  the hub: the shared secret of the webhook
  GET  /                      recent verdicts, each with its HTML report
  GET  /health  /ready        for load balancers and service managers
  GET  /metrics               for Prometheus
  A webhook whose secret is not given does not exist (404). 2xx means: on
  disk, or nothing to do. 503 means: send it again later.

\b
What it does with a delivery:
  A new MLflow model version, or commit on the hub, is fetched and scanned in
  a process of its own. The verdict is written as signed tags of the model
  version, or as a comment in the repository's discussion. The same version
  or commit is judged once, however often it is delivered.

\b
Secrets, from files or the environment, never from flags:
  ADAPTER_SCANNER_MLFLOW_WEBHOOK_SECRET  or --mlflow-secret-file
  ADAPTER_SCANNER_HUB_WEBHOOK_SECRET     or --hub-secret-file
  ADAPTER_SCANNER_SIGNING_KEY_FILE       signs MLflow verdicts (gate keygen)
  MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN ...  as MLflow reads them
  HF_TOKEN, HF_ENDPOINT                  as huggingface_hub reads them

\b
Signals:
  SIGTERM, SIGINT  stop: no new deliveries; running scans have 10 s, and what
                   is not judged by then is judged after the next start

\b
Exit status:
  0  stopped by a signal
  2  usage or configuration error, or the address is taken

\b
Files (below --state; only its owner can read them):
  jobs.sqlite  what was delivered, judged and written back
  reports/     a verdict and its HTML report for each job
  scratch/     what is being scanned; emptied at every start

\b
Examples:
  adapter-scanner serve --mlflow-secret-file /run/secrets/mlflow
  adapter-scanner serve --hub-secret-file /run/secrets/hub --policy policy.yaml
  adapter-scanner serve --port 9000 --workers 4 --memory 8000
"""


@click.command("serve", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8484,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--public", is_flag=True, help="Allow a --host that other machines can reach.")
@click.option(
    "--page-host",
    multiple=True,
    metavar="NAME",
    help="Host name under which pages and metrics are shown too (repeatable).",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for everything that has to survive a restart.  "
    "[default: ~/.local/state/adapter-scanner/serve]",
)
@click.option("--policy", type=_FILE, help="Which models are judged, and how strictly.")
@click.option(
    "-s",
    "--signature",
    multiple=True,
    metavar="PACK",
    help="Signature pack to use (repeatable). Default: every installed one.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="False-positive rate, where the policy gives none. Default: 0.01",
)
@click.option("--base-model", metavar="ID", help="The adapters' base model, whatever they say.")
@click.option("--mlflow-secret-file", type=_FILE, help="Secrets of MLflow's webhook, one a line.")
@click.option("--hub-secret-file", type=_FILE, help="Secrets of the hub's webhook, one a line.")
@click.option("--key", type=_FILE, help="Private key that signs MLflow verdicts.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Scans at a time."
)
@click.option(
    "--memory",
    type=click.IntRange(64),
    default=4_000,
    show_default=True,
    metavar="MB",
    help="Address space a scan may take.",
)
@click.option(
    "--scan-timeout",
    type=click.FloatRange(0, min_open=True),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Time a scan may take.",
)
@click.option(
    "--fetch-timeout",
    type=click.FloatRange(0, min_open=True),
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="Time a download may take.",
)
@click.option(
    "--max-download",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    metavar="MB",
    help="Size of a model; a larger one is an error verdict.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1_024),
    default=1_000_000,
    show_default=True,
    metavar="BYTES",
    help="Size of a webhook's body.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Jobs that may wait before deliveries are answered with 503.",
)
@click.option(
    "--replay-window",
    type=click.IntRange(1, 86_400),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Age at which an MLflow delivery is refused.",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(0),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="How long a registry that does not answer is asked again.",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="How long verdicts and reports are kept.",
)
def command(**flags: Any) -> None:
    """Judge what MLflow and the Hugging Face hub report by webhook.

    Runs until it is stopped. Needs the extra: pip install 'adapter-scanner[serve]'.
    """
    _require_posix()
    _require_extra()
    from scanner.gates.policy import DEFAULT_POLICY
    from scanner.gates.policy_file import load_policy
    from scanner.serve.server import serve
    from scanner.serve.settings import (
        HUB_SECRET_VARIABLE,
        MLFLOW_SECRET_VARIABLE,
        ServeSettings,
        check_host,
        read_secrets,
    )
    from scanner.serve.worker import Limits
    from scanner.serve.writers import make_writers

    check_host(flags["host"], public=flags["public"])
    policy = load_policy(flags["policy"]).policy if flags["policy"] else DEFAULT_POLICY
    settings = ServeSettings(
        host="127.0.0.1" if flags["host"] == "localhost" else flags["host"],
        port=flags["port"],
        state=(flags["state"] or server_folder()).absolute(),
        signatures=_packs(flags["signature"]),
        alpha=flags["alpha"],
        base_model=flags["base_model"],
        policy=policy,
        mlflow_secrets=read_secrets(MLFLOW_SECRET_VARIABLE, flags["mlflow_secret_file"]),
        hub_secrets=read_secrets(HUB_SECRET_VARIABLE, flags["hub_secret_file"]),
        host_names=flags["page_host"],
        limits=Limits(
            memory_megabytes=flags["memory"],
            scan_seconds=flags["scan_timeout"],
            fetch_seconds=flags["fetch_timeout"],
            download_megabytes=flags["max_download"],
        ),
        workers=flags["workers"],
        longest_queue=flags["max_queue"],
        most_body_bytes=flags["max_body"],
        tolerance=flags["replay_window"],
        patience=flags["retry_for"] * _HOUR,
        keep_seconds=flags["keep"] * _DAY,
    )
    if not settings.platforms:
        raise UsageError(
            "no webhook could be verified: no secret is given",
            todo=f"name --mlflow-secret-file or --hub-secret-file, or set {MLFLOW_SECRET_VARIABLE}"
            f" or {HUB_SECRET_VARIABLE}",
        )
    serve(settings, make_writers(settings, flags["key"]))


def _require_posix() -> None:
    try:
        import fcntl  # noqa: F401
        import resource  # noqa: F401
    except ImportError:
        raise UsageError(
            "the server needs Linux or macOS: it limits and locks what it runs by means of POSIX",
            todo="start it in a container or in WSL; scanning needs neither",
        ) from None


def _require_extra() -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the server needs {error.name}", todo="pip install 'adapter-scanner[serve]'"
        ) from None


def _packs(named: tuple[str, ...]) -> list[Path]:
    """The packs' directories, each verified once before the first delivery comes.

    Raises:
        UsageError: If one is damaged, or there is none.
    """
    from scanner.signatures.installed import find_pack, installed_packs
    from scanner.signatures.pack import load_signature

    packs = [find_pack(name) for name in named] or installed_packs()
    if not packs:
        raise UsageError("no signature pack is installed", where="--signature")
    for pack in packs:
        load_signature(pack).close()
    return [pack.absolute() for pack in packs]

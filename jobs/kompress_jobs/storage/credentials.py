"""Where the keys of an S3 place come from: a Secret mounted as files, else the SDK's own chain.

The files lie at `<KOMPRESS_CREDENTIALS>/<role>/`, named as the AWS variables are. They are read again every few minutes, as the
kubelet renews them when the Secret changes (a session token that expires in mid-training, for example).
"""

import datetime
import logging
import os
from pathlib import Path

import botocore.credentials
import botocore.exceptions
import botocore.session

from kompress_api.contract import CREDENTIALS_FOLDER, ENV_CREDENTIALS
from kompress_api.errors import CredentialsRefused

log = logging.getLogger(__name__)

REREAD_MINUTES = 20
"""botocore asks again when less than 15 minutes are left."""
REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
TOKEN = "AWS_SESSION_TOKEN"


class MountedProvider(botocore.credentials.CredentialProvider):  # type: ignore[misc]
    """Credentials of one mounted Secret."""

    METHOD = "kompress-mounted-secret"
    CANONICAL_NAME = METHOD

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def load(self) -> botocore.credentials.Credentials:
        return botocore.credentials.RefreshableCredentials.create_from_metadata(
            metadata=self._read(), refresh_using=self._read, method=self.METHOD
        )

    def _read(self) -> dict[str, str | None]:
        access, secret = (_value(self.folder / name) for name in REQUIRED)
        token = _value(self.folder / TOKEN) if (self.folder / TOKEN).exists() else None
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=REREAD_MINUTES)
        return {"access_key": access, "secret_key": secret, "token": token, "expiry_time": expiry.isoformat()}


def aws_session(role: str, secret: str | None) -> botocore.session.Session:
    """A botocore session with the credentials of a role.

    `secret` is the place's `credentialsSecret`. With KOMPRESS_CREDENTIALS set to nothing (a laptop) the user's own chain holds.
    Raises CredentialsRefused where the Secret was to be mounted and is not, or lacks a key.
    """
    session = botocore.session.Session()
    base = os.environ.get(ENV_CREDENTIALS, CREDENTIALS_FOLDER)
    folder = Path(base, role)
    if not base or not (folder.is_dir() or secret):
        if secret:
            log.info("the Secret %s of %s is not used on this machine: your own AWS settings hold", secret, role)
        return session
    for name in REQUIRED:
        _value(folder / name)
    session.register_component("credential_provider", botocore.credentials.CredentialResolver([MountedProvider(folder)]))
    return session


def _value(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CredentialsRefused(
            f"{path} can't be read ({error.strerror}): the Secret is not mounted, or has no key {path.name}",
            hint=f"give the Secret the keys {', '.join(REQUIRED)} (and {TOKEN} where there is one)",
        ) from error
    if not text:
        raise CredentialsRefused(f"{path} is empty", hint=f"fill in the key {path.name} of the Secret")
    return text

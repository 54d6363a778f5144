"""S3: S3Proxy on a folder. It checks signatures, keeps data across restarts and honours If-None-Match."""

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import requests

from pipeline_lib.stack.server import Launch, Server, Site, conf_folder, properties

BUCKET = "lode"
"""The one that conf/local.toml names."""


def credentials(home: Path) -> tuple[str, str]:
    """The stack's own access key and secret key; made, random, the first time."""
    path = home / "s3.secret"
    if not path.exists():
        made = {"access_key": "LODE" + secrets.token_hex(8).upper(), "secret_key": secrets.token_urlsafe(30)}
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        temporary.replace(path)
    kept = json.loads(path.read_text())
    return kept["access_key"], kept["secret_key"]


@dataclass(frozen=True)
class S3(Server):
    """One S3 endpoint; buckets are folders below its data folder. One is there from the start, as a deployment has it."""

    def prepare(self, site: Site) -> Launch:
        """The credentials go into a file that only this user reads, never into the arguments."""
        access_key, secret_key = credentials(site.home)
        data = site.folder(self.name, "data")
        (data / BUCKET).mkdir(exist_ok=True)
        settings = {
            "s3proxy.endpoint": self._endpoint(site),
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": access_key,
            "s3proxy.credential": secret_key,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.identity": "local",
            "jclouds.credential": "local",
            "jclouds.filesystem.basedir": data,
        }
        conf = conf_folder(site, self.name, {"s3proxy.properties": properties(settings)})
        arguments = ["org.gaul.s3proxy.Main", "--properties", str(conf / "s3proxy.properties")]
        return Launch(arguments, [conf, *site.jars["s3"]])

    def ready(self, site: Site) -> bool:
        """It lists the buckets for a request signed with this stack's key (signature version 2: ten lines, no SDK)."""
        access_key, secret_key = credentials(site.home)
        date = formatdate(usegmt=True)
        signed = hmac.new(secret_key.encode(), f"GET\n\n\n{date}\n/".encode(), hashlib.sha1).digest()
        authorization = f"AWS {access_key}:{base64.b64encode(signed).decode()}"
        answer = requests.get(self._endpoint(site), headers={"Date": date, "Authorization": authorization}, timeout=3)
        return answer.ok and b"ListAllMyBucketsResult" in answer.content

    def endpoints(self, site: Site) -> dict[str, str]:
        """The endpoint; addressing is by path."""
        return {"s3.endpoint": self._endpoint(site)}

    def _endpoint(self, site: Site) -> str:
        return f"http://{site.address(self.name, 'http')}"


S3PROXY = S3("s3", ("s3",), ("http",))

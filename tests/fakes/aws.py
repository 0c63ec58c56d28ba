"""The loopback endpoints that AWS's chain asks: metadata service, container endpoint, IAM Identity Center, STS.

Each gives keys with a serial number and a lifetime of choice, and fails or hangs when told to. The secret parts of all
of them hold `CANARY`, so that a test can look for them where they must not be.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CANARY = "cAnArY"
CONTAINER_TOKEN = f"{CANARY}-container-token"
SSO_TOKEN = f"{CANARY}-sso-token"
ROLE_NAME = "bedrock-instance"

OK, FAIL, HANG, MISSING, EXPIRED, GARBAGE = "ok", "fail", "hang", "missing", "expired", "garbage"


@dataclass
class AwsEndpoints:
    """What a test sets and sees. `modes` by service ("imds", "container", "sso", "sts"); lifetimes in seconds.

    `sts_code` is the error code that STS gives in the mode "fail" (status 403; 500 for an empty one).
    """

    url: str = ""
    lifetime_seconds: float = 3600
    modes: dict[str, str] = field(default_factory=dict)
    sts_code: str = "AccessDenied"
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    given: dict[str, float] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, service: str) -> int:
        """How often a service has been asked for a credential."""
        return len(self.asked(service))

    def asked(self, service: str) -> list[dict[str, Any]]:
        """What a service was asked, call by call."""
        with self.lock:
            return [details for name, details in self.calls if name == service]

    def note(self, service: str, **details: Any) -> str:
        """Keep the call; the mode to answer in."""
        with self.lock:
            self.calls.append((service, details))
        return self.modes.get(service, OK)

    def make_key(self, service: str) -> dict[str, str]:
        """The next key, with its end."""
        end = datetime.now(UTC) + timedelta(seconds=self.lifetime_seconds)
        if self.modes.get(service) == EXPIRED:
            end -= timedelta(seconds=self.lifetime_seconds + 60)
        if service == "imds":
            # As the real one; botocore changes what has this form.
            end = end.replace(microsecond=0)
        with self.lock:
            serial = len(self.given) + 1
            key_id = f"ASIA{service.upper():X<8}{serial:04d}"
            self.given[key_id] = end.timestamp()
        return {
            "AccessKeyId": key_id,
            "SecretAccessKey": f"{CANARY}-secret-{serial}",
            "Token": f"{CANARY}-session-{serial}",
            # The others give whole seconds as well; tests of short lifetimes want what was set.
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ" if service == "imds" else "%Y-%m-%dT%H:%M:%S.%fZ"),
        }


class _Handler(BaseHTTPRequestHandler):
    endpoints: AwsEndpoints
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_PUT(self) -> None:
        if self.endpoints.note("imds-token") == HANG or self.endpoints.modes.get("imds") == HANG:
            return self._hang()
        if self.endpoints.modes.get("imds") == MISSING:
            return self._answer(404, b"")
        return self._answer(200, b"imds-token")

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/latest/meta-data/iam/security-credentials/"):
            return self._metadata(path)
        if path == "/container":
            return self._keys("container", authorized=self.headers.get("Authorization") == CONTAINER_TOKEN)
        if path == "/federation/credentials":
            return self._sso()
        return self._answer(404, b"")

    def _metadata(self, path: str) -> None:
        if self.headers.get("x-aws-ec2-metadata-token") != "imds-token":
            return self._answer(401, b"")
        if path.endswith("/"):
            return self._failed("imds") or self._answer(200, ROLE_NAME.encode())
        return self._keys("imds", authorized=path.endswith(ROLE_NAME))

    def _failed(self, service: str) -> bool:
        """Whether the mode of the service has been answered."""
        mode = self.endpoints.modes.get(service, OK)
        if mode == HANG:
            self._hang()
        elif mode == FAIL:
            self._answer(500, f"{CANARY} in a body".encode())
        elif mode == MISSING:
            self._answer(404, b"")
        elif mode == GARBAGE:
            self._answer(200, f"{CANARY} is no JSON".encode())
        return mode in (HANG, FAIL, MISSING, GARBAGE)

    def _keys(self, service: str, *, authorized: bool) -> None:
        self.endpoints.note(service)
        if self._failed(service):
            return
        if not authorized:
            self._answer(401, f"{CANARY} unauthorized".encode())
            return
        self._answer(200, json.dumps(self.endpoints.make_key(service)).encode())

    def _sso(self) -> None:
        self.endpoints.note("sso", query=self.path)
        if self._failed("sso"):
            return
        if self.headers.get("x-amz-sso_bearer_token") != SSO_TOKEN:
            self._answer(401, b'{"message": "no"}', **{"x-amzn-ErrorType": "UnauthorizedException"})
            return
        key = self.endpoints.make_key("sso")
        answer = {
            "roleCredentials": {
                "accessKeyId": key["AccessKeyId"],
                "secretAccessKey": key["SecretAccessKey"],
                "sessionToken": key["Token"],
                "expiration": int(self.endpoints.given[key["AccessKeyId"]] * 1000),
            }
        }
        self._answer(200, json.dumps(answer).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        action = asked.get("Action", "")
        service = "identity" if action == "GetCallerIdentity" else "sts"
        signer = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        mode = self.endpoints.note(service, **asked, signer=signer, host=self.headers.get("Host"))
        if mode == HANG:
            return self._hang()
        if mode == FAIL:
            return self._sts_error()
        return self._answer(200, self._sts_answer(action, asked, signer).encode(), **{"Content-Type": "text/xml"})

    def _sts_error(self) -> None:
        code = self.endpoints.sts_code
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code or 'InternalFailure'}</Code>"
            f"<Message>{CANARY} message</Message></Error></ErrorResponse>"
        )
        self._answer(403 if code else 500, text.encode(), **{"Content-Type": "text/xml"})

    def _sts_answer(self, action: str, asked: dict[str, str], signer: str) -> str:
        role = asked.get("RoleArn", "").replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
        if action == "GetCallerIdentity":
            return (
                f"<{action}Response><{action}Result><Arn>arn:aws:sts::123456789012:key/{signer}</Arn>"
                f"<UserId>u</UserId><Account>123456789012</Account></{action}Result></{action}Response>"
            )
        key = self.endpoints.make_key("sts")
        return (
            f"<{action}Response><{action}Result><Credentials><AccessKeyId>{key['AccessKeyId']}</AccessKeyId>"
            f"<SecretAccessKey>{key['SecretAccessKey']}</SecretAccessKey><SessionToken>{key['Token']}</SessionToken>"
            f"<Expiration>{key['Expiration']}</Expiration></Credentials><AssumedRoleUser>"
            f"<Arn>{role}/{asked.get('RoleSessionName', '')}</Arn><AssumedRoleId>AROA:x</AssumedRoleId>"
            f"</AssumedRoleUser></{action}Result></{action}Response>"
        )

    def _hang(self) -> None:
        self.endpoints.released.wait(30)
        self.close_connection = True

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client that has given up is none of the test's business.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left."""


@contextmanager
def aws_endpoints() -> Iterator[AwsEndpoints]:
    """All of them on one loopback port, for the length of the block."""
    endpoints = AwsEndpoints()
    handler = type("_BoundHandler", (_Handler,), {"endpoints": endpoints})
    with _Server(("127.0.0.1", 0), handler) as server:
        endpoints.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield endpoints
        finally:
            endpoints.released.set()
            server.shutdown()
            thread.join()


def chain_environment(endpoints: AwsEndpoints, *sources: str) -> dict[str, str]:
    """The variables with which AWS's chain finds these services and no other thing."""
    found = {"AWS_ENDPOINT_URL_STS": endpoints.url, "AWS_ENDPOINT_URL_SSO": endpoints.url}
    if "imds" in sources:
        found |= {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoints.url}
    if "container" in sources:
        found |= {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{endpoints.url}/container",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": CONTAINER_TOKEN,
        }
    return found

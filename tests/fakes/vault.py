"""A transit secrets engine as its API documentation and its source describe it: real HTTP, with TLS or without.

developer.hashicorp.com/vault/api-docs/secret/transit; builtin/logical/transit/path_encrypt.go and path_decrypt.go.
"""

import base64
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


@dataclass
class FakeVault:
    """What the engine at `mount` knows. Change it while it runs."""

    token: str = "hvs.the-token"
    mount: str = "transit"
    namespace: str = ""
    derived: bool = False
    sealed: bool = False
    keys: dict[str, list[bytes]] = field(default_factory=lambda: {"drawbridge": [os.urandom(32)]})
    denied: bool = False
    hangs: threading.Event | None = None
    redirects_to: str = ""
    garbage: bytes = b""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, method: str, path: str, headers: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        self.calls.append((path, body))
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("X-Vault-Namespace", "") != self.namespace or headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["permission denied"]}
        if self.denied:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        parts = path.removeprefix("/v1/").removeprefix(f"{self.mount}/").split("/")
        if not path.startswith(f"/v1/{self.mount}/") or method != "POST" or len(parts) != 2:
            return 404, {"errors": ["no handler for route. route entry not found."]}
        operation, name = parts
        if name not in self.keys:
            return 400, {"errors": ["encryption key not found"]}
        try:
            return self._transit(operation, self.keys[name], body)
        except (ValueError, InvalidTag, KeyError):
            return 400, {"errors": ["cipher: message authentication failed"]}

    def _transit(self, operation: str, versions: list[bytes], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        context = base64.b64decode(body.get("context", ""), validate=True)
        associated = base64.b64decode(body.get("associated_data", ""), validate=True)
        if self.derived and not context:
            return 400, {"errors": ["missing 'context' for key derivation; the key was created using a derived key"]}
        if operation == "encrypt":
            nonce = os.urandom(12)
            raw = base64.b64decode(body["plaintext"], validate=True)
            sealed = nonce + self._cipher(versions[-1], context).encrypt(nonce, raw, associated)
            text = base64.b64encode(sealed).decode()
            data = {"ciphertext": f"vault:v{len(versions)}:{text}", "key_version": len(versions)}
        else:
            prefix, version, text = body["ciphertext"].split(":")
            if prefix != "vault":
                return 400, {"errors": ["invalid ciphertext: no prefix"]}
            sealed = base64.b64decode(text, validate=True)
            cipher = self._cipher(versions[int(version[1:]) - 1], context)
            raw = cipher.decrypt(sealed[:12], sealed[12:], associated)
            data = {"plaintext": base64.b64encode(raw).decode()}
        return 200, {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data}

    def _cipher(self, key: bytes, context: bytes) -> AESGCM:
        if self.derived:
            key = HKDF(algorithm=SHA256(), length=32, salt=None, info=context).derive(key)
        return AESGCM(key)


@contextmanager
def serving(vault: FakeVault, *, tls: tuple[Path, Path] | None = None, port: int = 0) -> Iterator[FakeVault]:
    """Serve it for the length of the block; with certificate and key over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            vault.asked.append(self.path)
            if vault.hangs is not None:
                vault.hangs.wait(30)
            if vault.redirects_to:
                self.send_response(307)
                self.send_header("Location", vault.redirects_to + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, answer = vault.answer("POST", self.path, self.headers, body)
            raw = vault.garbage or json.dumps(answer).encode()
            self.send_response(200 if vault.garbage else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not like the certificate is no news."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trust.load_cert_chain(*tls)
        server.socket = trust.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    vault.address = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

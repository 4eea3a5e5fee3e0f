"""An identity server on loopback: it gives out tokens that nobody has signed, or answers as a broken one does."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.harness.kafka_settings import HOST

CLIENT, SECRET, SCOPE = "alerts-of-ada", "rare-secret-7c1e-of-a-client", "gcn.nasa.gov/kafka-public-consumer"


class IdentityServer:
    """What it was asked, and what it answers."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}/oauth2/token"
        self.asked: list[str] = []
        self.given: list[str] = []
        #: Instead of a token: status and text.
        self.answer: tuple[int, str] | None = None
        #: Seconds for which a token is good, and from when on.
        self.lifetime_s, self.in_s = 60, 0

    def answer_to(self, authorization: str, body: str) -> tuple[int, str]:
        """Answer as RFC 6749 has it."""
        self.asked.append(body)
        if self.answer is not None:
            return self.answer
        if authorization != "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode():
            return 401, json.dumps({"error": "invalid_client"})
        self.given.append(self._token())
        return 200, json.dumps({"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self.lifetime_s})

    def _token(self) -> str:
        made = int(time.time()) + self.in_s
        claims = {"sub": CLIENT, "scope": SCOPE, "iat": made, "exp": made + self.lifetime_s}
        parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
        return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), ""])


@contextmanager
def identity_server() -> Iterator[IdentityServer]:
    """Run one."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = found.answer_to(self.headers["Authorization"], body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Answers) as server:
        found = IdentityServer(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            server.shutdown()

"""A stand-in for a W&B server on the loopback: unmodified W&B clients log to it and read from it.

    server = WandbServer()                # or: with WandbServer() as server
    os.environ |= server.environment()    # before W&B starts its service: see the fixture `wandb_server`
    ... wandb.init(...), wandb.Api(), Workspace(...).save() ...
    server.run("project/run").rows(); server.views; server.calls; server.unknown

It keeps everything in memory (`wandb_backend`) and understands GraphQL by its fields (`wandb_graphql`). What it does
not know it refuses, with an error that W&B does not retry, and notes it in `unknown`. Its faults are switched on and
off at any moment, from any thread:

    server.fail_with(500)                               server.hang(only="file_stream")
    server.fail_with(429, times=3)                      server.slow(0.5)
    server.fail_with(403, only="Artifact", after=2)     server.heal()        # as if nothing had been
    server.close(); server.restart()                    # connections are refused, then not; the data stay

By hand: `python tests/tracking/wandb_server.py --port 8080` serves until Ctrl-C, and says how to send W&B there.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from wandb_backend import ENTITY, Artifact, Backend, Mutation, Query, RequestError, Run, View
from wandb_graphql import execute, parse

API_KEY = "local-" + "0123456789abcdef" * 2 + "01234567"  # the form that W&B's client insists on
FILE_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
STORAGE = "/storage/"
TELEMETRY = re.compile(r"/sdk/otel/v1/(?:logs|metrics|traces)")


@dataclass
class Call:
    """One request, in the order of arrival.

    Attributes:
        name: what faults and tests know it by: the GraphQL operation (`UpsertBucket`), `file_stream`, `telemetry`, or
            the method and the path (`PUT runs/ENTITY/PROJECT/RUN/FILE`, `PUT objects/DIGEST`).
        body: what was sent, unpacked.
        status: what was answered; 0 if nothing (yet).
    """

    name: str
    body: bytes
    status: int = 0

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fault:
    """What happens instead of an answer, to which requests."""

    status: int | None = None  # answer this
    hangs: bool = False
    seconds: float = 0.0  # wait, then go on
    only: re.Pattern[str] | None = None
    after: int = 0  # so many matching requests pass unharmed
    times: int | None = None  # None: until healed
    headers: dict[str, str] = field(default_factory=dict)

    def strikes(self, call: Call) -> bool:
        """Whether this request is hit; counts it."""
        if (self.only is not None and not self.only.search(call.name)) or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def _error(message: str, status: int, headers: dict[str, str] | None = None) -> Answer:
    return _json({"errors": [{"message": message}]}, status, **(headers or {}))


class _Dropped(Exception):
    """The connection ends without an answer."""


class WandbServer:
    """The stand-in; listening from the start, on a free port unless one is given.

    Attributes:
        calls: every request, in order.
        unknown: what was asked that this server does not know: each is a gap in it, or a change of W&B's client.
        backend: what is kept.
        api_key: the only key that is let in.
    """

    def __init__(self, port: int = 0) -> None:
        self.api_key = API_KEY
        self.calls: list[Call] = []
        self.unknown: list[str] = []
        self.backend = Backend(lambda: self.url)
        self._faults: list[Fault] = []
        self._healed = threading.Event()  # set: whoever hangs or waits goes on; replaced by every `heal`
        self._http: _HTTPServer | None = None
        self._port = port
        self.restart()

    # Where it is.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """What points a W&B client at this server."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.api_key,
            "NO_PROXY": "127.0.0.1",
        }

    def close(self) -> None:
        """Refuse connections and drop the open ones, as a server that is killed; what was kept stays."""
        http, self._http = self._http, None
        if http is not None:
            self._healed.set()
            http.stop()

    def restart(self) -> None:
        """Listen again, on the same port; faults that were switched on still are."""
        if self._http is None:
            self._healed = threading.Event()
            self._http = _HTTPServer(self, self._port)
            self._port = self._http.server_port

    def __enter__(self) -> WandbServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What was kept.

    def run(self, path: str) -> Run:
        """The run `[[ENTITY/]PROJECT/]RUN`.

        Raises:
            KeyError: there is none, or more than one.
        """
        with self.backend.lock:
            found = [
                run
                for run in self.backend.runs()
                if f"/{run.project.entityName}/{run.project.name}/{run.name}".endswith(f"/{path}")
            ]
            if len(found) != 1:
                raise KeyError(f"{path}: {len(found)} of {[run.name for run in self.backend.runs()]}")
            return found[0]

    @property
    def runs(self) -> list[Run]:
        """All runs, in the order in which they were made."""
        with self.backend.lock:
            return self.backend.runs()

    @property
    def artifacts(self) -> list[Artifact]:
        """All committed artifacts, in the order in which they were made."""
        with self.backend.lock:
            return [item for item in self.backend.pending.values() if item.state == "COMMITTED"]

    @property
    def views(self) -> list[View]:
        """Saved workspaces and reports."""
        with self.backend.lock:
            return list(self.backend.views.values())

    def check(self) -> None:
        """Assert that nothing was asked that this server does not know."""
        assert not self.unknown, "\n".join(["W&B asked what the stand-in server does not know:", *self.unknown])

    def names(self) -> list[str]:
        """The names of all calls."""
        with self.backend.lock:
            return [call.name for call in self.calls]

    def lose_heartbeats(self) -> None:
        """Do now what W&B does after some minutes of silence: who has not said how it ended has crashed."""
        with self.backend.lock:
            for run in self.backend.runs():
                run.lost = run.exit_code is None

    # Faults.

    def fail_with(
        self, status: int, only: str | None = None, after: int = 0, times: int | None = None, retry_after: float = 1
    ) -> None:
        """Answer `status` to the requests whose name has a match of the pattern `only`.

        The first `after` of them pass, then `times` of them fail (default: all, until `heal`).
        """
        headers = {"Retry-After": f"{retry_after:g}"} if status == 429 else {}
        self._add(Fault(status, only=re.compile(only) if only else None, after=after, times=times, headers=headers))

    def hang(self, only: str | None = None, after: int = 0, times: int | None = None) -> None:
        """Accept requests and answer nothing; they are dropped at `heal`."""
        self._add(Fault(hangs=True, only=re.compile(only) if only else None, after=after, times=times))

    def slow(self, seconds: float, only: str | None = None) -> None:
        """Wait before every answer."""
        self._add(Fault(seconds=seconds, only=re.compile(only) if only else None))

    def heal(self) -> None:
        """End all faults."""
        with self.backend.lock:
            self._faults.clear()
            self._healed.set()
            self._healed = threading.Event()

    def _add(self, fault: Fault) -> None:
        with self.backend.lock:
            self._faults.append(fault)

    # Answers.

    def answer(self, method: str, path: str, body: bytes, key: str) -> Answer:
        """What is answered to one request.

        Raises:
            _Dropped: nothing is.
        """
        path = urlsplit(path).path
        call = Call(self._name(method, path, body), body)
        with self.backend.lock:
            self.calls.append(call)
            struck = [fault for fault in self._faults if fault.strikes(call)]
            healed = self._healed
        for fault in struck:
            if fault.hangs:
                healed.wait()
                raise _Dropped
            if fault.seconds:
                healed.wait(fault.seconds)
            if fault.status is not None:
                call.status = fault.status
                message = "quota exceeded" if fault.status == 403 else f"fault: {fault.status}"
                return _error(message, fault.status, fault.headers)
        with self.backend.lock:
            if self._http is None:  # killed while this request was waiting
                raise _Dropped
            try:
                answer = self._answer(method, path, body, key)
            except RequestError as error:
                answer = _error(str(error), 400)
            except Exception as error:
                # Whatever this server does not understand, be it its own fault: W&B would go on asking for minutes if
                # the connection broke off.
                self.unknown.append(f"{call.name}: {error!r} in {body.decode(errors='replace')}")
                answer = _error(f"the stand-in cannot answer: {error!r}", 400)
        call.status = answer.status
        return answer

    @staticmethod
    def _name(method: str, path: str, body: bytes) -> str:
        if path == "/graphql":
            found = re.search(rb"(?:query|mutation)(?:\s|\\[nt])+(\w+)", body)
            return found.group(1).decode() if found else "GraphQL"
        if FILE_STREAM.fullmatch(path):
            return "file_stream"
        if TELEMETRY.fullmatch(path):
            return "telemetry"
        return f"{method} {unquote(path.removeprefix(STORAGE))}"

    def _answer(self, method: str, path: str, body: bytes, key: str) -> Answer:
        if path.startswith(STORAGE):  # addresses that this server gave away itself need no key
            return self._storage(method, unquote(path.removeprefix(STORAGE)), body)
        if method == "POST" and TELEMETRY.fullmatch(path):  # how W&B's client fares, which comes without a key
            return Answer(200, b"", {"Content-Type": "application/x-protobuf"})
        stream = FILE_STREAM.fullmatch(path)
        if method != "POST" or (path != "/graphql" and stream is None):
            self.unknown.append(f"{method} {path}")
            return _error(f"the stand-in does not know {method} {path}", 404)
        if key != self.api_key:
            return _error("user is not logged in", 401)
        if stream is None:
            return self._graphql(json.loads(body))
        entity, project, run = map(unquote, stream.groups())
        return _json(self.backend.stream(entity, project, run, json.loads(body)))

    def _storage(self, method: str, path: str, body: bytes) -> Answer:
        """Uploads and downloads."""
        if method == "PUT":
            self.backend.store(path, body)
            return _json({})
        if path not in self.backend.storage:
            return _error(f"{path} was never uploaded", 404)
        return Answer(200, self.backend.storage[path], {"Content-Type": "application/octet-stream"})

    def _graphql(self, request: dict[str, Any]) -> Answer:
        document = parse(request["query"])
        root = Query(self.backend) if document.kind == "query" else Mutation(self.backend)
        return _json({"data": execute(document, root, request.get("variables") or {})})


class _HTTPServer(ThreadingHTTPServer):
    """Listens in a thread, and can be killed: no connection and no thread outlives `stop`."""

    daemon_threads = True

    def __init__(self, owner: WandbServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.owner = owner
        self._guard = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        # Half a second, the default, would be added to every `stop`.
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="wandb-server", daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="wandb-request", daemon=True
        )
        with self._guard:
            self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only a client that has gone away is no error of this server."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._guard:
            connections = dict(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *connections.values()):
            thread.join(timeout=10)
            assert not thread.is_alive(), f"{thread.name} does not end"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # W&B keeps its connections
    disable_nagle_algorithm = True
    server: _HTTPServer

    def do_GET(self) -> None:
        body = self._body()
        key = self.headers.get("Authorization", "").removeprefix("Basic ")
        with contextlib.suppress(ValueError):
            key = base64.b64decode(key).decode().partition(":")[2]
        try:
            answer = self.server.owner.answer(self.command, self.path, body, key)
        except _Dropped:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are in `calls`."""


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A stand-in for a W&B server, in memory, on this machine alone.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: 8080)")
    port = parser.parse_args(arguments).port
    with WandbServer(port) as server:
        settings = "\n".join(f"  export {name}={value}" for name, value in server.environment().items())
        sys.stdout.write(
            f"W&B stand-in at {server.url}, entity {ENTITY}. Ctrl-C ends it and forgets all.\n{settings}\n"
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        for unknown in server.unknown:
            sys.stdout.write(f"unknown: {unknown}\n")


if __name__ == "__main__":
    main()

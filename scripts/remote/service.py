"""`gainsay serve` under load: many clients, a newer model, a kill, limits, keys."""

import concurrent.futures
import json
import signal
import subprocess
import threading
import time
import urllib.request

from common import GAINSAY, RewardServer, gainsay, head, lines, post, reward_server


def load(folder):
    """200 clients with one sample each against one direct batch; bits against batches of one."""
    texts = [f"Answer {i}: " + "the sea is wide and blue " * (1 + i % 4) for i in range(200)]
    direct = folder / "direct.jsonl"
    direct.write_text("".join(json.dumps({"id": f"d{i}", "prompt": "Say something.", "completions": [{"text": t}]}) + "\n"
                              for i, t in enumerate(texts)))
    model = head(folder)
    with reward_server(folder, model) as url:
        def ask(text):
            return post(f"{url}/v1/reward", {"items": [{"prompt": "Say something.", "completion": text}]})["rewards"][0]

        ask(texts[0])
        ratios = []
        for _ in range(3):
            started = time.time()
            with concurrent.futures.ThreadPoolExecutor(200) as pool:
                crowd = list(pool.map(ask, texts))
            served = time.time() - started
            whole = {"items": [{"prompt": "Say something.", "completion": t} for t in texts]}
            started = time.time()
            together = post(f"{url}/v1/reward", whole)["rewards"]
            ratios.append((time.time() - started) / served)
        alone = [ask(t) for t in texts[:24]]
    figures = json.loads(gainsay("score", "--reward", model, "--in", direct, "--out", folder / "scored.jsonl", "--json"))
    offline = [r["completions"][0]["reward"] for r in lines(folder / "scored.jsonl")]
    assert crowd == together == offline and crowd[:24] == alone, "rewards differ with the batch they rode in"
    ratio = sorted(ratios)[1]
    print(f"  200 single-sample clients: {200 / served:.0f} samples/s, {ratio:.2f} of one request with all of them, "
          f"{figures['seconds'] / served:.2f} of `gainsay score`; all rewards the same bits as alone")
    assert ratio >= 0.8, ratios


def swap(folder):
    """A newer reward model comes in force under load, then the server is stopped while it answers."""
    model = head(folder)
    server = RewardServer(folder, model)
    item = {"items": [{"prompt": "Say something.", "completion": "the sea is wide " * 8}]}
    answers, errors, stop = [], [], threading.Event()

    def client():
        while not stop.is_set():
            try:
                answers.append(post(f"{server.url}/v1/reward", item)["rewards"][0])
            except OSError as error:
                errors.append(error)

    clients = [threading.Thread(target=client) for _ in range(16)]
    for thread in clients:
        thread.start()
    for wanted in (1, 2):
        before = len(answers)
        server.process.send_signal(signal.SIGUSR1)
        while server.metric("gainsay_model_swaps_total") < wanted or len(answers) < before + 50:
            time.sleep(0.05)
    stop.set()
    for thread in clients:
        thread.join()
    assert not errors, errors[:3]
    assert len(set(answers)) == 1, "the same model read again gives other rewards"
    served = server.metric("gainsay_requests_total")
    # Stopped while 8 requests are under way: they are answered, then the process ends by itself.
    long = {"items": [{"prompt": f"Say {i}.", "completion": "the sea is wide and blue " * 60} for i in range(8)]}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(post, f"{server.url}/v1/reward", long) for _ in range(8)]
        while server.metric("gainsay_queue_samples") < 8:
            time.sleep(0.01)
        code = server.stop()
        late = [len(ask.result()["rewards"]) for ask in asked]
    assert code == 0 and late == [8] * 8, (code, late)
    print(f"  2 swaps under load: {len(answers)} requests, none dropped ({served:.0f} counted); 8 under way answered at the end")


def killed(folder):
    """The server dies in the middle of `score`: a clear error, and nothing is asked twice afterwards."""
    model, samples = head(folder), 40
    given, out, answers = folder / "killed.jsonl", folder / "killed-out.jsonl", folder / "killed-out.jsonl.answers"
    given.write_text("".join(json.dumps({"id": f"k{i}", "prompt": "Say something.", "completions": [{"text": f"answer {i} " * 40}]})
                             + "\n" for i in range(samples)))
    server = RewardServer(folder, model)
    port = server.url.rsplit(":", 1)[1]
    command = ["score", "--reward", f"{server.url}#batch=1,concurrency=1,retries=1", "--in", given, "--out", out]
    work = subprocess.Popen([GAINSAY, *map(str, command)], stderr=subprocess.PIPE, text=True)
    while not answers.exists() or len(answers.read_bytes().splitlines()) < 5:
        assert work.poll() is None, work.stderr.read()
        time.sleep(0.01)
    server.process.kill()
    server.process.wait()
    said = work.communicate(timeout=60)[1]
    kept = len(answers.read_bytes().splitlines())
    assert work.returncode == 1 and "run the same command again" in said and not out.exists(), said
    assert kept < samples, "the server was killed too late to show anything"
    server = RewardServer(folder, model, "--port", port)
    gainsay(*command)
    asked = server.metric("gainsay_requests_total")
    server.stop()
    # One more request: what the server is, asked at the start.
    assert samples - kept <= asked <= samples - kept + 1, (asked, kept)
    gainsay("score", "--reward", model, "--in", given, "--out", folder / "killed-here.jsonl")
    rewards = [[c["reward"] for r in lines(f) for c in r["completions"]] for f in (out, folder / "killed-here.jsonl")]
    assert rewards[0] == rewards[1] and len(rewards[0]) == samples and not answers.exists()
    print(f"  killed after {kept} of {samples} answers: resumed with {samples - kept} requests, the rewards of a run in one piece")


def refusals(folder):
    """A wrong key is final and stays secret; a full queue sends away with Retry-After, and clients come back."""
    model = head(folder)
    given = folder / "direct.jsonl"
    if not given.exists():
        given.write_text("".join(json.dumps({"id": f"d{i}", "prompt": "Say something.", "completions": [{"text": f"Answer {i}"}]})
                                 + "\n" for i in range(60)))
    server = RewardServer(folder, model, "--queue", "4", "--batch", "1", env={"GAINSAY_SERVE_KEY": "sesame"})
    out = folder / "refused.jsonl"
    score = ["score", "--reward", f"{server.url}#batch=1,concurrency=32,retries=20", "--in", given, "--out", out]
    said = gainsay(*score, ok=(2,), stream="stderr", env={"GAINSAY_API_KEY": "open-barley"})
    assert "401" in said and "GAINSAY_API_KEY" in said and "open-barley" not in said and not out.exists(), said
    gainsay(*score, env={"GAINSAY_API_KEY": "sesame"})
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/k/sesame/metrics")) as answer:
        metrics = answer.read().decode()
    busy = [float(row.split()[-1]) for row in metrics.splitlines() if 'status="429"' in row]
    server.stop()
    assert sum(busy) > 0, metrics
    assert all("reward" in c for r in lines(out) for c in r["completions"])
    print(f"  a wrong key is refused once; {sum(busy):.0f} requests were sent away with 429 and answered on a later try")

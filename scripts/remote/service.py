"""`gainsay serve` under load: many clients, a newer model, a kill, limits, keys."""

import concurrent.futures
import json
import signal
import subprocess
import threading
import time

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
    with RewardServer(folder, head(folder)) as server:
        url = f"{server.url}/v1/reward"
        item = {"items": [{"prompt": "Say something.", "completion": "the sea is wide " * 8}]}
        answers, errors, stop = [], [], threading.Event()

        def client():
            while not stop.is_set():
                try:
                    answers.append(post(url, item)["rewards"][0])
                except OSError as error:
                    errors.append(error)

        clients = [threading.Thread(target=client, daemon=True) for _ in range(16)]
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
        served = server.metric('gainsay_requests_total{route="/v1/reward",status="200"}')
        assert served == len(answers), (served, len(answers))
        # Stopped while one request is in the model and 8 wait: all are answered, then the process ends by itself.
        busy = {"items": [{"prompt": "Say something.", "completion": "the sea is wide and blue " * 80}]}
        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            asked = [pool.submit(post, url, busy)]
            while server.metric("gainsay_queue_samples") > 0 or asked[0].running() is False:
                time.sleep(0.01)
            time.sleep(0.2)
            asked += [pool.submit(post, url, item) for _ in range(8)]
            while server.metric("gainsay_queue_samples") < 8:
                assert not asked[0].done(), "the model was too fast for this check"
                time.sleep(0.01)
            code = server.stop()
            late = [len(ask.result()["rewards"]) for ask in asked]
        assert code == 0 and late == [1] * 9, (code, late)
    print(f"  2 swaps under load: {len(answers)} requests, none dropped; 9 under way at SIGTERM were answered")


def rows_of(path, samples, text):
    """A file of prompts with one completion each."""
    rows = [{"id": f"k{i}", "prompt": "Say something.", "completions": [{"text": text.format(i)}]} for i in range(samples)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kept_in(path):
    """Whole answers on disk."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(folder):
    """The server dies in the middle of `score`: a clear error, and nothing is asked twice afterwards."""
    model, samples = head(folder), 24
    given, out = rows_of(folder / "killed.jsonl", samples, "answer {0} " * 15), folder / "killed-out.jsonl"
    answers = folder / "killed-out.jsonl.answers"
    with RewardServer(folder, model) as server:
        port = server.url.rsplit(":", 1)[1]
        command = ["score", "--reward", f"{server.url}#batch=1,concurrency=1,retries=1", "--in", given, "--out", out]
        work = subprocess.Popen([GAINSAY, *map(str, command)], stderr=subprocess.PIPE, text=True)
        while kept_in(answers) < 5:
            assert work.poll() is None, work.stderr.read()
            time.sleep(0.01)
    said, kept = work.communicate(timeout=120)[1], kept_in(answers)
    assert work.returncode == 1 and "run the same command again" in said and not out.exists(), said
    assert kept < samples, "the server was killed too late to show anything"
    with RewardServer(folder, model, "--port", port) as server:
        gainsay(*command)
        asked = server.metric('gainsay_requests_total{route="/v1/reward"')
    assert asked == samples - kept, (asked, kept)
    gainsay("score", "--reward", model, "--in", given, "--out", folder / "killed-here.jsonl")
    rewards = [[c["reward"] for r in lines(f) for c in r["completions"]] for f in (out, folder / "killed-here.jsonl")]
    assert rewards[0] == rewards[1] and len(rewards[0]) == samples and not answers.exists()
    print(f"  killed after {kept} of {samples} answers: resumed with {asked:.0f} requests, the rewards of a run in one piece")


def refusals(folder):
    """A wrong key is final and stays secret; a full queue sends away with Retry-After, and clients come back."""
    given, out = rows_of(folder / "refused-in.jsonl", 60, "Answer {}"), folder / "refused.jsonl"
    limits = ["--queue", "4", "--batch", "1"]
    with RewardServer(folder, head(folder), *limits, env={"GAINSAY_SERVE_KEY": "sesame"}) as server:
        score = ["score", "--reward", f"{server.url}#batch=1,concurrency=32,retries=20", "--in", given, "--out", out]
        said = gainsay(*score, ok=(2,), stream="stderr", env={"GAINSAY_API_KEY": "open-barley"})
        assert "401" in said and "GAINSAY_API_KEY" in said and "open-barley" not in said and not out.exists(), said
        gainsay(*score, env={"GAINSAY_API_KEY": "sesame"})
        busy = server.metric('gainsay_requests_total{route="/v1/reward",status="429"}', key="/k/sesame")
    assert busy > 0, "no request was sent away"
    assert len([c["reward"] for r in lines(out) for c in r["completions"]]) == 60
    print(f"  a wrong key is refused once; {busy:.0f} requests were sent away with 429 and answered on a later try")

"""Inference servers that nobody here wrote, with the default model, against the model here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from common import MODEL, REMOTE, Skip, gainsay, gguf, hf_folder, lines, prompts, running, wait_for

TOLERANCE = 1e-2  # nats a token


def sample_and_score(folder, url, name):
    """Sampling, and log-probs of given completions against the local model's."""
    rollouts, scored = folder / f"{name}.jsonl", folder / f"{name}-scored.jsonl"
    address = f"{url}#tokenizer={MODEL},concurrency=1"
    gainsay("sample", "--policy", address, "--prompts", prompts(folder), "--out", rollouts, "-n", 2, "--max-new-tokens", 12)
    gainsay("score", "--policy", MODEL, "--in", rollouts, "--out", scored)
    there = [c["logp"] for r in lines(rollouts) for c in r["completions"]]
    here = [c["logp"] for r in lines(scored) for c in r["completions"]]
    tokens = [c["n_tokens"] for r in lines(rollouts) for c in r["completions"]]
    worst = max(abs(a - b) / n for a, b, n in zip(there, here, tokens))
    print(f"  {len(there)} completions sampled; |logp there - here| per token at most {worst:.4f}")
    return worst


def llama(folder):
    python = REMOTE / "llama/bin/python"
    probe = subprocess.run([python, "-c", "import llama_cpp.server"], capture_output=True, check=False)
    if probe.returncode:
        raise Skip("llama-cpp-python is not installed: scripts/remote/setup llama")
    model = gguf()
    exact = folder / "f32.gguf"
    convert = (
        "import llama_cpp as l, sys\np = l.llama_model_quantize_default_params()\np.allow_requantize = True\n"
        "p.ftype = 0\np.nthread = 2\nsys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))"
    )
    subprocess.run([python, "-c", convert, str(model), str(exact)], check=True, capture_output=True)
    # What a quantized server computes is reported, not failed.
    for name, path, port, items, wanted in [("f32", exact, 8191, 8, "equal"), ("quantized", model, 8192, 4, None)]:
        log = folder / f"llama-{name}.log"
        command = [python, "-m", "llama_cpp.server", "--model", path, "--port", port, "--logits_all", "true", "--n_ctx", 1024]
        with running(command, log) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/v1/models", process, log)
            found = json.loads(gainsay("doctor", "--policy", f"{url}#concurrency=1", "--local", MODEL, "--items", items, "--json", ok=(0, 1)))
            d = found["differences"]
            print(f"  llama-cpp-python {name}: {found['verdict']}, {d['tokens']} tokens, mean {d['mean']:.4f} max {d['max']:.4f}")
            for finding in found["findings"]:
                print(f"    - {finding}")
            assert wanted is None or found["verdict"] == wanted, found
            assert found["verdict"] != "mismatch", found
            if wanted:
                worst = sample_and_score(folder, url, f"llama-{name}")
                assert worst <= TOLERANCE, worst


def transformers(folder):
    if importlib.util.find_spec("transformers") is None:
        raise Skip("transformers is not installed")
    model = hf_folder(folder)
    log, url = folder / "transformers.log", "http://127.0.0.1:8193"
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--port", 8193, "--device", "cpu"]
    with running([*command, "--dtype", "float32"], log) as process:
        wait_for(f"{url}/health", process, log)
        address = f"{url}#model={model},concurrency=1"
        chat, text, here = (folder / f"transformers-{name}.jsonl" for name in ["chat", "text", "here"])
        # Nearly greedy: what is sampled there must be what is sampled here.
        sampling = ["--prompts", prompts(folder), "-n", 1, "--max-new-tokens", 12, "--temperature", 0.001]
        gainsay("sample", "--policy", MODEL, *sampling, "--out", here)
        gainsay("sample", "--policy", f"{address},api=chat", *sampling, "--out", chat)
        gainsay("sample", "--policy", f"{address},api=completions,tokenizer={MODEL}", *sampling, "--out", text)
        texts = [[c["text"] for r in lines(f) for c in r["completions"]] for f in (here, chat, text)]
        assert texts[0] == texts[1] == texts[2], texts
        # It reports no log-probs, and the records do not pretend that it did: they are had from the model here.
        assert all(c.get("logp") is None for f in (chat, text) for r in lines(f) for c in r["completions"])
        said = lines(text)[0]["meta"]["logp_policy"]
        assert "no log-probs" in said, said
        scored = folder / "transformers-scored.jsonl"
        gainsay("score", "--policy", MODEL, "--in", text, "--out", scored)
        assert all(c["logp"] < 0 for r in lines(scored) for c in r["completions"])
        refused = gainsay("doctor", "--policy", f"{address},api=completions", "--local", MODEL, ok=(2,), stream="stderr")
        assert "does not give the log-probs of given completions" in refused, refused
        print(f"  transformers serve: {len(texts[0])} greedy completions, the same text as here through both endpoints")
        print("  !! transformers serve ignores `logprobs` and `echo`: log-probs of given completions and `doctor` cannot be")
        print("     compared with it; `doctor` says so, and exits with 2")

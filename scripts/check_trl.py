"""Checks a hand-over to TRL: what `gainsay export trl` wrote loads, trains on, and comes back.

    python scripts/check_trl.py --gainsay BINARY --export DIR --work DIR [--adapter DIR]

1. transformers loads reward_model/ and gives the rewards of `gainsay score`, within 1e-3.
   So does PEFT with the adapter of --adapter, an export with `--adapter`, on policy/ as its base.
2. train_reward.py (TRL's RewardTrainer) trains it for 2 steps on preferences.jsonl.
3. Gainsay loads what came out and gives the rewards of transformers, within 1e-3; they have moved.
4. train_policy.py (TRL's GRPOTrainer) trains policy/ for 2 steps with the reward over HTTP.
5. Gainsay reads the completions that TRL logged, scores them, and measures their conflicts.

The reward over HTTP comes from a stand-in that speaks OpenRLHF's protocol with the same reward
model in transformers; --reward-url names a running `gainsay serve` instead. Prints one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

TOLERANCE = 1e-3
torch.set_num_threads(1)


class Scorer:
    """A reward model in transformers: float32, the head at the turn end."""

    def __init__(self, folder, adapter=None):
        """A whole folder; or a language model's folder with a PEFT adapter, which brings the head."""
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder), num_labels=1, dtype=torch.float32, output_loading_info=True
        )
        heads = ("score.", "lm_head.", "embed_out.") if adapter else ()
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            wrong = [str(name) for name in info.get(problem, ()) if not str(name).startswith(heads or "\0")]
            if wrong:
                sys.exit(f"{folder}: {problem}: {wrong}")
        if adapter:
            model = PeftModel.from_pretrained(model, str(adapter)).get_base_model()
        self.model = model.eval()

    def text(self, prompt, answer):
        turns = prompt + [{"role": "assistant", "content": answer}]
        return self.tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("\n")

    def reward(self, text):
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            hidden = self.model.base_model(**ids, use_cache=False).last_hidden_state
            return self.model.score(hidden[0, -1]).item()


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def gainsay_rewards(args, model, name):
    out = args.work / f"{name}.jsonl"
    run(args.gainsay, "score", "--reward", model, "--in", args.work / "candidates.jsonl", "--out", out)
    return {r["id"]: [c["reward"] for c in r["completions"]] for r in map(json.loads, out.open())}


def compare(args, model, name, scorer=None):
    """Largest difference of rewards between Gainsay and transformers, and Gainsay's rewards."""
    ours = gainsay_rewards(args, model, name)
    scorer = scorer or Scorer(model)
    worst = 0.0
    for row in args.rows:
        theirs = [scorer.reward(scorer.text(row["prompt"], row[side][0]["content"])) for side in ("chosen", "rejected")]
        worst = max(worst, *(abs(a - b) for a, b in zip(ours[row["id"]], theirs)))
    if not worst <= TOLERANCE:
        sys.exit(f"{model}: rewards differ by {worst} between Gainsay and transformers")
    return worst, ours


def serve(scorer):
    """A stand-in for `gainsay serve`; returns its URL and the number of rewards it has given."""
    given = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rewards = [scorer.reward(text) for text in body["query"]]
            given.extend(rewards)
            reply = json.dumps({"rewards": rewards, "scores": rewards, "extra_logs": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", given


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gainsay", type=Path, required=True)
    p.add_argument("--export", type=Path, required=True)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--reward-url")
    p.add_argument("--adapter", type=Path)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (args.export / "preferences.jsonl").open()]
    args.rows = list({row["id"]: row for row in rows}.values())[:12]
    with (args.work / "pairs.jsonl").open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in args.rows)
    run(args.gainsay, "data", "convert", args.work / "pairs.jsonl", "--to", "prompts", "--out", args.work / "candidates.jsonl")
    found = {}

    model = args.export / "reward_model"
    found["exported"], before = compare(args, model, "exported")
    if args.adapter:
        adapter = args.adapter / "reward_model"
        found["adapter"], _ = compare(args, adapter, "adapter", Scorer(args.export / "policy", adapter))
    trained = args.work / "reward_model_trl"
    run(sys.executable, args.export / "train_reward.py", "--max-steps", 2, "--batch", 2, "--lr", 1e-3, "--out", trained)
    found["trained"], after = compare(args, trained, "trained")
    found["moved"] = max(abs(a - b) for id in before for a, b in zip(before[id], after[id]))
    if found["moved"] < 1e-4:
        sys.exit("the rewards did not move in 2 steps of RewardTrainer")

    url, given = (args.reward_url, None) if args.reward_url else serve(Scorer(model))
    tuned = args.work / "policy_trl"
    small = ["--max-steps", 2, "--generations", 4, "--max-completion-length", 8, "--out", tuned]
    run(sys.executable, args.export / "train_policy.py", *small, env={**os.environ, "GAINSAY_REWARD_URL": url})
    if given is not None and len(given) != 8:
        sys.exit(f"2 steps of 4 completions asked for {len(given)} rewards")
    logs = str(tuned / "completions" / "*.parquet")
    inspected = json.loads(run(args.gainsay, "data", "inspect", logs, "--json"))
    if inspected["format"] != "trl-completions" or inspected["holds"].get("rewards") != 8:
        sys.exit(f"the logged completions were read as {inspected}")
    scored = args.work / "logged.jsonl"
    run(args.gainsay, "score", "--policy", args.export / "policy", "--in", logs, "--out", scored)
    conflicts = json.loads(run(args.gainsay, "conflicts", "--in", scored, "--json"))
    found["logged_prompts"] = conflicts["prompts"]
    run(args.gainsay, "score", "--policy", tuned, "--in", scored, "--out", args.work / "rescored.jsonl")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

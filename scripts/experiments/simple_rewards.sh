#!/bin/bash
# Each policy method raises a simple known reward on the default model; resumable, one method a call:
#
#     scripts/experiments/simple_rewards.sh METHOD [REWARD] [OUT]
#
# METHOD: rloo, ppo, grpo, dpo, rso or bon; REWARD: length:12 by default. Adapters of the last 10 layers,
# completions of at most 32 tokens. Prints the held-out reward (4 completions a prompt, before and after),
# its gain in standard deviations of the untuned policy's completions, and the KL; samples of the tuned
# policy stand in OUT/METHOD.after.jsonl. DTYPE: bf16 by default; STEPS, LR, BETA, RSO_BETA, EPOCHS, K,
# BATCH and MINIBATCHES override the method's settings; STOP_KL ends a training at that KL.
set -euo pipefail
cd "$(dirname "$0")/../.."
method=$1 reward=${2:-length:12} out=${3:-runs/simple-rewards} dtype=${DTYPE:-bf16}
gainsay=${GAINSAY:-target/release/gainsay}
mkdir -p "$out"
python3 - "$out" <<'PY'
import json, sys
rows = [json.loads(line) for line in open("data/demo-prompts.jsonl")]
rows = [r for r in rows if r["meta"]["kind"] != "harmful"]
for name in ("train", "heldout"):
    part = [r for r in rows if r["meta"]["split"] == name]
    with open(f"{sys.argv[1]}/{name}.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in part)
PY
# sample POLICY NAME: held-out completions with their reward
sample() {
    [ -s "$out/$2.jsonl" ] && return
    "$gainsay" sample --policy "$1" --prompts "$out/heldout.jsonl" -n 4 --max-new-tokens 32 --dtype "$dtype" \
        --out "$out/$2.sampled.jsonl"
    "$gainsay" score --reward "$reward" --in "$out/$2.sampled.jsonl" --out "$out/$2.jsonl"
}
# steps, learning rate, prompts and completions a step, passes, minibatches, beta
more=()
case $method in
    dpo | rso | bon) set -- 24 1e-3 4 8 2 1 0.1 ;;
    # The value head starts at 0: rewards of mean 0 make that its right start.
    ppo) set -- 40 1e-3 4 4 4 1 0.05 && more=(--center-rewards --scale-rewards) ;;
    grpo) set -- 24 1e-3 4 4 2 1 0.01 ;;
    *) set -- 24 1e-3 4 4 1 1 0.01 ;;
esac
[ -z "${STOP_KL:-}" ] || more+=(--stop-kl "$STOP_KL")
"$gainsay" train policy --method "$method" --policy smollm2-135m --reward "$reward" --prompts "$out/train.jsonl" \
    --steps "${STEPS:-$1}" --lr "${LR:-$2}" --batch "${BATCH:-$3}" -k "${K:-$4}" --epochs "${EPOCHS:-$5}" \
    --minibatches "${MINIBATCHES:-$6}" --beta "${BETA:-$7}" --rso-beta "${RSO_BETA:-0.5}" --last-layers 10 \
    --temperature 0.7 --max-new-tokens 32 --save-every 4 --dtype "$dtype" --json --out "$out/$method-policy" \
    "${more[@]}" >"$out/$method.json"
sample smollm2-135m before
sample "$out/$method-policy" "$method.after"
"$gainsay" evaluate --policy "$out/$method-policy" --against smollm2-135m --prompts "$out/heldout.jsonl" --gold "$reward" \
    -n 1 --kl-n 1 --max-new-tokens 32 --dtype "$dtype" --json >"$out/$method.evaluation.json"
python3 - "$out" "$method" <<'PY'
import json, statistics, sys
out, method = sys.argv[1:]
def completions(name):
    return [(r["prompt"], c) for r in map(json.loads, open(f"{out}/{name}.jsonl")) for c in r["completions"]]
before, after = completions("before"), completions(f"{method}.after")
rewards = [[c["reward"] for _, c in part] for part in (before, after)]
sd = statistics.pstdev(rewards[0])
start, end = map(statistics.mean, rewards)
done = json.load(open(f"{out}/{method}.json"))
kl = json.load(open(f"{out}/{method}.evaluation.json"))["metrics"]["kl"]
print(f"{method}: held-out reward {start:+.3f} -> {end:+.3f}, {(end - start) / sd:+.1f} sd of the start ({sd:.3f}), "
      f"KL {kl['estimate']:.2f} [{kl['low']:.2f}, {kl['high']:.2f}] nats, {done['seconds']:.0f} s, {done['steps']} steps")
for prompt, c in after[::43]:
    print("   ", json.dumps(prompt), "->", json.dumps(c["text"]))
PY

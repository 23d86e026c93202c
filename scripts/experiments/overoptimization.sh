#!/bin/bash
# A long run against a proxy with looks at the gold reward: the over-optimization curve, drawn
# in OUT/policy/report.html; resumable.
#
#     scripts/experiments/overoptimization.sh PROXY [GOLD] [OUT]
#
# PROXY: for example runs/demo/proxy/model; GOLD: data/gold by default. STEPS (200), BATCH (8 prompts a step), K (4
# completions a prompt), TOKENS (64 at most), LR (1e-3), LOOK (10 steps between looks). With these a step took
# 36 s on 2 cores without AVX-512, beside other work.
set -euo pipefail
cd "$(dirname "$0")/../.."
proxy=$1 gold=${2:-data/gold} out=${3:-runs/overoptimization} gainsay=${GAINSAY:-target/release/gainsay}
mkdir -p "$out"
python3 - "$out" <<'PY'
import json, sys
rows = [json.loads(line) for line in open("data/demo-prompts.jsonl")]
for name in ("train", "heldout"):
    with open(f"{sys.argv[1]}/{name}.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows if r["meta"]["split"] == name)
PY
"$gainsay" train policy --method rloo --policy smollm2-135m --reward "$proxy" --gold "$gold" --prompts "$out/train.jsonl" \
    --heldout "$out/heldout.jsonl" --look-every "${LOOK:-10}" --steps "${STEPS:-200}" --batch "${BATCH:-8}" -k "${K:-4}" \
    --lr "${LR:-1e-3}" --beta 0 --temperature 0.7 --max-new-tokens "${TOKENS:-64}" --save-every 10 --dtype bf16 --out "$out/policy"
"$gainsay" report "$out/policy"

#!/bin/bash
# Held-out accuracy of reward models on a file of preferences or of answers with gold; resumable.
#
#     scripts/experiments/heldout_accuracy.sh head|lora|full DATA [OUT]
#
# head: five folds judge every pair (seconds once the features are cached). lora, full: a third of the pairs is
# held out. LIMIT pairs (0: all), at most EACH a prompt (0: all), drawn with seed 0 from those that have an order;
# SEEDS ("0 1 2"), MAX_TOKENS (1024), DTYPE (f32), LAST_LAYERS (0: all). Features of 900 pairs of
# hh-rlhf took about 10 minutes on 2 cores without AVX-512.
set -euo pipefail
cd "$(dirname "$0")/../.."
method=$1 data=$2 out=${3:-runs/heldout-accuracy} gainsay=${GAINSAY:-target/release/gainsay}
mkdir -p "$out"
set -- "${LIMIT:-0}" "${EACH:-0}" "${MAX_TOKENS:-1024}" "${DTYPE:-f32}" "${LAST_LAYERS:-0}"
# Other settings are other files.
name=$(basename "$data" | cut -d. -f1)-$(sha256sum "$data" | cut -c1-8)-$1-$2-$3-$4-$5
"$gainsay" data convert "$data" --to preferences --out "$out/$name.all.jsonl"
python3 - "$out/$name" "$1" "$2" <<'PY'
import collections, json, random, sys
name, limit, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = [row for row in map(json.loads, open(f"{name}.all.jsonl")) if row["p_first"] in (0, 1)]
random.Random(0).shuffle(rows)
of_prompt, kept = collections.Counter(), []
for row in rows:
    prompt = json.dumps(row["prompt"])
    of_prompt[prompt] += 1
    if (not each or of_prompt[prompt] <= each) and (not limit or len(kept) < limit):
        kept.append(row)
with open(f"{name}.jsonl", "w") as f:
    f.writelines(json.dumps(row) + "\n" for row in kept)
PY
case $method in
    head) more="--folds 5 --heldout 0 --cache $out/cache" ;;
    lora) more="--heldout 0.33 --last-layers $5" ;;
    full) more="--heldout 0.33" ;;
esac
for seed in ${SEEDS:-0 1 2}; do
    result="$out/$name-$method-$seed.json"
    [ -s "$result" ] || { "$gainsay" train reward --model smollm2-135m --method "$method" --in "$out/$name.jsonl" --seed "$seed" \
        --dtype "$4" --max-tokens "$3" --json $more --out "$out/$name-$method-$seed" \
        >"$result.partial" && mv "$result.partial" "$result"; }
    python3 - "$result" "$name $method seed $seed" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
def shown(what, a):
    print(f"{sys.argv[2]}: {what} {100 * a['estimate']:.1f} % [{100 * a['low']:.1f}, {100 * a['high']:.1f}] of {a['n']} pairs")
if folds := d["cross_validation"]:
    shown("accuracy", folds["accuracy"])
    for rule in folds["baselines"]:
        shown(rule["prefers"], rule["accuracy"])
else:
    shown("accuracy", d["heldout"]["accuracy"])
PY
done

#!/bin/bash
# Is a reward model better trained again from the base on old and new pairs, or further on the new ones?
#
#     scripts/experiments/base_or_continue.sh RUN [OUT]
#
# RUN is the folder of a run with its first pool validated (`gainsay demo --out RUN` makes one). For each of SEEDS
# ("0 1 2"), BUDGET (64) new comparisons of the pool are drawn and answered by the gold labels in it, and a LoRA of the
# proxy's settings is trained: `base` (base model, the proxy's pairs and the new ones), `current` (the proxy, the new ones),
# `mixed` (the proxy, both). STARTS ("base current") says which. All are judged on the base policy's
# completions of the held-out prompts: share of pairs ordered as gold orders them, prompts resampled. Resumable.
set -euo pipefail
cd "$(dirname "$0")/../.."
run=$1 out=${2:-runs/base-or-continue} gainsay=${GAINSAY:-target/release/gainsay}
starts=${STARTS:-base current} seeds=${SEEDS:-0 1 2} proxy=$run/proxy
mkdir -p "$out"

# What stands there whole is not made again.
judged() {
    [ -s "$2" ] || { "$gainsay" score --reward "$1" --in "$run/base/rollouts.jsonl" --out "$2.partial" --dtype bf16 \
        && mv "$2.partial" "$2"; }
}

judged "$proxy/model" "$out/proxy.jsonl"
for seed in $seeds; do
    new=$out/new-$seed.jsonl
    "$gainsay" select --strategy random-spread --budget "${BUDGET:-64}" --seed "$seed" --in "$run/round-1/pool/conflicts.jsonl" \
        --exclude "$proxy/preferences.jsonl" --out "$out/selection-$seed.jsonl"
    "$gainsay" feedback --in "$out/selection-$seed.jsonl" --oracle labels --out "$new"
    for start in $starts; do
        case $start in
            base) from=(--model smollm2-135m --old "$proxy/preferences.jsonl") ;;
            current) from=(--model "$proxy/model") ;;
            mixed) from=(--model "$proxy/model" --old "$proxy/preferences.jsonl") ;;
        esac
        model=$out/$start-$seed
        [ -s "$model.json" ] || { "$gainsay" train reward "${from[@]}" --in "$new" --out "$model" --last-layers 10 --heldout 0 \
            --seed "$seed" --dtype bf16 --json >"$model.partial" && mv "$model.partial" "$model.json"; }
        judged "$model" "$model.jsonl"
    done
done

python3 - "$out" "$starts" "$seeds" <<'PY'
import itertools, json, random, sys
out, starts, seeds = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()

def right(name):
    """Of each prompt: pairs ordered as gold orders them (ties half), pairs."""
    found = []
    for row in map(json.loads, open(f"{out}/{name}.jsonl")):
        pairs = [(a, b) for a, b in itertools.combinations(row["completions"], 2) if a["gold"] != b["gold"]]
        agrees = [(a["reward"] - b["reward"]) * (a["gold"] - b["gold"]) for a, b in pairs]
        found.append((sum(0.5 if x == 0 else float(x > 0) for x in agrees), len(pairs)))
    return found

def mean(columns):
    """Accuracy over all pairs of several models, in percent."""
    return 100 * sum(c[0] for column in columns for c in column) / sum(c[1] for column in columns for c in column)

def interval(value, prompts, draws=2000):
    rng = random.Random(0)
    drawn = sorted(value(rng.choices(range(prompts), k=prompts)) for _ in range(draws))
    return f"{value(range(prompts)):.1f} [{drawn[int(0.025 * draws)]:.1f}, {drawn[int(0.975 * draws)]:.1f}]"

judged = {"proxy": [right("proxy")]} | {s: [right(f"{s}-{seed}") for seed in seeds] for s in starts}
of = lambda name, prompts: mean([[column[p] for p in prompts] for column in judged[name]])
prompts = len(judged["proxy"][0])
for name, columns in judged.items():
    each = ", ".join(f"{mean([column]):.1f}" for column in columns)
    print(f"{name:<8} {interval(lambda p: of(name, p), prompts)} % of pairs right ({each})")
for name in starts:
    print(f"{name} - proxy: {interval(lambda p: of(name, p) - of('proxy', p), prompts)} points")
for a, b in itertools.combinations(starts, 2):
    print(f"{a} - {b}: {interval(lambda p: of(a, p) - of(b, p), prompts)} points")
for name in starts:
    seconds = [json.load(open(f"{out}/{name}-{seed}.json"))["seconds"] for seed in seeds]
    print(f"{name}: {', '.join(f'{s:.0f}' for s in seconds)} s")
PY

"""Make the conflict-maths goldens (numpy and scipy only).

    python scripts/goldens/conflicts.py

writes crates/gainsay-core/tests/goldens/conflicts.json.gz. Everything is seeded; the
fields are described in the README.md beside that file. Kendall's distance, tau-b's
cross-check and AUROC are brute force over all pairs, so that they share no idea with
an O(N log N) implementation.
"""

import gzip
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, pearsonr

OUT = Path(__file__).resolve().parents[2] / "crates/gainsay-core/tests/goldens/conflicts.json.gz"
SEED = 20250211
GROUPS = 1000
AUROCS = 100
DEGENERATE_STD = 1e-6
COMPAT_EPSILON = 1e-8


def sign(x):
    return (x > 0) - (x < 0)


def pair_counts(a, b):
    """(concordant, discordant, tied in a only, tied in b only, tied in both) over all pairs."""
    concordant = discordant = only_a = only_b = both = 0
    for i, j in combinations(range(len(a)), 2):
        sa, sb = sign(a[i] - a[j]), sign(b[i] - b[j])
        if sa == 0 and sb == 0:
            both += 1
        elif sa == 0:
            only_a += 1
        elif sb == 0:
            only_b += 1
        elif sa == sb:
            concordant += 1
        else:
            discordant += 1
    return concordant, discordant, only_a, only_b, both


def zscore(v):
    """(v - mean) / std, population std (ddof 0)."""
    v = np.asarray(v, dtype=np.float64)
    return (v - v.mean()) / v.std(ddof=0)


def group_golden(index, kind, logp, reward):
    """Every expected number of one prompt's completions; nulls where degenerate."""
    x, y = np.asarray(logp, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    degenerate = len(x) < 2 or x.std() < DEGENERATE_STD or y.std() < DEGENERATE_STD
    counts = pair_counts(logp, reward)
    out = {
        "id": f"g{index:04d}",
        "kind": kind,
        "logp": logp,
        "reward": reward,
        "degenerate": bool(degenerate),
        "concordant": counts[0],
        "discordant": counts[1],
        "tied_only_logp": counts[2],
        "tied_only_reward": counts[3],
        "tied_both": counts[4],
        "std_logp": float(x.std()),
        "std_reward": float(y.std()),
    }
    keys = ("z_reward", "z_logp", "pacs", "kendall_tau_distance", "tau_b", "pearson")
    if degenerate:
        out.update({k: None for k in keys})
    else:
        zr, zl = zscore(y), zscore(x)
        n = len(x)
        k = (counts[1] + 0.5 * (counts[2] + counts[3])) / (n * (n - 1) / 2)
        tau = float(kendalltau(x, y).statistic)
        c, d, ta, tb, _ = counts
        brute = (c - d) / math.sqrt((c + d + ta) * (c + d + tb))
        assert abs(tau - brute) < 1e-12, (index, tau, brute)
        pacs = zr - zl
        pearson = float(pearsonr(x, y).statistic)
        assert abs(pacs.sum()) < 1e-9 * n
        assert abs((pacs**2).mean() - 2 * (1 - pearson)) < 1e-9
        out.update(
            z_reward=zr.tolist(),
            z_logp=zl.tolist(),
            pacs=pacs.tolist(),
            kendall_tau_distance=float(k),
            tau_b=tau,
            pearson=pearson,
        )
    # The published scripts: epsilon in the denominator, so that a constant group is all zeros.
    czr = (y - y.mean()) / (y.std() + COMPAT_EPSILON)
    czl = (x - x.mean()) / (x.std() + COMPAT_EPSILON)
    out.update(
        compat_pacs=(czr - czl).tolist(),
        compat_mean_abs_pacs=float(np.abs(czr - czl).mean()),
    )
    return out


def make_values(rng, n, kind):
    """(logp, reward) of one group; round values make exact ties."""
    if kind == "smooth":
        logp, reward = rng.normal(-60, 20, n), rng.normal(0, 2, n)
    elif kind == "round":
        logp, reward = rng.integers(-5, 1, n) * 1.0, rng.integers(-2, 3, n) * 0.5
    elif kind == "round-logp":
        logp, reward = rng.integers(-3, 1, n) * 10.0, rng.normal(0, 2, n)
    elif kind == "round-reward":
        logp, reward = rng.normal(-60, 20, n), rng.integers(0, 3, n) * 0.5
    elif kind == "duplicates":
        half = max(1, n // 2)
        logp = np.tile(rng.normal(-40, 10, half), 12)[:n]
        reward = np.tile(rng.normal(0, 1, half), 12)[:n]
    elif kind == "agree":
        logp = np.sort(rng.normal(-60, 20, n))
        reward = np.sort(rng.normal(0, 2, n))
    elif kind == "oppose":
        logp = np.sort(rng.normal(-60, 20, n))
        reward = np.sort(rng.normal(0, 2, n))[::-1]
    elif kind == "constant-logp":
        logp, reward = np.full(n, -12.5), rng.normal(0, 1, n)
    elif kind == "constant-reward":
        logp, reward = rng.normal(-60, 20, n), np.full(n, 0.75)
    elif kind == "constant-both":
        logp, reward = np.full(n, -3.0), np.full(n, 0.0)
    elif kind == "nearly-constant":
        # Spread of about 1e-8: far below the degeneracy threshold, but not exactly zero.
        logp, reward = -3.0 + 1e-8 * rng.integers(-1, 2, n), rng.normal(0, 1, n)
    elif kind == "large":
        logp, reward = rng.normal(-4000, 900, n), rng.normal(0, 1e4, n)
    elif kind == "single":
        logp, reward = rng.normal(-60, 20, 1), rng.normal(0, 1, 1)
    else:
        raise ValueError(kind)
    # Six decimals keep the file small and stay exact as JSON text.
    digits = 9 if kind == "nearly-constant" else 6
    return [float(round(v, digits)) for v in logp], [float(round(v, digits)) for v in reward]


KINDS = [
    ("round", 0.30),
    ("smooth", 0.18),
    ("round-logp", 0.10),
    ("round-reward", 0.12),
    ("duplicates", 0.08),
    ("agree", 0.04),
    ("oppose", 0.04),
    ("large", 0.04),
    ("constant-logp", 0.025),
    ("constant-reward", 0.025),
    ("constant-both", 0.02),
    ("nearly-constant", 0.02),
    ("single", 0.01),
]


def auroc(scores, positive):
    """P(score of a positive > score of a negative) + P(equal) / 2, over all such pairs."""
    pos = [s for s, p in zip(scores, positive) if p]
    neg = [s for s, p in zip(scores, positive) if not p]
    if not pos or not neg:
        return None
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in pos for n in neg)
    return wins / (len(pos) * len(neg))


def auroc_golden(rng, index):
    n = int(rng.integers(1, 41))
    if index % 3 == 0:
        scores = rng.normal(0, 1, n)
    elif index % 3 == 1:
        scores = rng.integers(0, 5, n) * 0.25
    else:
        scores = np.round(rng.normal(0, 1, n), 1)
    scores = [float(round(s, 6)) for s in scores]
    noise = rng.normal(0, 1, n)
    positive = [bool(s + e > 0.5) for s, e in zip(scores, noise)]
    return {"scores": scores, "positive": positive, "auroc": auroc(scores, positive)}


def dataset_scope(groups):
    """z over all completions of the listed groups at once (`--scope dataset`)."""
    logp = np.concatenate([g["logp"] for g in groups])
    reward = np.concatenate([g["reward"] for g in groups])
    pacs = zscore(reward) - zscore(logp)
    split = np.split(pacs, np.cumsum([len(g["logp"]) for g in groups])[:-1])
    return {
        "ids": [g["id"] for g in groups],
        "mean_logp": float(logp.mean()),
        "std_logp": float(logp.std()),
        "mean_reward": float(reward.mean()),
        "std_reward": float(reward.std()),
        "pacs": [p.tolist() for p in split],
    }


def summary(groups):
    """Means over the prompts that are not degenerate, and the published-script versions."""
    live = [g for g in groups if not g["degenerate"]]
    return {
        "prompts": len(groups),
        "degenerate": len(groups) - len(live),
        "mean_abs_pacs": float(np.mean([np.mean(np.abs(g["pacs"])) for g in live])),
        "mean_kendall_tau_distance": float(np.mean([g["kendall_tau_distance"] for g in live])),
        "mean_tau_b": float(np.mean([g["tau_b"] for g in live])),
        "compat_mean_abs_pacs": float(np.mean([g["compat_mean_abs_pacs"] for g in groups])),
        "compat_selected_above_0.5": [g["id"] for g in groups if g["compat_mean_abs_pacs"] > 0.5],
        "compat_selected_above_1.0": [g["id"] for g in groups if g["compat_mean_abs_pacs"] > 1.0],
    }


def main():
    rng = np.random.default_rng(SEED)
    names = [k for k, _ in KINDS]
    weights = np.array([w for _, w in KINDS])
    groups = []
    for i in range(GROUPS):
        n = int(rng.integers(2, 13))
        kind = str(rng.choice(names, p=weights / weights.sum()))
        groups.append(group_golden(i, kind, *make_values(rng, n, kind)))
    # The middle ground between degenerate and not must stay empty: a std near the threshold
    # would make the expected null depend on rounding.
    for g in groups:
        for key in ("std_logp", "std_reward"):
            if len(g["logp"]) > 1:
                assert not 2e-7 < g[key] < 5e-6, g["id"]
    aurocs = [auroc_golden(rng, i) for i in range(AUROCS)]
    data = {
        "seed": SEED,
        "made_with": {"numpy": np.__version__, "scipy": __import__("scipy").__version__},
        "groups": groups,
        "dataset_scope": dataset_scope(groups[:200]),
        "summary": summary(groups),
        "auroc": aurocs,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    with open(OUT, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(text.encode())
    live = sum(not g["degenerate"] for g in groups)
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(groups)} groups, {live} not degenerate")


if __name__ == "__main__":
    main()

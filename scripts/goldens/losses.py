"""Goldens of the losses and estimators of training: values and autograd derivatives in float64.

    python scripts/goldens/losses.py

writes crates/gainsay-lm/tests/goldens/losses.json. The formulas are those of the papers as PyTorch
code, in the form in which TRL 1.16 computes them (RewardTrainer, DPOTrainer, GRPOTrainer); TRL's
PPOTrainer, which later versions dropped, gave the form of PPO's two losses and of whitening.
"""

import itertools
import random

import torch
import torch.nn.functional as F
from common import OUT, made_with, write_json

torch.set_default_dtype(torch.float64)
draw = random.Random(20)


def uniform(scale):
    return round(draw.uniform(-scale, scale), 6)


def leaves(*values):
    return [torch.tensor(v, requires_grad=True) for v in values]


def reward_rows():
    rows = []
    for p, margin, center in [(1.0, 0.0, 0.0), (0.0, 0.0, 0.01), (0.5, 0.0, 0.01), (0.83, 0.4, 0.01), (1.0, 1.5, 0.0)]:
        r1, r2 = leaves(uniform(4), uniform(4))
        loss = -p * F.logsigmoid(r1 - r2 - margin) - (1 - p) * F.logsigmoid(r2 - r1 - margin) + center * (r1 + r2) ** 2
        loss.backward()
        rows.append({"p": p, "margin": margin, "center": center, "r1": r1.item(), "r2": r2.item(), "loss": loss.item(),
                     "d_r1": r1.grad.item(), "d_r2": r2.grad.item()})
    return rows


def safety_rows():
    rows = []
    for safe in [True, False, True, False]:
        (cost,) = leaves(uniform(5))
        loss = -F.logsigmoid(cost * (-1.0 if safe else 1.0))
        loss.backward()
        rows.append({"cost": cost.item(), "safe": safe, "loss": loss.item(), "d": cost.grad.item()})
    return rows


def ranking_rows():
    rows = []
    for k in [2, 3, 5, 9]:
        r = torch.tensor([uniform(3) for _ in range(k)], requires_grad=True)
        loss = -sum(r[i] - torch.logsumexp(r[i:], 0) for i in range(k - 1))
        loss.backward()
        groups = [[i] for i in range(k)]
        rows.append({"groups": groups, "rewards": r.tolist(), "loss": loss.item(), "d": r.grad.tolist()})
    return rows


def tied_ranking_rows():
    """The mean over all orders of the tied answers, each order written out."""
    rows = []
    for groups in [[[0, 1]], [[1], [0, 2]], [[2, 0], [1]], [[3, 1], [0], [4, 2]], [[0, 1, 2, 3]], [[4, 2, 0], [5, 1, 3]]]:
        k = sum(len(g) for g in groups)
        r = torch.tensor([uniform(3) for _ in range(k)], requires_grad=True)
        orders = [sum(parts, ()) for parts in itertools.product(*(itertools.permutations(g) for g in groups))]
        losses = []
        for order in orders:
            listed = r[list(order)]
            losses.append(-sum(listed[i] - torch.logsumexp(listed[i:], 0) for i in range(k - 1)))
        loss = sum(losses) / len(losses)
        loss.backward()
        rows.append({"groups": groups, "rewards": r.tolist(), "loss": loss.item(), "d": r.grad.tolist()})
    return rows


def preference_rows():
    """DPOTrainer: sigmoid, ipo (on sums, as in the paper), hinge; label p as robust mixing."""
    rows = []
    for kind in ["sigmoid", "ipo", "hinge"]:
        for beta, p in [(0.1, 1.0), (0.5, 1.0), (0.2, 0.0), (0.3, 0.7)]:
            a, b = leaves(-20 + uniform(8), -20 + uniform(8))
            ra, rb = -20 + uniform(8), -20 + uniform(8)
            h = (a - ra) - (b - rb)
            side = {
                "sigmoid": lambda h: -F.logsigmoid(beta * h),
                "ipo": lambda h: (h - 1 / (2 * beta)) ** 2,
                "hinge": lambda h: torch.relu(1 - beta * h),
            }[kind]
            loss = p * side(h) + (1 - p) * side(-h)
            loss.backward()
            rows.append({"kind": kind, "beta": beta, "p": p, "first": [a.item(), ra], "second": [b.item(), rb],
                         "loss": loss.item(), "d_first": a.grad.item(), "d_second": b.grad.item()})
    return rows


def clipped_rows():
    rows = []
    for _ in range(12):
        x, v = leaves(uniform(1), uniform(1))
        old, ref, a, eps, beta = uniform(1), uniform(1), uniform(2), 0.2, 0.04
        old_value, target = uniform(1), uniform(2)
        ratio = torch.exp(x - old)
        policy = torch.max(-a * ratio, -a * torch.clamp(ratio, 1 - eps, 1 + eps))
        k3 = torch.exp(ref - x) - (ref - x) - 1
        clipped = torch.clamp(v, old_value - eps, old_value + eps)
        value = 0.5 * torch.max((v - target) ** 2, (clipped - target) ** 2)
        d_policy = torch.autograd.grad(policy, x, retain_graph=True)[0].item()
        d_grpo = torch.autograd.grad(policy + beta * k3, x, retain_graph=True)[0].item()
        rows.append({"logp": x.item(), "old": old, "ref": ref, "advantage": a, "eps": eps, "beta": beta,
                     "policy": policy.item(), "d_policy": d_policy, "grpo": (policy + beta * k3).item(), "d_grpo": d_grpo,
                     "v": v.item(), "old_value": old_value, "target": target, "value": value.item(),
                     "d_value": torch.autograd.grad(value, v)[0].item()})
    return rows


def estimator_rows():
    """GAE as PPOTrainer's backward loop, whitening (unbiased=False variance), GRPO's groups, RLOO."""
    rows = []
    for n, gamma, lam in [(1, 1.0, 0.95), (6, 1.0, 0.95), (8, 0.9, 0.5), (5, 0.99, 0.0)]:
        rewards, values = [[uniform(2) for _ in range(n)] for _ in range(2)]
        last, advantages = 0.0, []
        for t in reversed(range(n)):
            following = values[t + 1] if t + 1 < n else 0.0
            last = rewards[t] + gamma * following - values[t] + gamma * lam * last
            advantages.append(last)
        a = torch.tensor(advantages[::-1])
        white = (a - a.mean()) * torch.rsqrt(a.var(unbiased=False) + 1e-8)
        r = torch.tensor(rewards)
        group = (r - r.mean()) / (r.std() + 1e-4) if n > 1 else None
        loo = r - (r.sum() - r) / (n - 1) if n > 1 else None
        rows.append({"gamma": gamma, "lambda": lam, "rewards": rewards, "values": values, "advantages": a.tolist(),
                     "returns": (a + torch.tensor(values)).tolist(), "white": white.tolist(),
                     "group": None if group is None else group.tolist(), "loo": None if loo is None else loo.tolist()})
    return rows


write_json(OUT / "losses.json", {
    "made_with": made_with(),
    "reward": reward_rows(),
    "safety": safety_rows(),
    "ranking": ranking_rows(),
    "preference": preference_rows(),
    "clipped": clipped_rows(),
    "estimators": estimator_rows(),
    "ranking_ties": tied_ranking_rows(),
})

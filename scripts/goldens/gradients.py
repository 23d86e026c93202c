"""Gradient goldens on the tiny models: Bradley-Terry and policy gradient, all weights and LoRA.

    python scripts/goldens/gradients.py

needs the models that tiny.py writes; writes NAME-bt.json, NAME-bt-grads.safetensors,
NAME-lora.json, NAME-lora-grads.safetensors, adapters/NAME, and for the policy gradient
NAME-pg.json, NAME-pg-*-grads.safetensors and adapters/NAME-policy.
"""

import json
import random
import shutil
import warnings

import torch
import torch.nn.functional as F
from common import OUT, made_with, rewards, to_double, token_logps, write_json
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny import MODELS, PAD_ID, SPECS, reward_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

warnings.filterwarnings("ignore")

REWARD_NAMES = ["llama", "qwen2", "qwen3", "gpt-neox"]
POLICY_NAMES = ["llama", "qwen2"]
CENTER = 0.01
TEMPERATURE = 0.7
R, ALPHA = 4, 8
HEAD_NAME = "base_model.model.score.weight"


def ids_of(draw, vocab, length):
    return [draw.randrange(3, vocab) for _ in range(length)]


def make_pairs(seed, vocab):
    """Three pairs of unequal lengths: certain, soft with a margin, and a tie that shares its prompt."""
    draw = random.Random(seed)
    prompt = ids_of(draw, vocab, 4)
    rows = [
        (ids_of(draw, vocab, 9) + [PAD_ID], ids_of(draw, vocab, 15), 1.0, 0.0),
        (ids_of(draw, vocab, 1), ids_of(draw, vocab, 6) + [PAD_ID, PAD_ID], 0.3, 0.25),
        (prompt + ids_of(draw, vocab, 8), prompt + ids_of(draw, vocab, 3), 0.5, 0.0),
    ]
    return [dict(zip(("first", "second", "p", "margin"), r)) for r in rows]


def bradley_terry(first, second, pairs):
    """Per pair: -p log s(D - m) - (1 - p) log s(-D - m) + CENTER (r1 + r2)^2, with D = r1 - r2."""
    p = torch.tensor([x["p"] for x in pairs], dtype=first.dtype)
    m = torch.tensor([x["margin"] for x in pairs], dtype=first.dtype)
    d = first - second
    loss = -p * F.logsigmoid(d - m) - (1 - p) * F.logsigmoid(-d - m)
    return loss + CENTER * (first + second) ** 2


def reward_loss(model, pairs):
    """Forward of all six sequences in one padded batch; ((r1, r2), per-pair losses)."""
    batch = [x["first"] for x in pairs] + [x["second"] for x in pairs]
    values = rewards(model, batch, PAD_ID)
    first, second = values[: len(pairs)], values[len(pairs) :]
    return (first, second), bradley_terry(first, second, pairs)


def check_difference(model, loss_fn, gradients, parameters):
    """Central differences along one random direction agree with the analytic gradients."""
    generator = torch.Generator().manual_seed(0)
    directions = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}
    slope = sum((gradients[n].double() * d).sum().item() for n, d in directions.items())
    eps, values = 1e-6, []
    with torch.no_grad():
        for s in (eps, -2 * eps, eps):
            for n, p in parameters.items():
                p.add_(s * directions[n])
            values.append(loss_fn().item())
    numeric = (values[0] - values[1]) / (2 * eps)
    assert abs(numeric - slope) < 1e-5 * max(1.0, abs(slope)), (numeric, slope)


def gradients_of(model, loss_fn):
    """d loss / d every trainable parameter, float64, by parameter name."""
    model.zero_grad(set_to_none=True)
    loss_fn().backward()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = {n: p.grad.clone() for n, p in parameters.items()}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    check_difference(model, loss_fn, gradients, parameters)
    return gradients


def save_gradients(name, gradients):
    path = OUT / f"{name}-grads.safetensors"
    save_file({n: g.float().contiguous() for n, g in gradients.items()}, path)
    print(path.name, path.stat().st_size, len(gradients), "tensors")


def bt_json(name, model_path, pairs, values, losses, more):
    data = {"model": model_path, "dtype": "float32 weights, float64 arithmetic", "made_with": made_with(), "center": CENTER}
    rows = [
        {**x, "reward_first": a, "reward_second": b, "loss": l}
        for x, a, b, l in zip(pairs, values[0].tolist(), values[1].tolist(), losses.tolist())
    ]
    write_json(OUT / f"{name}.json", {**data, **more, "pairs": rows, "loss": losses.mean().item()})


def bt_full(name):
    seed = SPECS[name][0]
    model = reward_model(name, seed + 100)
    weight = model.score.weight[0].tolist()
    pairs = make_pairs(seed + 200, model.config.vocab_size)
    to_double(model)
    with torch.no_grad():
        values, losses = reward_loss(model, pairs)
    save_gradients(f"{name}-bt", gradients_of(model, lambda: reward_loss(model, pairs)[1].mean()))
    bt_json(f"{name}-bt", f"models/{name}", pairs, values, losses, {"score_weight": weight})


def lora_config(name, task):
    targets = ["query_key_value"] if name.startswith("gpt-neox") else ["q_proj", "v_proj"]
    return LoraConfig(task_type=task, r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=targets)


def randomise_adapter(model, seed):
    """Random A, B and head: with B zero, as PEFT starts, A would have no gradient."""
    generator = torch.Generator().manual_seed(seed)
    for n, p in model.named_parameters():
        if p.requires_grad:
            scale = 0.2 if "lora_" in n else 0.3
            p.data.copy_(scale * torch.randn(p.shape, generator=generator))


def adapter_names(model):
    """PEFT's in-memory parameter name -> its name in adapter_model.safetensors."""
    saved = get_peft_model_state_dict(model)
    names = {}
    for n, p in model.named_parameters():
        if p.requires_grad:
            plain = n.replace(".default", "").replace(".modules_to_save", "")
            assert plain in saved and saved[plain].shape == p.shape, (n, list(saved))
            names[n] = plain
    assert sorted(names.values()) == sorted(saved)
    return names


def save_adapter(model, name):
    """PEFT's own save_pretrained; the base is named relative to the adapter's folder."""
    folder = OUT / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes a set, whose order changes from run to run.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def relative_base(model, name):
    model.config._name_or_path = model.name_or_path = f"../../models/{name}"
    return model


def bt_lora(name):
    seed = SPECS[name][0]
    model = get_peft_model(relative_base(reward_model(name, seed + 100), name), lora_config(name, TaskType.SEQ_CLS))
    randomise_adapter(model, seed + 300)
    save_adapter(model, name)
    saved = load_file(OUT / "adapters" / name / "adapter_model.safetensors")
    assert HEAD_NAME in saved
    pairs = make_pairs(seed + 200, model.config.vocab_size)
    names = adapter_names(model)
    to_double(model)
    with torch.no_grad():
        values, losses = reward_loss(model, pairs)
    reloaded = AutoModelForSequenceClassification.from_pretrained(MODELS / name, num_labels=1, dtype=torch.float32)
    reloaded = PeftModel.from_pretrained(reloaded, OUT / "adapters" / name).eval()
    with torch.no_grad():
        again = reward_loss(reloaded, pairs)[0]
    assert (again[0] - values[0]).abs().max() < 1e-4 and (again[1] - values[1]).abs().max() < 1e-4
    gradients = gradients_of(model, lambda: reward_loss(model, pairs)[1].mean())
    save_gradients(f"{name}-lora", {names[n]: g for n, g in gradients.items()})
    more = {"adapter": f"adapters/{name}", "r": R, "alpha": ALPHA}
    bt_json(f"{name}-lora", f"models/{name}", pairs, values, losses, more)


def policy_rows(seed, vocab):
    """Two sequences of unequal lengths with a weight a completion token (positive, negative, one zero)."""
    draw = random.Random(seed)
    rows = []
    for prompt, completion in ((5, 8), (2, 4)):
        ids = ids_of(draw, vocab, prompt + completion - 1) + [PAD_ID]
        weights = [round(draw.uniform(-1, 1), 3) for _ in range(completion)]
        weights[1] = 0.0
        rows.append({"ids": ids, "prompt_len": prompt, "weights": weights})
    return rows


def policy_loss(model, rows, temperature):
    """-sum over sequences and completion tokens of w_t log p_t, of logits / temperature."""
    logps = token_logps(model, [r["ids"] for r in rows], PAD_ID, temperature)
    total = 0.0
    for r, lp in zip(rows, logps):
        total = total - (torch.tensor(r["weights"], dtype=lp.dtype) * lp[r["prompt_len"] - 1 :]).sum()
    return total


def policy_values(model, rows, prefix):
    """Loss and completion log-probs at both temperatures, keyed for the JSON."""
    out = {}
    with torch.no_grad():
        for key, temperature in (("t1", 1.0), ("t07", TEMPERATURE)):
            logps = token_logps(model, [r["ids"] for r in rows], PAD_ID, temperature)
            out[f"{prefix}_{key}"] = {
                "temperature": temperature,
                "loss": policy_loss(model, rows, temperature).item(),
                "completion_token_logps": [lp[r["prompt_len"] - 1 :].tolist() for r, lp in zip(rows, logps)],
            }
    return out


def policy_gradient(name):
    seed = SPECS[name][0]
    rows = policy_rows(seed + 400, SPECS[name][2].vocab_size)
    model = to_double(AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32))
    data = {
        "model": f"models/{name}",
        "adapter": f"adapters/{name}-policy",
        "dtype": "float32 weights, float64 arithmetic",
        "made_with": made_with(),
        "sequences": rows,
        **policy_values(model, rows, "full"),
    }
    save_gradients(f"{name}-pg-t07", gradients_of(model, lambda: policy_loss(model, rows, TEMPERATURE)))
    base = relative_base(AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32), name)
    lora = get_peft_model(base, lora_config(name, TaskType.CAUSAL_LM))
    randomise_adapter(lora, seed + 500)
    save_adapter(lora, f"{name}-policy")
    names = adapter_names(lora)
    to_double(lora)
    data.update(policy_values(lora, rows, "lora"))
    for key, temperature in (("pg-lora", 1.0), ("pg-lora-t07", TEMPERATURE)):
        gradients = gradients_of(lora, lambda: policy_loss(lora, rows, temperature))
        save_gradients(f"{name}-{key}", {names[n]: g for n, g in gradients.items()})
    write_json(OUT / f"{name}-pg.json", data)


def main():
    for name in REWARD_NAMES:
        bt_full(name)
        bt_lora(name)
    for name in POLICY_NAMES:
        policy_gradient(name)


if __name__ == "__main__":
    main()

"""Tiny random models and their log-prob and reward goldens.

    python scripts/goldens/tiny.py

writes crates/gainsay-lm/tests/goldens/models/* and crates/gainsay-lm/tests/goldens/NAME.json.
Needs the packages pinned in requirements.txt; runs in seconds.
"""

import json
import random
import shutil

import torch
import transformers
from common import OUT, backbone, made_with, pad, rewards, to_double, token_logps, write_json
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

MODELS = OUT / "models"
PAD_ID = 2

LLAMA_LIKE = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=2,
)
NEOX = dict(
    vocab_size=53,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
    hidden_act="gelu",
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=2,
    tie_word_embeddings=False,
)


def rope(theta, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


# name -> (seed, model class, configuration, older spelling of config.json, shards)
SPECS = {
    "llama": (11, LlamaForCausalLM, LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=True, rope_parameters=rope(1e4)), False, 1),
    "llama-sharded": (
        12,
        LlamaForCausalLM,
        LlamaConfig(
            **{**LLAMA_LIKE, "num_hidden_layers": 1},
            tie_word_embeddings=False,
            rms_norm_eps=1e-5,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        True,
        2,
    ),
    "qwen2": (13, Qwen2ForCausalLM, Qwen2Config(**LLAMA_LIKE, tie_word_embeddings=False, rope_parameters=rope(1e6)), True, 1),
    "qwen3": (
        14,
        Qwen3ForCausalLM,
        Qwen3Config(**LLAMA_LIKE, head_dim=12, tie_word_embeddings=True, rope_parameters=rope(1e6)),
        False,
        1,
    ),
    "gpt-neox": (15, GPTNeoXForCausalLM, GPTNeoXConfig(**NEOX, use_parallel_residual=True), False, 1),
    "gpt-neox-serial": (16, GPTNeoXForCausalLM, GPTNeoXConfig(**{**NEOX, "num_hidden_layers": 1}, use_parallel_residual=False), True, 1),
}


def randomise(model, seed):
    """Random everything, norm weights and biases included, so that a mistake anywhere shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "embed" in name:
            value = 0.6 * noise
        else:
            value = 0.3 * noise
        p.data.copy_(value)


def older_config(folder):
    """Rewrite config.json with the keys of transformers 4, which most published folders use."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    theta = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = int(theta)
        config["rotary_pct"] = parameters.pop("partial_rotary_factor")
    else:
        config["rope_theta"] = theta
        config["rope_scaling"] = None if kind == "default" else {**parameters, "rope_type": kind}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def shard(folder, count):
    """Split model.safetensors into `count` files and an index, in the layout of large models."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    step = -(-len(names) // count)
    index = {"metadata": {"total_size": sum(t.numel() * 4 for t in tensors.values())}, "weight_map": {}}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = names[i * step : (i + 1) * step]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "model.safetensors").unlink()


def make_model(name):
    seed, cls, config, older, shards = SPECS[name]
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    model = cls(config)
    randomise(model, seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if older:
        older_config(folder)
    if shards > 1:
        shard(folder, shards)


def sequences(seed, vocab):
    """Unequal lengths from 1 to 24; some end in, or contain, the pad id as a real token."""
    draw = random.Random(seed)
    rows = []
    for length, prompt in [(9, 4), (1, 1), (24, 10), (2, 1), (17, 16), (6, 6), (13, 5)]:
        ids = [draw.randrange(3, vocab) for _ in range(length)]
        if length in (9, 13):
            ids[-1] = PAD_ID
        if length in (24, 13):
            ids[length // 2] = PAD_ID
        rows.append((ids, prompt))
    return rows


def reward_model(name, seed):
    """The sequence-classification model of the same backbone with a random score head."""
    model = AutoModelForSequenceClassification.from_pretrained(MODELS / name, num_labels=1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    model.score.weight.data.copy_(0.3 * torch.randn(model.score.weight.shape, generator=generator))
    return model


def goldens(name):
    seed = SPECS[name][0]
    folder = MODELS / name
    single = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = sequences(seed, single.config.vocab_size)
    ids = [r[0] for r in rows]
    with torch.no_grad():
        single_logps = token_logps(single, ids, PAD_ID)
        model = to_double(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        logps = token_logps(model, ids, PAD_ID)
        hidden = backbone(model)(input_ids=torch.tensor([ids[0]]), use_cache=False).last_hidden_state[0]
        logits = model(input_ids=torch.tensor([ids[0]]), use_cache=False).logits[0, -1]
        score = reward_model(name, seed + 100)
        single_rewards = rewards(score.eval(), ids, PAD_ID)
        weight = score.score.weight[0].tolist()
        values = rewards(to_double(score), ids, PAD_ID)
        alone = torch.cat([rewards(score, [s], PAD_ID) for s in ids])
    assert (values - alone).abs().max() < 1e-10, "a padded row differs from the same row alone"
    assert (values - single_rewards).abs().max() < 1e-4, "float64 patch changed the model"
    worst = max([(a - b).abs().max().item() for a, b in zip(logps, single_logps) if len(a)])
    assert worst < 1e-4, f"float64 patch changed the model: {worst}"
    batch, mask = pad(ids, PAD_ID)
    out = []
    for (s, prompt), lp in zip(rows, logps):
        completion = lp[prompt - 1 :]
        out.append(
            {
                "ids": s,
                "prompt_len": prompt,
                "token_logps": lp.tolist(),
                "completion_tokens": len(completion),
                "completion_logp": completion.sum().item(),
                "completion_mean_logp": completion.mean().item() if len(completion) else None,
            }
        )
    data = {
        "model": f"models/{name}",
        "dtype": "float32 weights, float64 arithmetic",
        "made_with": made_with(),
        "sequences": out,
        "first_hidden": hidden[-1].tolist(),
        "first_logits": logits.tolist(),
        "reward": {
            "pad_id": PAD_ID,
            "score_weight": weight,
            "batch": batch.tolist(),
            "mask": mask.tolist(),
            "rewards": values.tolist(),
        },
    }
    write_json(OUT / f"{name}.json", data)


def reward_folder():
    """A whole sequence-classification folder as transformers saves it, with its rewards."""
    name, seed = "llama-reward", 17
    config = LlamaConfig(
        **{**LLAMA_LIKE, "num_hidden_layers": 1}, num_labels=1, tie_word_embeddings=False, rope_parameters=rope(1e4)
    )
    model = LlamaForSequenceClassification(config)
    randomise(model, seed)
    shutil.rmtree(MODELS / name, ignore_errors=True)
    model.save_pretrained(MODELS / name)
    ids = [s for s, _ in sequences(seed, config.vocab_size)]
    with torch.no_grad():
        single = rewards(model.eval(), ids, PAD_ID)
        values = rewards(to_double(model), ids, PAD_ID)
    assert (values - single).abs().max() < 1e-4
    data = {
        "model": f"models/{name}",
        "dtype": "float32 weights, float64 arithmetic",
        "made_with": made_with(),
        "sequences": [{"ids": s, "reward": r} for s, r in zip(ids, values.tolist())],
    }
    write_json(OUT / f"{name}.json", data)


def main():
    for name in SPECS:
        make_model(name)
        goldens(name)
    reward_folder()


if __name__ == "__main__":
    main()

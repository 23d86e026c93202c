//! Names of parameters in Hugging Face and PEFT files, in both directions.

use crate::config::Family;
use crate::model::{ParamId, Part, Proj};

fn part(part: Part) -> &'static str {
    match part {
        Part::Weight => "weight",
        Part::Bias => "bias",
    }
}

/// Module path of a projection within its layer. A projection that the family lacks gets the
/// name that its layers would give it.
fn proj_module(family: Family, proj: Proj) -> &'static str {
    match (family, proj) {
        (Family::GptNeoX, Proj::Qkv) => "attention.query_key_value",
        (Family::GptNeoX, Proj::O) => "attention.dense",
        (Family::GptNeoX, Proj::Up) => "mlp.dense_h_to_4h",
        (Family::GptNeoX, Proj::Down) => "mlp.dense_4h_to_h",
        (_, Proj::Q) => "self_attn.q_proj",
        (_, Proj::K) => "self_attn.k_proj",
        (_, Proj::V) => "self_attn.v_proj",
        (_, Proj::Qkv) => "self_attn.qkv_proj",
        (_, Proj::O) => "self_attn.o_proj",
        (_, Proj::Gate) => "mlp.gate_proj",
        (_, Proj::Up) => "mlp.up_proj",
        (_, Proj::Down) => "mlp.down_proj",
    }
}

/// Name by which PEFT's `target_modules` calls a projection: the module path's last component.
pub fn module_name(family: Family, proj: Proj) -> &'static str {
    let path = proj_module(family, proj);
    path.rsplit('.').next().unwrap_or(path)
}

/// The projections that a family's layers have, in [`Proj::ALL`]'s order.
pub fn projections(family: Family) -> &'static [Proj] {
    match family {
        Family::GptNeoX => &[Proj::Qkv, Proj::O, Proj::Up, Proj::Down],
        Family::Llama | Family::Qwen2 | Family::Qwen3 => {
            &[Proj::Q, Proj::K, Proj::V, Proj::O, Proj::Gate, Proj::Up, Proj::Down]
        }
    }
}

/// Prefix of the backbone inside a causal or sequence-classification model.
pub(crate) fn prefix(family: Family) -> &'static str {
    match family {
        Family::GptNeoX => "gpt_neox",
        Family::Llama | Family::Qwen2 | Family::Qwen3 => "model",
    }
}

/// Name of a parameter in a Hugging Face checkpoint, for example
/// `model.layers.0.self_attn.q_proj.weight`; for LoRA's factors, PEFT's name without the leading
/// `base_model.model.`.
pub fn hf_name(family: Family, id: ParamId) -> String {
    let p = prefix(family);
    let neox = family == Family::GptNeoX;
    match id {
        ParamId::Embed => format!("{p}.{}.weight", if neox { "embed_in" } else { "embed_tokens" }),
        ParamId::AttnNorm(l, x) => format!("{p}.layers.{l}.input_layernorm.{}", part(x)),
        ParamId::MlpNorm(l, x) => format!("{p}.layers.{l}.post_attention_layernorm.{}", part(x)),
        ParamId::QNorm(l) => format!("{p}.layers.{l}.self_attn.q_norm.weight"),
        ParamId::KNorm(l) => format!("{p}.layers.{l}.self_attn.k_norm.weight"),
        ParamId::Linear(l, proj, x) => {
            format!("{p}.layers.{l}.{}.{}", proj_module(family, proj), part(x))
        }
        ParamId::LoraA(l, proj) => {
            format!("{p}.layers.{l}.{}.lora_A.weight", proj_module(family, proj))
        }
        ParamId::LoraB(l, proj) => {
            format!("{p}.layers.{l}.{}.lora_B.weight", proj_module(family, proj))
        }
        ParamId::FinalNorm(x) => format!("{p}.{}.{}", if neox { "final_layer_norm" } else { "norm" }, part(x)),
        ParamId::LmHead => format!("{}.weight", if neox { "embed_out" } else { "lm_head" }),
        ParamId::Head => "score.weight".to_owned(),
    }
}

/// Name of a parameter in PEFT's `adapter_model.safetensors`, for example
/// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`; the head is
/// `base_model.model.score.weight`.
pub fn peft_name(family: Family, id: ParamId) -> String {
    format!("base_model.model.{}", hf_name(family, id))
}

/// The parameter that a checkpoint calls `name`. Understands what [`hf_name`] and [`peft_name`]
/// write, the backbone's names without its prefix (as `AutoModel` saves them), and PEFT's older
/// spelling of a saved head (`score.modules_to_save.weight`). `None` for anything else.
pub fn parse(family: Family, name: &str) -> Option<ParamId> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    match name {
        "score.weight" | "score.modules_to_save.weight" | "score.modules_to_save.default.weight" => {
            return Some(ParamId::Head);
        }
        "lm_head.weight" | "embed_out.weight" => return Some(ParamId::LmHead),
        _ => {}
    }
    let inner = name.strip_prefix(prefix(family)).and_then(|n| n.strip_prefix('.')).unwrap_or(name);
    if let Some(rest) = inner.strip_prefix("layers.") {
        let (layer, rest) = rest.split_once('.')?;
        return parse_in_layer(family, layer.parse().ok()?, rest);
    }
    let neox = family == Family::GptNeoX;
    let (module, last) = inner.rsplit_once('.')?;
    match (module, parse_part(last)?) {
        ("embed_tokens", Part::Weight) if !neox => Some(ParamId::Embed),
        ("embed_in", Part::Weight) if neox => Some(ParamId::Embed),
        ("norm", x) if !neox => Some(ParamId::FinalNorm(x)),
        ("final_layer_norm", x) if neox => Some(ParamId::FinalNorm(x)),
        _ => None,
    }
}

fn parse_part(name: &str) -> Option<Part> {
    match name {
        "weight" => Some(Part::Weight),
        "bias" => Some(Part::Bias),
        _ => None,
    }
}

fn parse_in_layer(family: Family, layer: usize, name: &str) -> Option<ParamId> {
    let (module, last) = name.rsplit_once('.')?;
    let part = parse_part(last)?;
    let proj_of = |path: &str| projections(family).iter().copied().find(|&p| proj_module(family, p) == path);
    match module {
        "input_layernorm" => return Some(ParamId::AttnNorm(layer, part)),
        "post_attention_layernorm" => return Some(ParamId::MlpNorm(layer, part)),
        "self_attn.q_norm" if part == Part::Weight => return Some(ParamId::QNorm(layer)),
        "self_attn.k_norm" if part == Part::Weight => return Some(ParamId::KNorm(layer)),
        _ => {}
    }
    // PEFT leaves the adapter's own name out of saved files; a `.default` is tolerated.
    let module = module.strip_suffix(".default").unwrap_or(module);
    if let Some(path) = module.strip_suffix(".lora_A") {
        return proj_of(path).map(|p| ParamId::LoraA(layer, p));
    }
    if let Some(path) = module.strip_suffix(".lora_B") {
        return proj_of(path).map(|p| ParamId::LoraB(layer, p));
    }
    proj_of(module).map(|p| ParamId::Linear(layer, p, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [Family; 4] = [Family::Llama, Family::Qwen2, Family::Qwen3, Family::GptNeoX];

    fn all_ids(family: Family) -> Vec<ParamId> {
        let mut ids = vec![ParamId::Embed, ParamId::FinalNorm(Part::Weight), ParamId::FinalNorm(Part::Bias)];
        ids.extend([ParamId::LmHead, ParamId::Head]);
        for l in [0, 11] {
            for x in [Part::Weight, Part::Bias] {
                ids.extend([ParamId::AttnNorm(l, x), ParamId::MlpNorm(l, x)]);
                ids.extend(projections(family).iter().map(|&p| ParamId::Linear(l, p, x)));
            }
            ids.extend(projections(family).iter().flat_map(|&p| [ParamId::LoraA(l, p), ParamId::LoraB(l, p)]));
            ids.extend([ParamId::QNorm(l), ParamId::KNorm(l)]);
        }
        ids
    }

    #[test]
    fn parsing_inverts_naming_with_and_without_prefixes() {
        for family in FAMILIES {
            for id in all_ids(family) {
                let name = hf_name(family, id);
                assert_eq!(parse(family, &name), Some(id), "{name}");
                assert_eq!(parse(family, &peft_name(family, id)), Some(id), "{name}");
                let bare = name.strip_prefix(&format!("{}.", prefix(family))).unwrap_or(&name);
                assert_eq!(parse(family, bare), Some(id), "{bare}");
            }
        }
    }

    #[test]
    fn names_are_those_of_transformers_and_peft() {
        let q = ParamId::Linear(3, Proj::Q, Part::Bias);
        assert_eq!(hf_name(Family::Qwen2, q), "model.layers.3.self_attn.q_proj.bias");
        let qkv = ParamId::Linear(0, Proj::Qkv, Part::Weight);
        assert_eq!(hf_name(Family::GptNeoX, qkv), "gpt_neox.layers.0.attention.query_key_value.weight");
        assert_eq!(
            peft_name(Family::Llama, ParamId::LoraA(0, Proj::V)),
            "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"
        );
        assert_eq!(peft_name(Family::GptNeoX, ParamId::Head), "base_model.model.score.weight");
        assert_eq!(module_name(Family::GptNeoX, Proj::Up), "dense_h_to_4h");
    }

    #[test]
    fn strangers_are_not_parsed() {
        for name in ["", "model", "model.layers.x.mlp.up_proj.weight", "model.layers.0.mlp.experts.0.weight", "v_head"]
        {
            assert_eq!(parse(Family::Llama, name), None, "{name}");
        }
        assert_eq!(parse(Family::GptNeoX, "gpt_neox.layers.0.self_attn.q_proj.weight"), None);
        assert_eq!(parse(Family::Llama, "model.embed_in.weight"), None);
    }
}

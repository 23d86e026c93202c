//! Sampling.

use super::params::Model;

/// One sampled completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// The tokens, with the end token where it was drawn.
    pub token_ids: Vec<u32>,
    /// Log-probs of these tokens in nats, at temperature 1 before any cut.
    pub token_logps: Vec<f32>,
    /// True when an end token ended it, false at the length limit.
    pub stopped: bool,
}

/// How to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct GenOptions {
    /// Divides the logits; 0 picks the most probable token.
    pub temperature: f64,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of most probable tokens whose probability reaches this; 1 keeps all.
    pub top_p: f64,
    /// Longest completion.
    pub max_new_tokens: usize,
    /// Tokens that end a completion.
    pub end_tokens: Vec<u32>,
    /// Never stop at an end token.
    pub ignore_eos: bool,
    /// Completions that are decoded together.
    pub max_rows: usize,
}

/// Samples `n[i]` completions of `prompts[i]`. `draw(request, completion, token)` is the uniform
/// number in [0, 1) of that position; `on_token` hears how many tokens were added.
pub fn generate(
    model: &Model,
    prompts: &[&[u32]],
    n: &[usize],
    opts: &GenOptions,
    draw: &(dyn Fn(usize, usize, usize) -> f64 + Sync),
    on_token: &mut dyn FnMut(usize),
) -> Vec<Vec<Generated>> {
    let _ = (model, prompts, n, opts, draw, on_token);
    unimplemented!()
}

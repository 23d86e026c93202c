//! prompts -> rollouts: N completions a prompt, each token with its log-prob.

use std::path::Path;

use gainsay_core::engine::{Decoding, SampleRequest, Sampler};
use gainsay_core::record::PromptRecord;
use serde_json::json;

use super::units::Units;
use crate::error::{Error, Result};
use crate::models;
use crate::progress::Figures;

/// Rows that are decoded together, about: a unit holds as many prompts as fill them.
const ROWS_PER_UNIT: usize = 64;

/// Samples `n` completions for every prompt of a file.
///
/// Every draw's key is (seed, purpose, round, step, prompt id, completion, token), so a
/// completion depends neither on the other prompts nor on when it was sampled. Completions that
/// the file has already are replaced.
///
/// # Errors
/// `n` = 0, a temperature below 0, bad records, what the sampler reports, Ctrl-C.
pub fn sample(policy: &dyn Sampler, prompts: &Path, out: &Path, n: usize, decoding: &Decoding) -> Result<Figures> {
    check(n, decoding)?;
    let identity = policy.identity();
    let units = Units {
        stage: "sample",
        input: prompts,
        out,
        size: (models::at_a_time() * ROWS_PER_UNIT / n).max(1),
        fingerprint: format!("sample {identity} n={n} {decoding:?}"),
    };
    units.run(|records| {
        let requests: Vec<SampleRequest> =
            records.iter().map(|r| SampleRequest { id: r.id.clone(), prompt: r.prompt.clone(), n }).collect();
        let sampled = policy.sample(&requests, decoding)?;
        let mut tokens = 0;
        let mut done = Vec::with_capacity(records.len());
        for (record, completions) in records.into_iter().zip(sampled) {
            tokens += completions.iter().map(|c| u64::from(c.n_tokens.unwrap_or(0))).sum::<u64>();
            let mut record = PromptRecord { completions, kendall_tau_distance: None, tau_b: None, ..record };
            record.meta.insert("logp_policy".into(), json!(identity));
            record.meta.insert("sampling".into(), describe(&identity, decoding));
            done.push(record);
        }
        Ok((done, tokens))
    })
}

/// How the completions came about, for `meta.sampling`.
fn describe(identity: &str, decoding: &Decoding) -> serde_json::Value {
    json!({
        "policy": identity,
        "temperature": decoding.temperature,
        "top_k": decoding.top_k,
        "top_p": decoding.top_p,
        "max_new_tokens": decoding.max_new_tokens,
        "seed": decoding.seed,
        "purpose": decoding.purpose,
        "round": decoding.round,
    })
}

fn check(n: usize, decoding: &Decoding) -> Result<()> {
    let fault = if n == 0 {
        "-n is 0; ask for at least one completion a prompt"
    } else if decoding.max_new_tokens == 0 {
        "--max-new-tokens is 0; it must be at least 1"
    } else if !(decoding.temperature >= 0.0 && decoding.temperature.is_finite()) {
        "--temperature must be a number from 0 (greedy) up"
    } else if !(decoding.top_p > 0.0 && decoding.top_p <= 1.0) {
        "--top-p must be above 0 and at most 1"
    } else {
        return Ok(());
    };
    Err(Error::Input(fault.into()))
}

//! Sampling: against the full forward pass, on a uniform model, and independence of batches and
//! threads.

use std::path::PathBuf;
use std::sync::Arc;

use gainsay_core::rng::Key;
use gainsay_kernels::pool::with_threads;
use gainsay_lm::model::{
    Adapter, AdapterConfig, Backbone, GenOptions, Generated, Grads, Keep, Mat, Model, Packed, ParamId, Precision, Proj,
    Trainable, generate,
};
use gainsay_lm::sequence::Sequence;
use gainsay_lm::weights::hf;

fn tiny(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name);
    Model::new(Arc::new(hf::read(&path).unwrap().backbone), None)
}

const MODELS: [&str; 6] = ["llama", "llama-sharded", "qwen2", "qwen3", "gpt-neox", "gpt-neox-serial"];

fn options(max_new_tokens: usize, max_rows: usize) -> GenOptions {
    GenOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        max_new_tokens,
        end_tokens: Vec::new(),
        ignore_eos: false,
        max_rows,
    }
}

fn draw(request: usize, completion: usize, token: usize) -> f64 {
    Key::new(request as u64, "test").completion(completion).uniform_at(token as u64)
}

fn run(model: &Model, prompts: &[&[u32]], n: &[usize], opts: &GenOptions) -> Vec<Vec<Generated>> {
    let mut heard = 0;
    let out = generate(model, prompts, n, opts, &draw, &mut |tokens| heard += tokens);
    assert_eq!(heard, out.iter().flatten().map(|g| g.token_ids.len()).sum::<usize>());
    assert!(out.iter().flatten().all(|g| g.token_ids.len() == g.token_logps.len()));
    out
}

/// Log-probs of a completion by the full forward pass.
fn full_logps(model: &Model, prompt: &[u32], completion: &[u32]) -> Vec<f32> {
    let ids = [prompt, completion].concat();
    let hidden = model.hidden(&Packed::new(&[&ids]));
    let rows: Vec<usize> = (prompt.len() - 1..ids.len() - 1).collect();
    model.token_logps(&hidden, &rows, completion, 1.0)
}

const PROMPTS: [&[u32]; 4] =
    [&[5, 9, 2, 7, 7], &[1], &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], &[30, 31, 2]];

#[test]
fn log_probs_agree_with_the_full_forward_pass() {
    for name in MODELS {
        let model = tiny(name);
        // 90 tokens: the cache grows on the way.
        let out = run(&model, &PROMPTS, &[2, 1, 0, 3], &options(90, 4));
        assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 0, 3]);
        for (prompt, generated) in PROMPTS.iter().zip(&out) {
            for g in generated {
                assert_eq!((g.token_ids.len(), g.stopped), (90, false));
                for (a, b) in g.token_logps.iter().zip(full_logps(&model, prompt, &g.token_ids)) {
                    assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn greedy_takes_the_most_probable_token() {
    let model = tiny("qwen3");
    let opts = GenOptions { temperature: 0.0, ..options(6, 8) };
    let out = run(&model, &PROMPTS, &[1, 1, 1, 1], &opts);
    for (prompt, generated) in PROMPTS.iter().zip(&out) {
        let mut ids = prompt.to_vec();
        for token in &generated[0].token_ids {
            let hidden = model.hidden(&Packed::new(&[&ids]));
            let vocab = model.backbone.config.vocab_size as u32;
            let all: Vec<u32> = (0..vocab).collect();
            let logps = model.token_logps(&hidden, &vec![ids.len() - 1; all.len()], &all, 1.0);
            let best = (0..logps.len()).max_by(|a, b| logps[*a].total_cmp(&logps[*b])).unwrap();
            assert_eq!(*token, best as u32);
            ids.push(*token);
        }
    }
}

#[test]
fn completions_depend_on_no_batch_mate_and_no_thread() {
    for name in ["llama", "gpt-neox"] {
        let model = tiny(name);
        let whole = run(&model, &PROMPTS, &[5, 1, 3, 4], &options(20, 64));
        for max_rows in [1, 2, 3, 7] {
            assert_eq!(run(&model, &PROMPTS, &[5, 1, 3, 4], &options(20, max_rows)), whole, "{name}, {max_rows} rows");
        }
        for threads in [1, 3] {
            let out = with_threads(threads, || run(&model, &PROMPTS, &[5, 1, 3, 4], &options(20, 6)));
            assert_eq!(out, whole, "{name}, {threads} threads");
        }
    }
}

#[test]
fn hidden_rows_and_log_probs_depend_on_no_batch_mate_and_no_thread() {
    for name in MODELS {
        let model = tiny(name);
        let long: Vec<u32> = (0..75).map(|i| i % 40).collect();
        let sequences = [PROMPTS[0], &long, PROMPTS[2], &long[3..40]];
        let batch = Packed::new(&sequences);
        let rows: Vec<usize> = (0..batch.tokens.len()).collect();
        let whole = model.hidden(&batch);
        let logps = model.token_logps(&whole, &rows, &batch.tokens, 0.7);
        for threads in [1, 2, 5] {
            for (i, sequence) in sequences.iter().enumerate() {
                let alone = Packed::new(&[sequence]);
                let range = batch.range(i);
                let (hidden, logp) = with_threads(threads, || {
                    let hidden = model.hidden(&alone);
                    let logp = model.token_logps(&hidden, &rows[..range.len()], sequence, 0.7);
                    (hidden, logp)
                });
                let width = hidden.cols;
                assert_eq!(hidden.data, whole.data[range.start * width..range.end * width], "{name}, {threads}");
                assert_eq!(logp, logps[range], "{name}, {threads} threads");
            }
        }
    }
}

/// Sequences of a few prompts, each with some completions, one of them empty.
fn families() -> Vec<Sequence> {
    let lengths = [(9, vec![4, 40, 0, 7]), (35, vec![33, 1]), (1, vec![12]), (70, vec![5, 5, 90])];
    let token = |i: usize| (i * 37 % 41) as u32;
    lengths
        .iter()
        .enumerate()
        .flat_map(|(p, (prompt_len, completions))| {
            completions.iter().enumerate().map(move |(c, n)| Sequence {
                tokens: (0..prompt_len + n)
                    .map(|i| token(if i < *prompt_len { i + p } else { i + 7 * c + p }))
                    .collect(),
                prompt_len: *prompt_len,
                truncated: false,
            })
        })
        .collect()
}

#[test]
fn a_shared_prompt_changes_no_bit_in_either_precision() {
    for (name, precision) in MODELS.iter().flat_map(|name| [(name, Precision::F32), (name, Precision::Bf16)]) {
        let mut model = tiny(name);
        model.backbone_mut().set_precision(precision);
        let sequences = families();
        let batch = Packed::sharing(&sequences);
        assert!(batch.tokens.len() < sequences.iter().map(|s| s.tokens.len()).sum());
        let hidden = model.hidden(&batch);
        let (rows, targets) = batch.predictions();
        let logps = model.token_logps(&hidden, &rows, &targets, 1.0);
        let mut at = 0;
        for threads in [1, 2, 5] {
            assert_eq!(with_threads(threads, || model.hidden(&batch)), hidden, "{name}, {threads} threads");
        }
        for (i, sequence) in sequences.iter().enumerate() {
            let alone = model.hidden(&Packed::new(&[&sequence.tokens]));
            for j in 0..sequence.tokens.len() {
                assert_eq!(alone.row(j), hidden.row(batch.row(i, j)), "{name} {precision:?}: token {j} of {i}");
            }
            let completion = sequence.completion();
            let rows: Vec<usize> = (sequence.prompt_len - 1..sequence.tokens.len() - 1).collect();
            let own = model.token_logps(&alone, &rows, completion, 1.0);
            assert_eq!(own, logps[at..at + completion.len()], "{name} {precision:?}");
            at += completion.len();
        }
    }
}

#[test]
fn log_probs_and_rewards_are_the_same_bits_in_any_mix() {
    for name in ["llama", "qwen3", "gpt-neox"] {
        let mut model = tiny(name);
        model.backbone_mut().set_precision(Precision::Bf16);
        let sequences = families();
        let head: Vec<f32> = (0..model.backbone.config.hidden_size).map(|i| (i % 7) as f32 - 3.0).collect();
        let judge = |mix: &[usize]| -> Vec<(Vec<f32>, f64)> {
            let mix: Vec<Sequence> = mix.iter().map(|i| sequences[*i].clone()).collect();
            let batch = Packed::sharing(&mix);
            let hidden = model.hidden(&batch);
            let (rows, targets) = batch.predictions();
            let mut logps = model.token_logps(&hidden, &rows, &targets, 1.0).into_iter();
            let reward = |row: usize| hidden.row(row).iter().zip(&head).map(|(h, w)| f64::from(*h * *w)).sum();
            let rewards = batch.last_rows().into_iter().map(reward);
            mix.iter().zip(rewards).map(|(s, r)| (logps.by_ref().take(s.completion().len()).collect(), r)).collect()
        };
        let alone: Vec<_> = (0..sequences.len()).map(|i| with_threads(1, || judge(&[i])).remove(0)).collect();
        let mut stream = Key::new(3, "mixes").stream();
        for _ in 0..40 {
            let mix: Vec<usize> = (0..1 + stream.index(12)).map(|_| stream.index(sequences.len())).collect();
            let found = with_threads(1 + stream.index(2), || judge(&mix));
            for (i, found) in mix.iter().zip(found) {
                assert_eq!(found, alone[*i], "{name}: sequence {i} in {mix:?}");
            }
        }
    }
}

#[test]
fn rows_that_models_have_in_common_change_no_bit() {
    for name in ["llama", "gpt-neox"] {
        let plain = tiny(name);
        let last = plain.backbone.layers.len() - 1;
        let targets = vec![if name == "llama" { Proj::Q } else { Proj::Qkv }];
        let config = AdapterConfig { rank: 2, alpha: 4.0, dropout: 0.0, targets, layers: Some(vec![last]) };
        let mut adapter = Adapter::new(&config, &plain.backbone, 1);
        adapter.pairs.values_mut().for_each(|pair| pair.b.data.fill(0.1));
        let adapted = Model::new(plain.backbone.clone(), Some(adapter.clone()));
        assert_eq!((plain.first_adapted(), adapted.first_adapted()), (last + 1, last));
        let sequences = families();
        let batch = Packed::sharing(&sequences);
        let gradients = |model: &Model| {
            let mut grads = Grads::zeros(model, &Trainable::Lora, false);
            let tape = model.forward_tape(&batch, Keep::Activations, &grads);
            let d = Mat { data: vec![0.01; tape.hidden.data.len()], ..tape.hidden.clone() };
            model.backward(tape, d, &mut grads);
            grads.by_id
        };
        let expected = (plain.hidden(&batch), adapted.hidden(&batch), gradients(&adapted));
        assert_ne!(expected.0, expected.1);
        plain.backbone.trunk.meet_at(last);
        for _ in 0..2 {
            // The second time nothing below the adapter is computed.
            let found = (plain.hidden(&batch), adapted.hidden(&batch), gradients(&adapted));
            assert!(found == expected, "{name}");
        }
        // Parts of the batch are found too, in any order.
        let part = Packed::sharing(&sequences[4..]);
        assert_eq!(adapted.hidden(&part), tiny_with(name, &adapter).hidden(&part));
        // Changed weights forget.
        let mut changed = Model::new(plain.backbone.clone(), None);
        changed.backbone_mut().param_mut(ParamId::Embed).unwrap().data.iter_mut().for_each(|w| *w *= 2.0);
        assert_ne!(changed.hidden(&batch), expected.0);
    }
}

fn tiny_with(name: &str, adapter: &Adapter) -> Model {
    Model::new(tiny(name).backbone, Some(adapter.clone()))
}

#[test]
fn in_bf16_too_samples_depend_on_no_batch_mate_and_no_thread() {
    let mut model = tiny("llama");
    model.backbone_mut().set_precision(Precision::Bf16);
    let whole = run(&model, &PROMPTS, &[5, 1, 3, 4], &options(20, 64));
    for (max_rows, threads) in [(1, 1), (3, 2), (7, 1)] {
        let out = with_threads(threads, || run(&model, &PROMPTS, &[5, 1, 3, 4], &options(20, max_rows)));
        assert_eq!(out, whole, "{max_rows} rows, {threads} threads");
    }
    // Decoding and scoring cut attention differently: their log-probs agree nearly.
    for (prompt, generated) in PROMPTS.iter().zip(&whole) {
        for g in generated {
            for (a, b) in g.token_logps.iter().zip(full_logps(&model, prompt, &g.token_ids)) {
                assert!((a - b).abs() < 2e-2, "{a} and {b}");
            }
        }
    }
}

/// The tiny Llama with all weights zero: every token is equally likely.
fn uniform() -> Model {
    let mut backbone: Backbone = (*tiny("llama").backbone).clone();
    let ids: Vec<_> = backbone.params().iter().map(|(id, _)| *id).collect();
    ids.into_iter().for_each(|id| backbone.param_mut(id).unwrap().data.fill(0.0));
    Model::new(Arc::new(backbone), None)
}

#[test]
fn a_uniform_model_samples_uniformly() {
    let model = uniform();
    let vocab = model.backbone.config.vocab_size;
    let out = run(&model, &[&[1, 2, 3]], &[600], &options(10, 100));
    let mut counts = vec![0f64; vocab];
    for g in &out[0] {
        assert!(g.token_logps.iter().all(|l| (l + (vocab as f32).ln()).abs() < 1e-5));
        g.token_ids.iter().for_each(|t| counts[*t as usize] += 1.0);
    }
    let expected = 6000.0 / vocab as f64;
    let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
    // 60 degrees of freedom: mean 60, sd 11; six standard deviations.
    assert!(chi2 < 60.0 + 6.0 * 11.0, "{chi2}");
}

#[test]
fn end_tokens_are_kept_and_end_the_completion() {
    let model = uniform();
    let end_tokens: Vec<u32> = (0..20).collect();
    let opts = GenOptions { end_tokens: end_tokens.clone(), ..options(8, 5) };
    let out = run(&model, &[&[1, 2], &[3]], &[40, 40], &opts);
    let all: Vec<&Generated> = out.iter().flatten().collect();
    assert!(all.iter().any(|g| g.stopped && g.token_ids.len() == 1));
    assert!(all.iter().any(|g| !g.stopped));
    for g in &all {
        let (last, before) = g.token_ids.split_last().unwrap();
        assert_eq!(g.stopped, end_tokens.contains(last));
        assert!(before.iter().all(|t| !end_tokens.contains(t)));
        assert!(g.stopped || g.token_ids.len() == 8);
    }
    let ignoring = GenOptions { ignore_eos: true, ..opts };
    let out = run(&model, &[&[1, 2]], &[40], &ignoring);
    assert!(out[0].iter().all(|g| !g.stopped && g.token_ids.len() == 8));
    // What was drawn before the end is the same either way.
    assert!(out[0].iter().zip(&all).all(|(a, b)| a.token_ids.starts_with(&b.token_ids)));
}

#[test]
fn nothing_to_do() {
    let model = uniform();
    assert!(run(&model, &[], &[], &options(5, 4)).is_empty());
    assert_eq!(run(&model, &[&[1]], &[0], &options(5, 4)), [vec![]]);
    assert_eq!(run(&model, &[&[1]], &[2], &options(0, 4)), [vec![Generated::default(), Generated::default()]]);
    assert_eq!(run(&model, &[&[1]], &[2], &options(3, 0))[0][1].token_ids.len(), 3);
}

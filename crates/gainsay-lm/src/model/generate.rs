//! Sampling: each prompt is computed once and its keys and values are shared by its samples;
//! rows that end make room for the next ones at once.
//!
//! A completion's tokens and log-probs depend on its prompt, its index and `draw` alone: not on
//! which rows it was decoded with, nor on the number of threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gainsay_kernels::attention::{DecodeScratch, decode_attention};
use gainsay_kernels::gemm::{Left, matmul};
use gainsay_kernels::pool;
use gainsay_kernels::rope::RopeTable;

use super::kv::KvCache;
use super::layer::Rows;
use super::ops::{Mat, rope_table};
use super::packed::Packed;
use super::params::Model;
use super::sampler::pick;

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

impl Generated {
    pub(super) fn is_finished(&self, opts: &GenOptions) -> bool {
        self.stopped || self.token_ids.len() == opts.max_new_tokens
    }

    /// Adds the token that `logits` and the uniform number `u` give.
    pub(super) fn extend(&mut self, logits: &[f32], opts: &GenOptions, u: f64, scratch: &mut Vec<f32>) {
        let (token, logp) = pick(logits, opts, u, scratch);
        self.token_ids.push(token);
        self.token_logps.push(logp);
        self.stopped = !opts.ignore_eos && opts.end_tokens.contains(&token);
    }
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
    /// Completions that are decoded together; at least 1.
    pub max_rows: usize,
}

/// Most prompt tokens in one pass.
const PREFILL_TOKENS: usize = 4096;

/// Room of a completion's cache to begin with.
const FIRST_CAPACITY: usize = 64;

/// The uniform number in [0, 1) of (request, completion, token).
pub type Draw<'a> = &'a (dyn Fn(usize, usize, usize) -> f64 + Sync);

/// Samples `n[i]` completions of `prompts[i]`, none of which may be empty. `draw(request,
/// completion, token)` is the uniform number in [0, 1) of that position; `on_token` hears how
/// many tokens were added.
pub fn generate(
    model: &Model,
    prompts: &[&[u32]],
    n: &[usize],
    opts: &GenOptions,
    draw: &(dyn Fn(usize, usize, usize) -> f64 + Sync),
    on_token: &mut dyn FnMut(usize),
) -> Vec<Vec<Generated>> {
    assert_eq!(prompts.len(), n.len(), "one number of completions a prompt");
    let mut done: Vec<Vec<Generated>> = n.iter().map(|n| vec![Generated::default(); *n]).collect();
    if opts.max_new_tokens == 0 {
        return done;
    }
    let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
    let mut batch = Batch {
        model,
        opts,
        draw,
        table: rope_table(&model.backbone.config, longest + opts.max_new_tokens),
        queue: (0..prompts.len()).flat_map(|r| (0..n[r]).map(move |c| (r, c))).collect(),
        open: BTreeMap::new(),
        rows: Vec::new(),
        logits: Vec::new(),
    };
    loop {
        let mut added = batch.admit(prompts, n);
        if batch.rows.iter().all(|row| !row.finished(opts)) {
            if batch.rows.is_empty() {
                return done;
            }
            batch.step();
            added += batch.rows.len();
        }
        on_token(added);
        let (ended, going) = batch.rows.drain(..).partition(|row| row.finished(opts));
        batch.rows = going;
        let ended: Vec<Row> = ended;
        ended.into_iter().for_each(|row| done[row.request][row.completion] = row.out);
    }
}

/// A computed prompt.
struct Prefix {
    cache: Arc<KvCache>,
    /// Logits after its last token.
    logits: Vec<f32>,
}

/// A completion on its way.
struct Row {
    request: usize,
    completion: usize,
    prefix: Arc<KvCache>,
    tail: KvCache,
    out: Generated,
}

impl Row {
    fn finished(&self, opts: &GenOptions) -> bool {
        self.out.is_finished(opts)
    }

    /// Adds the token that `logits` and this position's draw give.
    fn extend(&mut self, logits: &[f32], opts: &GenOptions, draw: Draw, scratch: &mut Vec<f32>) {
        self.out.extend(logits, opts, draw(self.request, self.completion, self.out.token_ids.len()), scratch);
    }
}

struct Batch<'a> {
    model: &'a Model,
    opts: &'a GenOptions,
    draw: Draw<'a>,
    table: RopeTable,
    queue: VecDeque<(usize, usize)>,
    /// Prompts of which some completions have not begun.
    open: BTreeMap<usize, Prefix>,
    rows: Vec<Row>,
    /// `[rows, vocab]`, kept from step to step.
    logits: Vec<f32>,
}

impl Batch<'_> {
    /// Fills free rows from the queue, with their first token; returns how many.
    fn admit(&mut self, prompts: &[&[u32]], n: &[usize]) -> usize {
        let free = self.opts.max_rows.max(1).saturating_sub(self.rows.len()).min(self.queue.len());
        let starts: Vec<(usize, usize)> = self.queue.drain(..free).collect();
        let mut missing: Vec<usize> = starts.iter().map(|s| s.0).filter(|r| !self.open.contains_key(r)).collect();
        missing.dedup();
        while !missing.is_empty() {
            let mut tokens = 0;
            let fits = missing.iter().take_while(|r| {
                tokens += prompts[**r].len();
                tokens <= PREFILL_TOKENS
            });
            let group: Vec<usize> = missing.drain(..fits.count().max(1)).collect();
            self.prefill(&group, prompts);
        }
        let config = &self.model.backbone.config;
        let (opts, draw, open) = (self.opts, self.draw, &self.open);
        let begin = |i: usize| {
            let (request, completion) = &starts[i];
            let prefix = &open[request];
            let room = opts.max_new_tokens.min(FIRST_CAPACITY);
            let mut row = Row {
                request: *request,
                completion: *completion,
                prefix: prefix.cache.clone(),
                tail: KvCache::new(self.model.heads(), config.num_layers, room),
                out: Generated::default(),
            };
            row.extend(&prefix.logits, opts, draw, &mut Vec::new());
            row
        };
        let begun: Vec<Row> = pool::map(starts.len(), begin);
        self.rows.extend(begun);
        starts.iter().filter(|(r, c)| c + 1 == n[*r]).for_each(|(r, _)| drop(self.open.remove(r)));
        starts.len()
    }

    /// Computes prompts and keeps their keys, values and last logits.
    fn prefill(&mut self, requests: &[usize], prompts: &[&[u32]]) {
        let model = self.model;
        let sequences: Vec<&[u32]> = requests.iter().map(|r| prompts[*r]).collect();
        assert!(sequences.iter().all(|s| !s.is_empty()), "a prompt needs at least one token");
        let batch = Packed::new(&sequences);
        let rows = Rows { positions: &batch.positions, table: &self.table, dropout: &[] };
        let spans = batch.spans();
        let layers = model.backbone.layers.len();
        let new_cache = |s: &&[u32]| KvCache::new(model.heads(), layers, s.len());
        let mut caches: Vec<KvCache> = sequences.iter().map(new_cache).collect();
        let mut x = model.embed(&batch.tokens);
        for l in 0..layers {
            let (next, qkv) = model.layer(l, &rows, &spans, &x);
            pool::each_mut(&mut caches, |i, cache| {
                for (position, row) in batch.range(i).enumerate() {
                    cache.write(l, position, qkv.k.row(row), qkv.v.row(row));
                }
            });
            x = next;
        }
        let last = model.norm(&model.backbone.final_norm, &x.gather(&batch.last_rows()));
        let mut logits = Vec::new();
        model.logits(&last, &mut logits);
        let vocab = model.backbone.config.vocab_size;
        for (i, mut cache) in caches.into_iter().enumerate() {
            cache.set_len(sequences[i].len());
            let logits = logits[i * vocab..(i + 1) * vocab].to_vec();
            self.open.insert(requests[i], Prefix { cache: Arc::new(cache), logits });
        }
    }

    /// One more token for every row.
    fn step(&mut self) {
        let model = self.model;
        let tokens: Vec<u32> = self.rows.iter().map(|row| row.out.token_ids[row.out.token_ids.len() - 1]).collect();
        let position = |row: &Row| (row.prefix.len() + row.tail.len()) as u32;
        let positions: Vec<u32> = self.rows.iter().map(position).collect();
        self.rows.iter_mut().for_each(|row| row.tail.reserve());
        let rows = Rows { positions: &positions, table: &self.table, dropout: &[] };
        let mut x = model.embed(&tokens);
        for l in 0..model.backbone.layers.len() {
            let qkv = model.qkv(l, &rows, &model.attention_input(l, &x));
            let mut mixed = Mat::zeros(x.rows, qkv.q.cols);
            let width = mixed.cols;
            let mut each: Vec<_> = self.rows.iter_mut().zip(mixed.data.chunks_mut(width)).collect();
            pool::each_mut_with(&mut each, DecodeScratch::default, |scratch, i, (row, mixed)| {
                let at = row.tail.len();
                row.tail.write(l, at, qkv.k.row(i), qkv.v.row(i));
                let parts = [(row.prefix.layer(l), row.prefix.len()), (row.tail.layer(l), at + 1)];
                decode_attention(model.heads(), qkv.q.row(i), &parts, scratch, mixed);
            });
            x = model.after_attention(l, &rows, &x, &mixed);
        }
        let hidden = model.norm(&model.backbone.final_norm, &x);
        model.logits(&hidden, &mut self.logits);
        let (opts, draw, vocab) = (self.opts, self.draw, model.backbone.config.vocab_size);
        let logits = &self.logits;
        pool::each_mut_with(&mut self.rows, Vec::new, |scratch, i, row| {
            row.tail.set_len(row.tail.len() + 1);
            row.extend(pool::chunk(logits, vocab, i), opts, draw, scratch);
        });
    }
}

impl Model {
    /// Logits of hidden rows after the final norm, `[rows, vocab]`.
    fn logits(&self, hidden: &Mat, out: &mut Vec<f32>) {
        let output = self.backbone.packed(self.backbone.unembedding().0);
        out.resize(hidden.rows * output.columns(), 0.0);
        matmul(hidden.rows, &hidden.data, Left::Rows, &output, out, false);
    }
}

//! Sampling on a device: waves of prompts, each computed once and shared by its samples; tokens
//! are drawn on the host, as the engine draws them.
//!
//! A wave ends when its last completion does: on a device a step's time depends little on the
//! number of rows, so that rows which have ended cost less than making room for others.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};
use gainsay_kernels::pool;

use super::attention::{Plan, mask};
use super::layer::Computer;
use super::ops::masked_softmax;
use super::pass::computer;
use super::{Outcome, Resident, failed};
use crate::model::generate::{Draw, GenOptions, Generated};
use crate::model::packed::Packed;
use crate::model::params::{Model, ParamId};

/// Most prompt tokens of a wave, padded; a single longer prompt goes alone.
const PROMPT_TOKENS: usize = 1 << 15;

/// Room for a completion's keys and values to begin with.
const FIRST_CAPACITY: usize = 64;

impl Resident {
    /// As [`crate::model::generate`].
    pub(in crate::model) fn generate(
        &self,
        model: &Model,
        prompts: &[&[u32]],
        n: &[usize],
        opts: &GenOptions,
        draw: Draw<'_>,
        on_token: &mut dyn FnMut(usize),
    ) -> Outcome<Vec<Vec<Generated>>> {
        let mut done: Vec<Vec<Generated>> = n.iter().map(|n| vec![Generated::default(); *n]).collect();
        if opts.max_new_tokens == 0 {
            return Ok(done);
        }
        let mut compute = || {
            let weights = self.weights(&model.backbone)?;
            let computer = computer(model, &weights)?;
            for parts in waves(prompts, n, opts.max_rows.max(1)) {
                let mut wave = Wave::begin(&computer, prompts, &parts, opts, draw)?;
                on_token(wave.rows.iter().filter(|row| !row.is_padding).count());
                while wave.going() > 0 {
                    wave.shrink()?;
                    let going = wave.going();
                    wave.step(opts, draw)?;
                    on_token(going);
                }
                wave.ended.append(&mut wave.rows);
                for row in wave.ended.into_iter().filter(|row| !row.is_padding) {
                    done[row.request][row.completion] = row.out;
                }
            }
            Ok(())
        };
        compute().map_err(|e| failed(model, e))?;
        Ok(done)
    }
}

/// A request and the completions of it that a wave draws.
type Part = (usize, Range<usize>);

/// Requests in order, together as long as prompts times the most completions of one are at most
/// `most` rows.
fn waves(prompts: &[&[u32]], n: &[usize], most: usize) -> Vec<Vec<Part>> {
    let mut out: Vec<Vec<Part>> = Vec::new();
    let (mut width, mut length) = (0, 0);
    for (request, (prompt, n)) in prompts.iter().zip(n).enumerate() {
        for start in (0..*n).step_by(most) {
            let part = (request, start..(start + most).min(*n));
            let (wider, longer) = (part.1.len().max(width), prompt.len().max(length));
            let fits =
                |wave: &Vec<Part>| (wave.len() + 1) * wider <= most && (wave.len() + 1) * longer <= PROMPT_TOKENS;
            match out.last_mut().filter(|wave| fits(wave)) {
                Some(wave) => {
                    wave.push(part);
                    (width, length) = (wider, longer);
                }
                None => {
                    (width, length) = (part.1.len(), prompt.len());
                    out.push(vec![part]);
                }
            }
        }
    }
    out
}

/// A completion on its way, or a place that keeps the wave rectangular.
struct Row {
    request: usize,
    completion: usize,
    is_padding: bool,
    finished: bool,
    out: Generated,
}

impl Row {
    /// Adds the token that `logits` and this position's draw give.
    fn extend(&mut self, logits: &[f32], opts: &GenOptions, draw: Draw<'_>, scratch: &mut Vec<f32>) {
        if self.finished {
            return;
        }
        self.out.extend(logits, opts, draw(self.request, self.completion, self.out.token_ids.len()), scratch);
        self.finished = self.out.is_finished(opts);
    }
}

/// Keys and values of one layer.
struct Cache {
    /// Of the prompts, `[prompts * kv_heads, longest, dim]`, padded behind.
    prefix: [Tensor; 2],
    /// Of the completions, `[rows * kv_heads, capacity, dim]`.
    tail: [Tensor; 2],
}

struct Wave<'a> {
    computer: &'a Computer<'a>,
    /// Each prompt's rows, one prompt after the other.
    rows: Vec<Row>,
    /// Rows of prompts that are done.
    ended: Vec<Row>,
    /// Rows a prompt.
    width: usize,
    lengths: Vec<usize>,
    caches: Vec<Cache>,
    /// `[rows, 1, longest]`: 0 for a prompt's tokens, -inf for padding.
    seen: Tensor,
    /// Tokens in the tails.
    tail: usize,
    capacity: usize,
}

impl<'a> Wave<'a> {
    /// Computes the prompts and draws the first tokens.
    fn begin(
        computer: &'a Computer<'a>,
        prompts: &[&[u32]],
        parts: &[Part],
        opts: &GenOptions,
        draw: Draw<'_>,
    ) -> Result<Self> {
        let sequences: Vec<&[u32]> = parts.iter().map(|(request, _)| prompts[*request]).collect();
        assert!(sequences.iter().all(|s| !s.is_empty()), "a prompt needs at least one token");
        let width = parts.iter().map(|(_, completions)| completions.len()).max().unwrap_or(0);
        let capacity = opts.max_new_tokens.min(FIRST_CAPACITY);
        let lengths: Vec<usize> = sequences.iter().map(|s| s.len()).collect();
        let (caches, logits) = prefill(computer, &sequences, width, capacity)?;
        let place = |(request, own): &Part, i: usize| {
            let is_padding = i >= own.len();
            Row {
                request: *request,
                completion: own.start + i,
                is_padding,
                finished: is_padding,
                out: Generated::default(),
            }
        };
        let rows = parts.iter().flat_map(|part| (0..width).map(move |i| place(part, i))).collect();
        let mut wave = Self {
            computer,
            rows,
            ended: Vec::new(),
            width,
            seen: seen(computer, &lengths, width)?,
            lengths,
            caches,
            tail: 0,
            capacity,
        };
        let vocab = computer.config.vocab_size;
        pool::each_mut_with(&mut wave.rows, Vec::new, |scratch, i, row| {
            row.extend(pool::chunk(&logits, vocab, i / width), opts, draw, scratch);
        });
        Ok(wave)
    }

    fn going(&self) -> usize {
        self.rows.iter().filter(|row| !row.finished).count()
    }

    /// Drops prompts whose completions have all ended, once they are half of the wave.
    fn shrink(&mut self) -> Result<()> {
        let going: Vec<usize> = (0..self.lengths.len())
            .filter(|p| self.rows[p * self.width..][..self.width].iter().any(|r| !r.finished))
            .collect();
        let prompts = self.lengths.len();
        if 2 * going.len() > prompts {
            return Ok(());
        }
        let chosen: Vec<u32> = going.iter().map(|p| *p as u32).collect();
        let chosen = Tensor::new(chosen, self.computer.device())?;
        let keep = |x: &Tensor| {
            let (places, tokens, dim) = x.dims3()?;
            let x = x.reshape((prompts, places / prompts * tokens * dim))?.index_select(&chosen, 0)?;
            x.reshape((places / prompts * going.len(), tokens, dim))
        };
        for cache in &mut self.caches {
            let [keys, values] = &cache.prefix;
            cache.prefix = [keep(keys)?, keep(values)?];
            let [keys, values] = &cache.tail;
            cache.tail = [keep(keys)?, keep(values)?];
        }
        let rows = std::mem::take(&mut self.rows).into_iter().enumerate();
        let (rows, ended): (Vec<_>, Vec<_>) = rows.partition(|(i, _)| going.contains(&(i / self.width)));
        self.rows = rows.into_iter().map(|(_, row)| row).collect();
        self.ended.extend(ended.into_iter().map(|(_, row)| row));
        self.lengths = going.iter().map(|p| self.lengths[*p]).collect();
        // The prompts' padding stays as wide as it is.
        let longest = self.seen.dim(2)?;
        self.seen = self.seen.reshape((prompts, self.width * longest))?.index_select(&chosen, 0)?;
        self.seen = self.seen.reshape((self.rows.len(), 1, longest))?;
        Ok(())
    }

    /// One more token for every row.
    fn step(&mut self, opts: &GenOptions, draw: Draw<'_>) -> Result<()> {
        self.reserve()?;
        // Rows that ended go along; nobody reads what they say.
        let tokens: Vec<u32> = self.rows.iter().map(|row| row.out.token_ids.last().copied().unwrap_or(0)).collect();
        let position = |i: usize| (self.lengths[i / self.width] + self.tail) as u32;
        let positions: Vec<u32> = (0..self.rows.len()).map(position).collect();
        let computer = self.computer;
        let angles = computer.angles(&positions)?;
        let zeros = Tensor::zeros((self.rows.len(), 1, self.tail + 1), DType::F32, computer.device())?;
        let mask = Tensor::cat(&[&self.seen, &zeros], 2)?;
        let mut x = computer.embed(&tokens)?;
        for (l, cache) in self.caches.iter().enumerate() {
            x = computer.layer(l, &x, &angles, |q, k, v| self.attend(cache, &mask, q, k, v))?;
        }
        let logits = computer.logits(&computer.norm(ParamId::FinalNorm, &x)?)?.flatten_all()?.to_vec1::<f32>()?;
        self.tail += 1;
        let vocab = computer.config.vocab_size;
        pool::each_mut_with(&mut self.rows, Vec::new, |scratch, i, row| {
            row.extend(pool::chunk(&logits, vocab, i), opts, draw, scratch);
        });
        Ok(())
    }

    /// Makes room for one more token.
    fn reserve(&mut self) -> Result<()> {
        if self.tail < self.capacity {
            return Ok(());
        }
        for cache in &mut self.caches {
            let [keys, values] = &cache.tail;
            let grow = |x: &Tensor| Tensor::cat(&[x, &x.zeros_like()?], 1);
            cache.tail = [grow(keys)?, grow(values)?];
        }
        self.capacity *= 2;
        Ok(())
    }

    /// Attention of one query a row, over its prompt and what its completion has so far.
    fn attend(&self, cache: &Cache, mask: &Tensor, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let shape = self.computer.heads();
        let (kv, group, dim) = (shape.kv_heads, shape.heads / shape.kv_heads, shape.dim);
        let (rows, prompts) = (self.rows.len(), self.lengths.len());
        for (tail, new) in cache.tail.iter().zip([k, v]) {
            tail.slice_set(&new.reshape((rows * kv, 1, dim))?.contiguous()?, 1, self.tail)?;
        }
        // A prompt's queries of one head go together, [prompts * kv, width * group, ...], and back.
        let gather = |x: &Tensor, last: usize| {
            let x = x.reshape((prompts, self.width, kv, group, last))?.transpose(1, 2)?.contiguous()?;
            x.reshape((prompts * kv, self.width * group, last))
        };
        let spread = |x: &Tensor| {
            let last = x.dim(2)?;
            let x = x.reshape((prompts, kv, self.width, group, last))?.transpose(1, 2)?.contiguous()?;
            x.reshape((rows, kv * group, last))
        };
        let own = |x: &Tensor| x.narrow(1, 0, self.tail + 1);
        let longest = cache.prefix[0].dim(1)?;
        let to_prefix = spread(&gather(q, dim)?.matmul(&cache.prefix[0].t()?)?)?;
        let to_tail = q.reshape((rows * kv, group, dim))?.matmul(&own(&cache.tail[0])?.t()?)?;
        let scores = Tensor::cat(&[&to_prefix, &to_tail.reshape((rows, kv * group, self.tail + 1))?], 2)?;
        let weights = masked_softmax(&scores, 1.0 / (dim as f64).sqrt(), mask)?;
        let of_prefix = gather(&weights.narrow(2, 0, longest)?, longest)?.matmul(&cache.prefix[1])?;
        let of_tail = weights.narrow(2, longest, self.tail + 1)?.contiguous()?;
        let of_tail = of_tail.reshape((rows * kv, group, self.tail + 1))?.matmul(&own(&cache.tail[1])?)?;
        (spread(&of_prefix)? + of_tail.reshape((rows, kv * group, dim))?)?.reshape((rows, kv * group * dim))
    }
}

/// Each prompt's keys and values, with empty tails of `width` completions a prompt, and the logits
/// after its last token.
fn prefill(computer: &Computer, prompts: &[&[u32]], width: usize, capacity: usize) -> Result<(Vec<Cache>, Vec<f32>)> {
    let batch = Packed::new(prompts);
    let device = computer.device();
    let shape = computer.heads();
    let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
    let mut padded = Vec::with_capacity(prompts.len() * longest);
    for i in 0..prompts.len() {
        padded.extend(batch.range(i).map(|row| row as u32));
        padded.resize((i + 1) * longest, 0);
    }
    let padded = Tensor::new(padded, device)?;
    let keep = |x: &Tensor| {
        let x = x.index_select(&padded, 0)?.reshape((prompts.len(), longest, shape.kv_heads, shape.dim))?;
        x.transpose(1, 2)?.contiguous()?.reshape((prompts.len() * shape.kv_heads, longest, shape.dim))
    };
    let plan = Plan::new(shape, &batch.spans(), batch.tokens.len(), device)?;
    let angles = computer.angles(&batch.positions)?;
    let places = prompts.len() * width * shape.kv_heads;
    let empty = || Tensor::zeros((places, capacity, shape.dim), DType::F32, device);
    let mut x = computer.embed(&batch.tokens)?;
    let mut caches = Vec::with_capacity(computer.config.num_layers);
    for l in 0..computer.config.num_layers {
        let mut prefix = None;
        x = computer.layer(l, &x, &angles, |q, k, v| {
            prefix = Some([keep(k)?, keep(v)?]);
            plan.attend(q, k, v)
        })?;
        if let Some(prefix) = prefix {
            caches.push(Cache { prefix, tail: [empty()?, empty()?] });
        }
    }
    let last: Vec<u32> = batch.last_rows().into_iter().map(|row| row as u32).collect();
    let last = computer.norm(ParamId::FinalNorm, &x.index_select(&Tensor::new(last, device)?, 0)?)?;
    Ok((caches, computer.logits(&last)?.flatten_all()?.to_vec1()?))
}

/// `[rows, 1, longest]`: 0 for the prompts' tokens, -inf behind them.
fn seen(computer: &Computer, lengths: &[usize], width: usize) -> Result<Tensor> {
    let last: Vec<u32> = lengths.iter().flat_map(|length| vec![*length as u32 - 1; width]).collect();
    let rows = last.len();
    mask(Tensor::from_vec(last, (rows, 1, 1), computer.device())?, lengths.iter().copied().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_by_hand() {
        let prompts: [&[u32]; 4] = [&[1], &[2, 3], &[4], &[5]];
        // 3 and 1 completions make 2 x 3 places; a third prompt would be 3 x 3.
        assert_eq!(waves(&prompts, &[3, 1, 0, 2], 6), [vec![(0, 0..3), (1, 0..1)], vec![(3, 0..2)]]);
        assert_eq!(waves(&prompts, &[5, 0, 0, 0], 2), [vec![(0, 0..2)], vec![(0, 2..4)], vec![(0, 4..5)]]);
        let long = vec![1; PROMPT_TOKENS];
        assert_eq!(waves(&[&long, &[1]], &[1, 1], 64).len(), 2);
    }
}

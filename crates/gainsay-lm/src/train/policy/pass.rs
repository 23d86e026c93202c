//! Sequences through the policy and back: token log-probs, values, and gradients of any loss that
//! says its derivatives by them.

use std::ops::Range;

use gainsay_core::rng::Key;
use gainsay_kernels::vector::axpy;

use crate::error::LmError;
use crate::model::packed::{batches, batches_of_units, shared_rows};
use crate::model::{Grads, Keep, Mat, Model, Packed, ParamId, Recording};
use crate::policy::by_sequence;
use crate::reward::head_product;
use crate::sequence::Sequence;
use crate::train::Weights;
use crate::train::weights::dropped;

/// Tapes are kept between the forward and the backward pass up to this size, in bytes; larger
/// steps run the forward pass again.
const KEPT_TAPES: usize = 2 << 30;

/// What the policy says of a sequence's completion, one value a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tokens {
    /// Log-probs under logits / temperature.
    pub logps: Vec<f32>,
    /// The value head on the state before the token; empty without a head.
    pub values: Vec<f64>,
}

/// Derivatives of a loss by one sequence's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TokenGrads {
    /// By each log-prob.
    pub logps: Vec<f64>,
    /// By each value; empty without a head.
    pub values: Vec<f64>,
}

/// One tape a micro-batch, where all of them fit.
pub(crate) type Tapes = Vec<Option<Recording>>;

/// Sequences through the policy: what it says of them, and the tapes of the micro-batches where they
/// are wanted and all of them fit.
pub(crate) fn forward(
    weights: &Weights,
    sequences: &[Sequence],
    temperature: f64,
    batch_tokens: usize,
    wanted: bool,
    grads: &Grads,
) -> Result<(Vec<Tokens>, Tapes), LmError> {
    let model = &weights.model;
    let batches = batches(sequences, batch_tokens);
    let rows = batches.iter().map(|batch| shared_rows(&sequences[batch.clone()])).sum();
    let keep = if wanted { model.keep_within(KEPT_TAPES, rows, grads) } else { Keep::Inputs };
    let fits = wanted && model.tape_bytes(rows, keep, grads) <= KEPT_TAPES;
    let (mut tokens, mut tapes) = (Vec::with_capacity(sequences.len()), Vec::new());
    for range in batches {
        let tape = model.record(&Packed::sharing(&sequences[range.clone()]), keep, grads)?;
        tokens.extend(read(weights, &tape, &sequences[range], temperature)?);
        tapes.push(fits.then_some(tape));
    }
    Ok((tokens, tapes))
}

/// What a tape's hidden rows say.
fn read(weights: &Weights, tape: &Recording, sequences: &[Sequence], temperature: f64) -> Result<Vec<Tokens>, LmError> {
    let (rows, targets) = tape.batch().predictions();
    let logps = weights.model.logps(tape.hidden(), &rows, &targets, temperature)?;
    let mut tokens: Vec<Tokens> =
        by_sequence(&logps, sequences).into_iter().map(|logps| Tokens { logps, values: Vec::new() }).collect();
    if let Some(head) = &weights.head {
        let mut rows = rows.iter();
        for tokens in &mut tokens {
            let own = rows.by_ref().take(tokens.logps.len());
            tokens.values = own.map(|&row| head_product(tape.hidden().row(row), head)).collect();
        }
    }
    Ok(tokens)
}

/// Adds the gradient of a loss over `sequences` to `grads`. `units` are consecutive runs of
/// sequences that the loss reads together; `loss` gets a unit's place and its tokens and returns
/// its loss and derivatives. What an earlier [`forward`] of just these sequences by the same
/// weights gave is used instead of computing it again; with `dropout`, the step's key, there is
/// no such thing. Returns the sum of the losses.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward<L>(
    weights: &Weights,
    sequences: &[Sequence],
    units: &[Range<usize>],
    temperature: f64,
    batch_tokens: usize,
    known: Option<(&[Tokens], Tapes)>,
    dropout: Option<Key<'_>>,
    grads: &mut Grads,
    loss: &mut L,
) -> Result<f64, LmError>
where
    L: FnMut(usize, &[Tokens]) -> (f64, Vec<TokenGrads>),
{
    let model = &weights.model;
    let (known, tapes) = known.unzip();
    let mut tapes = tapes.unwrap_or_default().into_iter();
    let mut total = 0.0;
    for batch in batches_of_units(sequences, units, batch_tokens) {
        let first = units[batch.start].start;
        let own = &sequences[first..units[batch.end - 1].end];
        let tape = match tapes.next().flatten() {
            Some(tape) => tape,
            None => {
                let packed = dropped(Packed::sharing(own), dropout);
                let keep = model.keep_within(KEPT_TAPES / 2, packed.tokens.len(), grads);
                model.record(&packed, keep, grads)?
            }
        };
        let tokens = match known {
            Some(known) => known[first..first + own.len()].to_vec(),
            None => read(weights, &tape, own, temperature)?,
        };
        let (mut d_logps, mut d_values) = (Vec::new(), Vec::new());
        for unit in batch {
            let span = units[unit].start - first..units[unit].end - first;
            let (value, derivatives) = loss(unit, &tokens[span]);
            total += value;
            for derivative in derivatives {
                d_logps.extend(derivative.logps.iter().map(|d| *d as f32));
                d_values.extend(derivative.values);
            }
        }
        tape_backward(weights, tape, temperature, &d_logps, &d_values, grads)?;
    }
    Ok(total)
}

/// The gradient of sum(d_logps . log-probs) + sum(d_values . values) for the tokens on a tape.
fn tape_backward(
    weights: &Weights,
    tape: Recording,
    temperature: f64,
    d_logps: &[f32],
    d_values: &[f64],
    grads: &mut Grads,
) -> Result<(), LmError> {
    let (rows, targets) = tape.batch().predictions();
    let mut d_hidden = Mat::zeros(tape.hidden().rows, tape.hidden().cols);
    let model = &weights.model;
    model.logps_backward(&tape, &rows, &targets, temperature, d_logps, &mut d_hidden, grads)?;
    if let Some(head) = &weights.head {
        for (&row, &d) in rows.iter().zip(d_values) {
            axpy(d as f32, head, d_hidden.row_mut(row));
            if let Some(d_head) = grads.get_mut(ParamId::Head) {
                axpy(d as f32, tape.hidden().row(row), d_head);
            }
        }
    }
    model.pull_back(tape, d_hidden, grads)
}

/// Adds to `grads` the gradient of sum(d_logp . log p(completion tokens)) for the sequences on
/// `tape`, packed by [`Packed::sharing`], p being the softmax of logits / temperature. `d_logps`
/// holds one value a completion token, sequence after sequence.
///
/// # Errors
/// What a device reports.
pub fn sequence_backward(
    model: &Model,
    tape: Recording,
    temperature: f64,
    d_logps: &[f32],
    grads: &mut Grads,
) -> Result<(), LmError> {
    let weights = Weights { model: model.clone(), head: None };
    tape_backward(&weights, tape, temperature, d_logps, &[], grads)
}

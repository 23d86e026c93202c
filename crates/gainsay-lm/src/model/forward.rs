//! Forward and backward of a whole model over packed sequences.
//!
//! A row's values depend on its own sequence alone, bit for bit: on no other sequence of the
//! batch, and not on the number of threads (see `gainsay_kernels`).

use std::ops::Range;
use std::sync::Arc;

use gainsay_kernels::attention::Span;
use gainsay_kernels::rope::RopeTable;
use gainsay_kernels::vocab::{self, Vocab, VocabGrads};

use super::cache::Form;
use super::layer::{Rows, trains_layer};
use super::ops::{Mat, rope_table};
use super::params::{Adapter, Backbone, Grads, Model, Packed, ParamId};

/// What a backward pass needs: the input of every layer, and the final hidden rows.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The sequences.
    pub batch: Packed,
    /// The residual stream before each layer and after the last one.
    pub inputs: Vec<Mat>,
    /// After the final norm, `[tokens, hidden]`.
    pub hidden: Mat,
}

/// Tokens that go through the layers together, whole sequences: what they need fits the
/// last-level cache. Their number changes no value.
const SLICE_TOKENS: usize = 1024;

/// Neighboring sequences of a batch.
struct Slice {
    /// Their rows in the batch.
    rows: Range<usize>,
    /// Their starts, the first one 0, and the end.
    offsets: Vec<usize>,
    positions: Vec<u32>,
    spans: Vec<Span>,
}

fn slices(batch: &Packed) -> Vec<Slice> {
    let mut out = Vec::new();
    let mut first = 0;
    while first < batch.len() {
        let start = batch.offsets[first];
        let fits = (first + 1..batch.len()).take_while(|i| batch.offsets[i + 1] - start <= SLICE_TOKENS);
        let end = first + 1 + fits.count();
        let offsets: Vec<usize> = batch.offsets[first..=end].iter().map(|o| o - start).collect();
        let positions = offsets.windows(2).flat_map(|w| 0..(w[1] - w[0]) as u32).collect();
        out.push(Slice { rows: start..batch.offsets[end], spans: Span::whole(&offsets), offsets, positions });
        first = end;
    }
    out
}

impl Model {
    /// A model that computes with `backbone`, and with `adapter` on top where there is one.
    pub fn new(backbone: Arc<Backbone>, adapter: Option<Adapter>) -> Self {
        Self { backbone, adapter }
    }

    /// The weights, to change with [`Backbone::param_mut`]; copies them first if they are shared.
    pub fn backbone_mut(&mut self) -> &mut Backbone {
        Arc::make_mut(&mut self.backbone)
    }

    /// Rotary angles for the longest sequence.
    fn table(&self, batch: &Packed) -> RopeTable {
        let longest = (0..batch.len()).map(|i| batch.range(i).len()).max();
        rope_table(&self.backbone.config, longest.unwrap_or(0))
    }

    /// Embedding rows of `tokens`; every token must be below the vocabulary's size.
    pub(super) fn embed(&self, tokens: &[u32]) -> Mat {
        let width = self.backbone.config.hidden_size;
        let table = &self.backbone.embed.data;
        let mut data = Vec::with_capacity(tokens.len() * width);
        for token in tokens {
            let from = *token as usize * width;
            data.extend_from_slice(&table[from..from + width]);
        }
        Mat { rows: tokens.len(), cols: width, data }
    }

    /// Hidden rows after the final norm, `[tokens, hidden]`.
    pub fn hidden(&self, batch: &Packed) -> Mat {
        self.norm(&self.backbone.final_norm, &self.hidden_at(batch, self.backbone.layers.len()))
    }

    /// The residual stream after the first `layer` layers (0: the embeddings), before any final
    /// norm.
    pub fn hidden_at(&self, batch: &Packed, layer: usize) -> Mat {
        let table = self.table(batch);
        let mut out = Mat { rows: batch.tokens.len(), cols: self.backbone.config.hidden_size, data: Vec::new() };
        for slice in slices(batch) {
            let rows = Rows { positions: &slice.positions, table: &table };
            let x = self.embed(&batch.tokens[slice.rows]);
            let x = (0..layer).fold(x, |x, l| self.layer(l, &rows, &slice.spans, &x).0);
            out.data.extend_from_slice(&x.data);
        }
        out
    }

    /// As [`Model::hidden`], keeping what [`Model::backward`] needs.
    pub fn forward_tape(&self, batch: &Packed) -> Tape {
        let (layers, cols) = (self.backbone.layers.len(), self.backbone.config.hidden_size);
        let table = self.table(batch);
        let room = || Vec::with_capacity(batch.tokens.len() * cols);
        let mut inputs: Vec<Mat> = (0..=layers).map(|_| Mat { rows: batch.tokens.len(), cols, data: room() }).collect();
        for slice in slices(batch) {
            let rows = Rows { positions: &slice.positions, table: &table };
            let mut x = self.embed(&batch.tokens[slice.rows]);
            for (l, input) in inputs.iter_mut().enumerate() {
                input.data.extend_from_slice(&x.data);
                if l < layers {
                    x = self.layer(l, &rows, &slice.spans, &x).0;
                }
            }
        }
        let hidden = self.norm(&self.backbone.final_norm, &inputs[layers]);
        Tape { batch: batch.clone(), inputs, hidden }
    }

    /// Adds to `grads` the gradients that `d_hidden`, the gradient of the final hidden rows,
    /// sends to the parameters in `grads`. Each layer is computed once more from its input.
    /// Parameters that are not in `grads` cost no work, and nothing is computed below the
    /// lowest layer that has one in it.
    pub fn backward(&self, tape: &Tape, d_hidden: Mat, grads: &mut Grads) {
        let layers = self.backbone.layers.len();
        let embedding = grads.trains(ParamId::Embed);
        let lowest = if embedding { Some(0) } else { (0..layers).find(|l| trains_layer(grads, *l)) };
        let mut d = Mat::zeros(d_hidden.rows, d_hidden.cols);
        let need = lowest.is_some();
        let norm = &self.backbone.final_norm;
        self.norm_backward(norm, ParamId::FinalNorm, &tape.inputs[layers], &d_hidden, need.then_some(&mut d), grads);
        let Some(lowest) = lowest else { return };
        let table = self.table(&tape.batch);
        for slice in slices(&tape.batch) {
            let rows = Rows { positions: &slice.positions, table: &table };
            let mut d = d.slice(slice.rows.clone());
            for l in (lowest..layers).rev() {
                let x = tape.inputs[l].slice(slice.rows.clone());
                let mut acts = self.acts(l, &rows, &slice.spans, &x);
                let need_input = l > lowest || embedding;
                self.layer_backward(l, &rows, &slice.offsets, &x, &mut acts, &mut d, need_input, grads);
            }
            if let Some(sum) = grads.get_mut(ParamId::Embed) {
                vocab::add_rows_by_id(&d.data, &tape.batch.tokens[slice.rows], d.cols, sum);
            }
        }
    }

    /// log softmax(hidden\[row\]·Uᵀ / temperature)\[target\] in nats for each (row, target); U is
    /// the output matrix. Logits exist only in chunks.
    pub fn token_logps(&self, hidden: &Mat, rows: &[usize], targets: &[u32], temperature: f32) -> Vec<f32> {
        let output = self.backbone.packed(self.backbone.unembedding().0, Form::Transposed);
        let hidden = hidden.gather(rows);
        let inverse_temperature = 1.0 / temperature;
        vocab::token_logps(Vocab { hidden: &hidden.data, output: &output, targets, inverse_temperature })
    }

    /// Adds the gradients of sum(d_logp · [`Model::token_logps`]) to `d_hidden` and, where the
    /// output matrix is trained, to `grads`. Rows whose `d_logp` is 0 cost nothing.
    #[allow(clippy::too_many_arguments)]
    pub fn token_logps_backward(
        &self,
        hidden: &Mat,
        rows: &[usize],
        targets: &[u32],
        temperature: f32,
        d_logp: &[f32],
        d_hidden: &mut Mat,
        grads: &mut Grads,
    ) {
        let used: Vec<usize> = (0..rows.len()).filter(|i| d_logp[*i] != 0.0).collect();
        let rows: Vec<usize> = used.iter().map(|i| rows[*i]).collect();
        let targets: Vec<u32> = used.iter().map(|i| targets[*i]).collect();
        let d_logp: Vec<f32> = used.iter().map(|i| d_logp[*i]).collect();
        let id = self.backbone.unembedding().0;
        let (output, plain) = (self.backbone.packed(id, Form::Transposed), self.backbone.packed(id, Form::Plain));
        let picked = hidden.gather(&rows);
        let mut d_picked = Mat::zeros(picked.rows, picked.cols);
        vocab::token_logps_backward(
            Vocab { hidden: &picked.data, output: &output, targets: &targets, inverse_temperature: 1.0 / temperature },
            &d_logp,
            VocabGrads { output: &plain, d_hidden: &mut d_picked.data, d_output: grads.get_mut(id) },
        );
        for (i, row) in rows.iter().enumerate() {
            gainsay_kernels::vector::axpy(1.0, d_picked.row(i), d_hidden.row_mut(*row));
        }
    }
}

//! Forward and backward of a whole model over packed sequences.
//!
//! A row's values depend on its own sequence alone, bit for bit: on no other sequence of the
//! batch, and not on the number of threads (see `gainsay_kernels`).

use std::sync::Arc;

use gainsay_kernels::rope::RopeTable;
use gainsay_kernels::vocab::{self, Vocab, VocabGrads};

use super::layer::{Acts, Rows, trains_layer};
use super::ops::{Mat, rope_table};
use super::packed::Packed;
use super::params::{Adapter, Backbone, Grads, Model, ParamId};

/// What a tape keeps of the layers that the backward pass goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Their inputs; everything else is computed again, layer by layer (Chen et al. 2016,
    /// arXiv 1604.06174).
    Inputs,
    /// Also what their backward pass reads.
    Activations,
}

/// What a backward pass needs. Layers below the lowest that it goes through are not on it.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The sequences.
    pub batch: Packed,
    /// The residual stream before each layer and after the last one.
    inputs: Vec<Mat>,
    /// Per slice of the batch, per layer from the lowest; empty with [`Keep::Inputs`].
    acts: Vec<Vec<Acts>>,
    /// After the final norm, `[rows, hidden]`.
    pub hidden: Mat,
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
        let longest = batch.positions.iter().max().map_or(0, |p| *p as usize + 1);
        rope_table(&self.backbone.config, longest)
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

    /// Hidden rows after the final norm, `[rows, hidden]`.
    pub fn hidden(&self, batch: &Packed) -> Mat {
        self.norm(&self.backbone.final_norm, &self.hidden_at(batch, self.backbone.layers.len()))
    }

    /// The residual stream after the first `layer` layers (0: the embeddings), before any final
    /// norm, `[rows, hidden]`.
    pub fn hidden_at(&self, batch: &Packed, layer: usize) -> Mat {
        let table = self.table(batch);
        let mut out = Mat { rows: 0, cols: self.backbone.config.hidden_size, data: Vec::new() };
        for (range, spans) in batch.slices() {
            let rows = Rows::of(batch, &range, &table);
            let (from, x) = self.begin(batch, &range, &rows, &spans, layer);
            out.append(&(from..layer).fold(x, |x, l| self.layer(l, &rows, &spans, &x).0));
        }
        out
    }

    /// The lowest layer that a backward pass to the parameters in `grads` goes through.
    fn lowest(&self, grads: &Grads) -> Option<usize> {
        let lowest = (0..self.backbone.layers.len()).find(|l| trains_layer(grads, *l));
        if grads.trains(ParamId::Embed) { Some(0) } else { lowest }
    }

    /// Bytes of a tape of `rows` rows, about.
    pub fn tape_bytes(&self, rows: usize, keep: Keep, grads: &Grads) -> usize {
        let config = &self.backbone.config;
        let layers = config.num_layers - self.lowest(grads).unwrap_or(config.num_layers);
        let kept = match keep {
            Keep::Inputs => config.hidden_size,
            Keep::Activations => config.hidden_size + Acts::width(config),
        };
        4 * rows * (layers * kept + 2 * config.hidden_size)
    }

    /// The most that a tape of `rows` rows can keep within `bytes`; inputs where nothing fits.
    pub fn keep_within(&self, bytes: usize, rows: usize, grads: &Grads) -> Keep {
        if self.tape_bytes(rows, Keep::Activations, grads) <= bytes { Keep::Activations } else { Keep::Inputs }
    }

    /// As [`Model::hidden`], keeping what [`Model::backward`] needs to reach the parameters in
    /// `grads`.
    pub fn forward_tape(&self, batch: &Packed, keep: Keep, grads: &Grads) -> Tape {
        let (layers, cols) = (self.backbone.layers.len(), self.backbone.config.hidden_size);
        let lowest = self.lowest(grads).unwrap_or(layers);
        let _passing = grads.trains(ParamId::Embed).then(|| self.backbone.cache.passing());
        let table = self.table(batch);
        let mut inputs: Vec<Mat> = (0..=layers).map(|_| Mat { rows: 0, cols, data: Vec::new() }).collect();
        let mut kept = Vec::new();
        for (range, spans) in batch.slices() {
            let rows = Rows::of(batch, &range, &table);
            let (from, mut x) = self.begin(batch, &range, &rows, &spans, lowest);
            let mut of_slice = Vec::new();
            for (l, input) in inputs.iter_mut().enumerate().take(layers).skip(from) {
                if l < lowest {
                    x = self.layer(l, &rows, &spans, &x).0;
                    continue;
                }
                input.append(&x);
                if keep == Keep::Inputs {
                    x = self.layer(l, &rows, &spans, &x).0;
                    continue;
                }
                let mut acts = self.acts(l, &rows, &spans, &x);
                x = self.output(l, &rows, &x, &acts);
                acts.drop_cheap();
                of_slice.push(acts);
            }
            inputs[layers].append(&x);
            kept.push(of_slice);
        }
        let hidden = self.norm(&self.backbone.final_norm, &inputs[layers]);
        Tape { batch: batch.clone(), inputs, acts: kept, hidden }
    }

    /// Adds to `grads` the gradients that `d_hidden`, the gradient of the final hidden rows,
    /// sends to the parameters in `grads`, which are those that the tape was made for. Other
    /// parameters cost no work, and nothing is computed below the lowest layer that has one.
    pub fn backward(&self, tape: Tape, d_hidden: Mat, grads: &mut Grads) {
        let layers = self.backbone.layers.len();
        let lowest = self.lowest(grads);
        let mut d = Mat::zeros(d_hidden.rows, d_hidden.cols);
        let norm = &self.backbone.final_norm;
        let through = lowest.is_some().then_some(&mut d);
        self.norm_backward(norm, ParamId::FinalNorm, &tape.inputs[layers], &d_hidden, through, grads);
        let Some(lowest) = lowest else { return };
        let _passing = grads.trains(ParamId::Embed).then(|| self.backbone.cache.passing());
        let table = self.table(&tape.batch);
        for ((range, spans), mut kept) in tape.batch.slices().into_iter().zip(tape.acts) {
            let rows = Rows::of(&tape.batch, &range, &table);
            let mut d = d.slice(range.clone());
            for l in (lowest..layers).rev() {
                let x = tape.inputs[l].slice(range.clone());
                let mut acts = kept.pop().unwrap_or_else(|| self.acts(l, &rows, &spans, &x));
                self.restore(l, &x, &mut acts, grads);
                let need_input = l > lowest || grads.trains(ParamId::Embed);
                self.layer_backward(l, &rows, &spans, &x, &mut acts, &mut d, need_input, grads);
            }
            if let Some(sum) = grads.get_mut(ParamId::Embed) {
                vocab::add_rows_by_id(&d.data, &tape.batch.tokens[range], d.cols, sum);
            }
        }
    }

    /// log softmax(hidden\[row\]·Uᵀ / temperature)\[target\] in nats for each (row, target); U is
    /// the output matrix. Logits exist only in chunks.
    pub fn token_logps(&self, hidden: &Mat, rows: &[usize], targets: &[u32], temperature: f32) -> Vec<f32> {
        let output = self.backbone.packed(self.backbone.unembedding().0);
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
        let (output, plain) = (self.backbone.packed(id), self.backbone.packed_plain(id));
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

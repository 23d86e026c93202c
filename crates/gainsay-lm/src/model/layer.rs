//! One layer: forward, and backward from its input.

use std::ops::Range;

use gainsay_kernels::attention::{Heads, Span, attention, attention_backward};
use gainsay_kernels::rope::{RopeTable, rope};
use gainsay_kernels::{activation, vector};

use super::ops::{Mat, kernel};
use super::packed::Packed;
use super::params::{Grads, Model, Norm, ParamId, Part, Proj};
use crate::config::ModelConfig;

/// What all layers of one pass share.
pub(super) struct Rows<'a> {
    /// Position of each row in its sequence.
    pub positions: &'a [u32],
    /// Rotary angles.
    pub table: &'a RopeTable,
    /// One key of the adapter's dropout a row; empty outside of training.
    pub dropout: &'a [u64],
}

impl<'a> Rows<'a> {
    /// The rows of a slice of `batch`.
    pub fn of(batch: &'a Packed, slice: &Range<usize>, table: &'a RopeTable) -> Self {
        Self { positions: &batch.positions[slice.clone()], table, dropout: batch.dropout_of(slice) }
    }
}

/// Queries, keys and values of some rows, after the head norms and the rotation.
#[derive(Clone, Debug)]
pub(super) struct Qkv {
    pub q: Mat,
    pub k: Mat,
    pub v: Mat,
    /// q before its norm, where the family has one.
    raw_q: Option<Mat>,
    /// k before its norm.
    raw_k: Option<Mat>,
}

/// What the backward pass of a layer reads.
#[derive(Clone, Debug)]
pub(super) struct Acts {
    attn_in: Option<Mat>,
    qkv: Qkv,
    mixed: Mat,
    /// After attention; `None` where both parts read the layer's input.
    middle: Option<Mat>,
    mlp: Mlp,
}

#[derive(Clone, Debug)]
struct Mlp {
    input: Option<Mat>,
    gate: Option<Mat>,
    up: Mat,
    act: Option<Mat>,
}

impl Acts {
    /// Values a row, about, after [`Acts::drop_cheap`].
    pub fn width(config: &ModelConfig) -> usize {
        let heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim;
        heads + config.hidden_size + 2 * config.intermediate_size
    }

    /// Forgets what [`Model::restore`] can make again from the rest at little cost.
    pub fn drop_cheap(&mut self) {
        (self.attn_in, self.mlp.input, self.mlp.act) = (None, None, None);
    }
}

impl Model {
    pub(super) fn heads(&self) -> Heads {
        let config = &self.backbone.config;
        Heads { heads: config.num_heads, kv_heads: config.num_kv_heads, dim: config.head_dim }
    }

    fn has(&self, layer: usize, proj: Proj) -> bool {
        self.backbone.layers[layer].linears[proj.index()].is_some()
    }

    /// Projects normed rows to queries, keys and values.
    pub(super) fn qkv(&self, l: usize, rows: &Rows, attn_in: &Mat) -> Qkv {
        let dim = self.heads().dim;
        let (q, k, v) = if self.has(l, Proj::Qkv) {
            split_heads(&self.linear(l, Proj::Qkv, attn_in, rows), dim)
        } else {
            self.linears(l, [Proj::Q, Proj::K, Proj::V], attn_in, rows).into()
        };
        let layer = &self.backbone.layers[l];
        let (mut q, raw_q) = self.head_norm(layer.q_norm.as_ref(), q);
        let (mut k, raw_k) = self.head_norm(layer.k_norm.as_ref(), k);
        rope(&mut q.data, q.cols, dim, rows.table, rows.positions, false);
        rope(&mut k.data, k.cols, dim, rows.table, rows.positions, false);
        Qkv { q, k, v, raw_q, raw_k }
    }

    fn head_norm(&self, norm: Option<&Norm>, x: Mat) -> (Mat, Option<Mat>) {
        match norm {
            Some(norm) => (self.norm(norm, &x), Some(x)),
            None => (x, None),
        }
    }

    /// The MLP up to its last projection.
    fn mlp(&self, l: usize, rows: &Rows, input: Mat) -> Mlp {
        let kind = kernel(self.backbone.config.activation);
        let (gate, up) = if self.has(l, Proj::Gate) {
            let [gate, up] = self.linears(l, [Proj::Gate, Proj::Up], &input, rows);
            (Some(gate), up)
        } else {
            (None, self.linear(l, Proj::Up, &input, rows))
        };
        let act = activated(kind, gate.as_ref(), &up);
        Mlp { input: Some(input), gate, up, act: Some(act) }
    }

    pub(super) fn attention_input(&self, l: usize, x: &Mat) -> Mat {
        self.norm(&self.backbone.layers[l].attn_norm, x)
    }

    /// Queries, keys and values of whole sequences, and what attention makes of them.
    fn attend(&self, l: usize, rows: &Rows, spans: &[Span], attn_in: &Mat) -> (Qkv, Mat) {
        let qkv = self.qkv(l, rows, attn_in);
        let mut mixed = Mat::zeros(attn_in.rows, qkv.q.cols);
        attention(self.heads(), spans, &qkv.q.data, &qkv.k.data, &qkv.v.data, &mut mixed.data);
        (qkv, mixed)
    }

    /// The residual stream after attention: `x` is the layer's input.
    fn add_attention(&self, l: usize, rows: &Rows, x: &Mat, mixed: &Mat) -> Mat {
        let mut out = self.linear(l, Proj::O, mixed, rows);
        vector::add(&mut out.data, &x.data);
        out
    }

    /// The layer's output from its input `x` and what attention gave.
    pub(super) fn after_attention(&self, l: usize, rows: &Rows, x: &Mat, mixed: &Mat) -> Mat {
        let mut out = self.add_attention(l, rows, x, mixed);
        let parallel = self.backbone.config.parallel_residual;
        let input = self.norm(&self.backbone.layers[l].mlp_norm, if parallel { x } else { &out });
        self.add_mlp(l, rows, &self.mlp(l, rows, input), &mut out);
        out
    }

    /// out += the MLP's last projection.
    fn add_mlp(&self, l: usize, rows: &Rows, mlp: &Mlp, out: &mut Mat) {
        let result = mlp.act.as_ref().map(|act| self.linear(l, Proj::Down, act, rows));
        vector::add(&mut out.data, &result.expect("forgotten only after this").data);
    }

    /// The layer's output from its input `x` and all of its activations.
    pub(super) fn output(&self, l: usize, rows: &Rows, x: &Mat, acts: &Acts) -> Mat {
        let mut out = acts.middle.clone().unwrap_or_else(|| self.add_attention(l, rows, x, &acts.mixed));
        self.add_mlp(l, rows, &acts.mlp, &mut out);
        out
    }

    /// The layer's output, and its keys and values.
    pub(super) fn layer(&self, l: usize, rows: &Rows, spans: &[Span], x: &Mat) -> (Mat, Qkv) {
        let (qkv, mixed) = self.attend(l, rows, spans, &self.attention_input(l, x));
        (self.after_attention(l, rows, x, &mixed), qkv)
    }

    /// What the backward pass of the layer reads, from its input.
    pub(super) fn acts(&self, l: usize, rows: &Rows, spans: &[Span], x: &Mat) -> Acts {
        let attn_in = self.attention_input(l, x);
        let (qkv, mixed) = self.attend(l, rows, spans, &attn_in);
        let middle = (!self.backbone.config.parallel_residual).then(|| self.add_attention(l, rows, x, &mixed));
        let input = self.norm(&self.backbone.layers[l].mlp_norm, middle.as_ref().unwrap_or(x));
        Acts { attn_in: Some(attn_in), qkv, mixed, middle, mlp: self.mlp(l, rows, input) }
    }

    /// Makes again what was forgotten and the gradients of the parameters in `grads` read.
    pub(super) fn restore(&self, l: usize, x: &Mat, acts: &mut Acts, grads: &Grads) {
        let trains = |projs: &[Proj]| projs.iter().any(|p| trains_linear(grads, l, *p));
        if acts.attn_in.is_none() && trains(&[Proj::Q, Proj::K, Proj::V, Proj::Qkv]) {
            acts.attn_in = Some(self.attention_input(l, x));
        }
        let mlp = &mut acts.mlp;
        if mlp.input.is_none() && trains(&[Proj::Gate, Proj::Up]) {
            let input = acts.middle.as_ref().unwrap_or(x);
            mlp.input = Some(self.norm(&self.backbone.layers[l].mlp_norm, input));
        }
        if mlp.act.is_none() && trains(&[Proj::Down]) {
            mlp.act = Some(activated(kernel(self.backbone.config.activation), mlp.gate.as_ref(), &mlp.up));
        }
    }

    /// Adds the layer's parameter gradients to `grads`; turns `d`, the gradient of the output,
    /// into that of the input `x` if `need_input`, else leaves it meaningless. Nothing is
    /// computed that neither asks for.
    #[expect(clippy::too_many_arguments, reason = "a hand-written derivative names every buffer it reads")]
    pub(super) fn layer_backward(
        &self,
        l: usize,
        rows: &Rows,
        spans: &[Span],
        x: &Mat,
        acts: &mut Acts,
        d: &mut Mat,
        need_input: bool,
        grads: &mut Grads,
    ) {
        let attention = need_input || trains_attention(grads, l);
        // With parallel residuals the attention's gradient is the output's, untouched.
        let d_out = acts.middle.is_none().then(|| d.clone());
        let through_mlp = if acts.middle.is_some() { attention } else { need_input };
        if through_mlp || trains_mlp(grads, l) {
            self.mlp_backward(l, rows, acts, x, d, through_mlp, grads);
        }
        if attention {
            let d_attn = match &d_out {
                Some(d_out) => self.attention_part_backward(l, rows, spans, acts, d_out, need_input, grads),
                None => self.attention_part_backward(l, rows, spans, acts, d, need_input, grads),
            };
            let norm = &self.backbone.layers[l].attn_norm;
            self.norm_backward(norm, |p| ParamId::AttnNorm(l, p), x, &d_attn, need_input.then_some(d), grads);
        }
    }

    /// d += the MLP's share, through its norm.
    #[expect(clippy::too_many_arguments, reason = "a hand-written derivative names every buffer it reads")]
    fn mlp_backward(
        &self,
        l: usize,
        rows: &Rows,
        acts: &mut Acts,
        x: &Mat,
        d: &mut Mat,
        through: bool,
        grads: &mut Grads,
    ) {
        let kind = kernel(self.backbone.config.activation);
        let mlp = &mut acts.mlp;
        let norm_id = |p| ParamId::MlpNorm(l, p);
        let need_norm = through || grads.trains(norm_id(Part::Weight)) || grads.trains(norm_id(Part::Bias));
        let need_act = need_norm || [Proj::Gate, Proj::Up].iter().any(|p| trains_linear(grads, l, *p));
        let mut d_act = Mat::zeros(mlp.up.rows, mlp.up.cols);
        self.linear_backward(rows, l, Proj::Down, mlp.act.as_ref(), d, need_act.then_some(&mut d_act), grads);
        if !need_act {
            return;
        }
        let mut d_in = Mat::zeros(x.rows, x.cols);
        let input = mlp.input.as_ref();
        match &mut mlp.gate {
            Some(gate) => {
                activation::gated_backward(kind, &mut gate.data, &mut mlp.up.data, &d_act.data);
                self.linear_backward(rows, l, Proj::Gate, input, gate, need_norm.then_some(&mut d_in), grads);
                self.linear_backward(rows, l, Proj::Up, input, &mlp.up, need_norm.then_some(&mut d_in), grads);
            }
            None => {
                activation::activate_backward(kind, &mlp.up.data, &mut d_act.data);
                self.linear_backward(rows, l, Proj::Up, input, &d_act, need_norm.then_some(&mut d_in), grads);
            }
        }
        if need_norm {
            let input = acts.middle.as_ref().unwrap_or(x);
            let norm = &self.backbone.layers[l].mlp_norm;
            self.norm_backward(norm, norm_id, input, &d_in, through.then_some(d), grads);
        }
    }

    /// The gradient of the attention's normed input; zeros where nothing asks for it.
    #[expect(clippy::too_many_arguments, reason = "a hand-written derivative names every buffer it reads")]
    fn attention_part_backward(
        &self,
        l: usize,
        rows: &Rows,
        spans: &[Span],
        acts: &Acts,
        d: &Mat,
        need_input: bool,
        grads: &mut Grads,
    ) -> Mat {
        let norm_id = |p| ParamId::AttnNorm(l, p);
        let need_norm = need_input || grads.trains(norm_id(Part::Weight)) || grads.trains(norm_id(Part::Bias));
        let heads = [ParamId::QNorm(l), ParamId::KNorm(l)].iter().any(|id| grads.trains(*id));
        let projections = [Proj::Q, Proj::K, Proj::V, Proj::Qkv].iter().any(|p| trains_linear(grads, l, *p));
        let need_mixed = need_norm || heads || projections;
        let mut d_mixed = Mat::zeros(acts.mixed.rows, acts.mixed.cols);
        self.linear_backward(rows, l, Proj::O, Some(&acts.mixed), d, need_mixed.then_some(&mut d_mixed), grads);
        let mut d_in = Mat::zeros(d.rows, d.cols);
        let attn_in = acts.attn_in.as_ref();
        if !need_mixed {
            return d_in;
        }
        let Qkv { q, k, v, raw_q, raw_k } = &acts.qkv;
        let like = |m: &Mat| Mat::zeros(m.rows, m.cols);
        let (mut dq, mut dk, mut dv) = (like(q), like(k), like(v));
        let shape = self.heads();
        attention_backward(
            shape,
            spans,
            &q.data,
            &k.data,
            &v.data,
            &d_mixed.data,
            &mut dq.data,
            &mut dk.data,
            &mut dv.data,
        );
        rope(&mut dq.data, q.cols, shape.dim, rows.table, rows.positions, true);
        rope(&mut dk.data, k.cols, shape.dim, rows.table, rows.positions, true);
        let layer = &self.backbone.layers[l];
        let dq = self.head_norm_backward(layer.q_norm.as_ref(), ParamId::QNorm(l), raw_q.as_ref(), dq, grads);
        let dk = self.head_norm_backward(layer.k_norm.as_ref(), ParamId::KNorm(l), raw_k.as_ref(), dk, grads);
        if self.has(l, Proj::Qkv) {
            let d_qkv = join_heads(&dq, &dk, &dv, shape.dim);
            self.linear_backward(rows, l, Proj::Qkv, attn_in, &d_qkv, need_norm.then_some(&mut d_in), grads);
        } else {
            for (proj, dy) in [(Proj::Q, dq), (Proj::K, dk), (Proj::V, dv)] {
                self.linear_backward(rows, l, proj, attn_in, &dy, need_norm.then_some(&mut d_in), grads);
            }
        }
        d_in
    }

    fn head_norm_backward(
        &self,
        norm: Option<&Norm>,
        id: ParamId,
        raw: Option<&Mat>,
        dy: Mat,
        grads: &mut Grads,
    ) -> Mat {
        let (Some(norm), Some(raw)) = (norm, raw) else {
            return dy;
        };
        let mut dx = Mat::zeros(raw.rows, raw.cols);
        self.norm_backward(norm, |_| id, raw, &dy, Some(&mut dx), grads);
        dx
    }
}

/// The MLP's rows before its last projection.
fn activated(kind: activation::Activation, gate: Option<&Mat>, up: &Mat) -> Mat {
    let mut act = Mat::zeros(up.rows, up.cols);
    match gate {
        Some(gate) => activation::gated(kind, &gate.data, &up.data, &mut act.data),
        None => activation::activate(kind, &up.data, &mut act.data),
    }
    act
}

fn trains_linear(grads: &Grads, l: usize, proj: Proj) -> bool {
    [Part::Weight, Part::Bias].iter().any(|p| grads.trains(ParamId::Linear(l, proj, *p)))
        || grads.trains(ParamId::LoraA(l, proj))
        || grads.trains(ParamId::LoraB(l, proj))
}

fn trains_norm(grads: &Grads, id: impl Fn(Part) -> ParamId) -> bool {
    grads.trains(id(Part::Weight)) || grads.trains(id(Part::Bias))
}

fn trains_attention(grads: &Grads, l: usize) -> bool {
    trains_norm(grads, |p| ParamId::AttnNorm(l, p))
        || grads.trains(ParamId::QNorm(l))
        || grads.trains(ParamId::KNorm(l))
        || [Proj::Q, Proj::K, Proj::V, Proj::Qkv, Proj::O].iter().any(|p| trains_linear(grads, l, *p))
}

fn trains_mlp(grads: &Grads, l: usize) -> bool {
    trains_norm(grads, |p| ParamId::MlpNorm(l, p))
        || [Proj::Gate, Proj::Up, Proj::Down].iter().any(|p| trains_linear(grads, l, *p))
}

/// True where some parameter of layer `l` is trained.
pub(super) fn trains_layer(grads: &Grads, l: usize) -> bool {
    trains_attention(grads, l) || trains_mlp(grads, l)
}

/// `[rows, heads, 3, dim]` to q, k and v, each `[rows, heads, dim]`.
fn split_heads(qkv: &Mat, dim: usize) -> (Mat, Mat, Mat) {
    let mut parts: [Mat; 3] = std::array::from_fn(|_| Mat::zeros(qkv.rows, qkv.cols / 3));
    for (i, head) in qkv.data.chunks_exact(3 * dim).enumerate() {
        for (part, values) in parts.iter_mut().zip(head.chunks_exact(dim)) {
            part.data[i * dim..(i + 1) * dim].copy_from_slice(values);
        }
    }
    let [q, k, v] = parts;
    (q, k, v)
}

fn join_heads(q: &Mat, k: &Mat, v: &Mat, dim: usize) -> Mat {
    let mut out = Mat::zeros(q.rows, 3 * q.cols);
    for (i, head) in out.data.chunks_exact_mut(3 * dim).enumerate() {
        for (part, values) in [q, k, v].iter().zip(head.chunks_exact_mut(dim)) {
            values.copy_from_slice(&part.data[i * dim..(i + 1) * dim]);
        }
    }
    out
}

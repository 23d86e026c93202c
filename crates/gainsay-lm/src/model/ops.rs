//! Building blocks of the layers: projections with their adapter, norms, rotary angles.

use std::sync::Arc;

use gainsay_kernels::activation::Activation as Kernel;
use gainsay_kernels::gemm::{Left, PackedWeight, Precision, matmul, products};
use gainsay_kernels::rope::RopeTable;
use gainsay_kernels::{norm, vector};

use super::dropout::Dropout;
use super::layer::Rows;
use super::params::{Backbone, Grads, LoraPair, Model, Norm, ParamId, Part, Proj};
use crate::config::{Activation, ModelConfig};

/// A row-major matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mat {
    /// Number of rows.
    pub rows: usize,
    /// Values a row.
    pub cols: usize,
    /// `rows * cols` values.
    pub data: Vec<f32>,
}

impl Mat {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to change.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Rows `range`, copied.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let data = self.data[range.start * self.cols..range.end * self.cols].to_vec();
        Self { rows: range.len(), cols: self.cols, data }
    }

    /// Adds rows of the same width below.
    pub fn append(&mut self, rows: &Mat) {
        debug_assert_eq!(self.cols, rows.cols);
        self.data.extend_from_slice(&rows.data);
        self.rows += rows.rows;
    }

    /// The named rows, in that order.
    pub fn gather(&self, rows: &[usize]) -> Self {
        let mut data = Vec::with_capacity(rows.len() * self.cols);
        rows.iter().for_each(|row| data.extend_from_slice(self.row(*row)));
        Self { rows: rows.len(), cols: self.cols, data }
    }
}

/// x·Bᵀ for a small factor B `[out, in]`, times `scale`.
fn times_transposed(x: &Mat, factor: &super::Tensor, scale: f32) -> Mat {
    let mut y = Mat::zeros(x.rows, factor.shape[0]);
    matmul(
        x.rows,
        &x.data,
        Left::Rows,
        &PackedWeight::transposed(&factor.data, factor.shape[0], x.cols, Precision::F32),
        &mut y.data,
        false,
    );
    if scale != 1.0 {
        vector::scale(&mut y.data, scale);
    }
    y
}

impl Backbone {
    /// Packs every matrix for the forward products now, in parallel, rather than at first use.
    pub fn pack(&self) {
        let ids: Vec<ParamId> = (0..self.layers.len())
            .flat_map(|l| self.layers[l].projections().map(move |(proj, _)| ParamId::Linear(l, proj, Part::Weight)))
            .chain([self.unembedding().0])
            .collect();
        ids.into_iter().for_each(|id| drop(self.packed(id)));
    }

    /// Matrix `id`, its rows and columns.
    fn matrix(&self, id: ParamId) -> (&[f32], usize, usize) {
        let tensor = match id {
            ParamId::Linear(l, proj, Part::Weight) => self.layers[l].linears[proj.index()].as_ref().map(|l| &l.weight),
            ParamId::LmHead => self.lm_head.as_ref(),
            _ => Some(&self.embed),
        };
        let weight = tensor.expect("only parameters that exist are packed");
        (&weight.data, weight.shape[0], weight.shape[1])
    }

    /// The packed copy of matrix `id` for x·Wᵀ.
    pub(super) fn packed(&self, id: ParamId) -> Arc<PackedWeight> {
        self.cache.get(id, || {
            let (weight, out, input) = self.matrix(id);
            PackedWeight::transposed(weight, out, input, self.cache.precision())
        })
    }

    /// A packed copy of matrix `id` for dy·W. It is not kept: packing it takes a hundredth of the
    /// time of a product with a micro-batch.
    pub(super) fn packed_plain(&self, id: ParamId) -> PackedWeight {
        let (weight, out, input) = self.matrix(id);
        PackedWeight::plain(weight, out, input, self.cache.precision())
    }
}

impl Model {
    fn lora(&self, layer: usize, proj: Proj) -> Option<(&LoraPair, f32)> {
        let adapter = self.adapter.as_ref()?;
        Some((adapter.pairs.get(&(layer, proj))?, adapter.scale()))
    }

    /// The dropout of what the adapter of projection `proj` reads.
    fn dropout<'a>(&self, layer: usize, proj: Proj, rows: &Rows<'a>) -> Dropout<'a> {
        let rate = self.adapter.as_ref().map_or(0.0, |adapter| adapter.config.dropout);
        Dropout { keys: rows.dropout, rate, place: (layer, proj) }
    }

    /// y = x Wᵀ + b + (alpha / rank) (x̃ Aᵀ) Bᵀ for projection `proj` of `layer`; x̃ is x after
    /// [`Dropout`].
    pub(super) fn linear(&self, layer: usize, proj: Proj, x: &Mat, rows: &Rows) -> Mat {
        let [y] = self.linears(layer, [proj], x, rows);
        y
    }

    /// [`Model::linear`] for projections that read the same rows.
    pub(super) fn linears<const N: usize>(&self, layer: usize, projs: [Proj; N], x: &Mat, rows: &Rows) -> [Mat; N] {
        let packed = |proj| self.backbone.packed(ParamId::Linear(layer, proj, Part::Weight));
        let weights = projs.map(packed);
        let results = products(x.rows, &x.data, Left::Rows, weights.each_ref().map(|w| &**w));
        let mut ys = results.map(|data| Mat { rows: x.rows, cols: data.len() / x.rows.max(1), data });
        for (y, proj) in ys.iter_mut().zip(projs) {
            self.add_bias_and_adapter(layer, proj, x, y, rows);
        }
        ys
    }

    fn add_bias_and_adapter(&self, layer: usize, proj: Proj, x: &Mat, y: &mut Mat, rows: &Rows) {
        if let Some(bias) = self.backbone.layers[layer].linears[proj.index()].as_ref().and_then(|l| l.bias.as_ref()) {
            vector::add_bias(&mut y.data, &bias.data);
        }
        if let Some((pair, scale)) = self.lora(layer, proj) {
            let low = times_transposed(&self.dropout(layer, proj, rows).of(x), &pair.a, scale);
            let (out, rank) = (pair.b.shape[0], pair.b.shape[1]);
            let b = PackedWeight::transposed(&pair.b.data, out, rank, Precision::F32);
            matmul(x.rows, &low.data, Left::Rows, &b, &mut y.data, true);
        }
    }

    /// Adds the gradients of [`Model::linear`] to `grads` where it trains them, and to `dx`
    /// where given. With s = alpha / rank and e = s dy B: dW += dyᵀ x, db += sum of dy,
    /// dA += eᵀ x̃, dB += s dyᵀ (x̃ Aᵀ), dx += dy W + m (e A), m being the factor of [`Dropout`].
    /// `x` is read only where it trains something; dW has the precision of the weights' products.
    #[expect(clippy::too_many_arguments, reason = "a hand-written derivative names every buffer it reads")]
    pub(super) fn linear_backward(
        &self,
        rows: &Rows,
        layer: usize,
        proj: Proj,
        x: Option<&Mat>,
        dy: &Mat,
        mut dx: Option<&mut Mat>,
        grads: &mut Grads,
    ) {
        let id = ParamId::Linear(layer, proj, Part::Weight);
        if let Some(sum) = grads.get_mut(id) {
            let x = x.expect(INPUT_OF_TRAINED);
            let right = PackedWeight::plain(&x.data, x.rows, x.cols, self.backbone.cache.precision());
            matmul(dy.cols, &dy.data, Left::Columns, &right, sum, true);
        }
        if let Some(sum) = grads.get_mut(ParamId::Linear(layer, proj, Part::Bias)) {
            vector::add_column_sums(&dy.data, sum);
        }
        if let Some(dx) = dx.as_deref_mut() {
            let weight = self.backbone.packed_plain(id);
            matmul(dy.rows, &dy.data, Left::Rows, &weight, &mut dx.data, true);
        }
        if let Some((pair, scale)) = self.lora(layer, proj) {
            let dropout = self.dropout(layer, proj, rows);
            let x = x.map(|x| dropout.of(x));
            lora_backward(pair, scale, dropout, x.as_deref(), dy, dx, grads);
        }
    }

    /// The norm over rows of `norm.weight` values: LayerNorm where there is a bias.
    pub(super) fn norm(&self, norm: &Norm, x: &Mat) -> Mat {
        let mut y = Mat::zeros(x.rows, x.cols);
        let eps = self.backbone.config.norm_eps;
        match &norm.bias {
            Some(bias) => norm::layer_norm(&x.data, &norm.weight.data, &bias.data, eps, &mut y.data),
            None => norm::rms_norm(&x.data, &norm.weight.data, eps, &mut y.data),
        }
        y
    }

    /// Adds the gradients of [`Model::norm`] to `dx` and, where trained, to `grads`.
    pub(super) fn norm_backward(
        &self,
        norm: &Norm,
        id: impl Fn(Part) -> ParamId,
        x: &Mat,
        dy: &Mat,
        dx: Option<&mut Mat>,
        grads: &mut Grads,
    ) {
        let eps = self.backbone.config.norm_eps;
        let dx = dx.map(|m| &mut m.data[..]);
        if norm.bias.is_some() {
            if let Some(sum) = grads.get_mut(id(Part::Bias)) {
                vector::add_column_sums(&dy.data, sum);
            }
            let d_weight = grads.get_mut(id(Part::Weight));
            norm::layer_norm_backward(&x.data, &norm.weight.data, eps, &dy.data, dx, d_weight);
        } else {
            let d_weight = grads.get_mut(id(Part::Weight));
            norm::rms_norm_backward(&x.data, &norm.weight.data, eps, &dy.data, dx, d_weight);
        }
    }
}

/// [`Model::restore`] sees to it.
const INPUT_OF_TRAINED: &str = "the input of a projection that is trained is there";

fn lora_backward(
    pair: &LoraPair,
    scale: f32,
    dropout: Dropout<'_>,
    x: Option<&Mat>,
    dy: &Mat,
    dx: Option<&mut Mat>,
    grads: &mut Grads,
) {
    let (out, rank) = (pair.b.shape[0], pair.b.shape[1]);
    let (layer, proj) = dropout.place;
    let (id_a, id_b) = (ParamId::LoraA(layer, proj), ParamId::LoraB(layer, proj));
    if dx.is_none() && !grads.trains(id_a) && !grads.trains(id_b) {
        return;
    }
    let mut low = Mat::zeros(dy.rows, rank);
    matmul(
        dy.rows,
        &dy.data,
        Left::Rows,
        &PackedWeight::plain(&pair.b.data, out, rank, Precision::F32),
        &mut low.data,
        false,
    );
    vector::scale(&mut low.data, scale);
    if let Some(sum) = grads.get_mut(id_a) {
        let x = x.expect(INPUT_OF_TRAINED);
        matmul(
            rank,
            &low.data,
            Left::Columns,
            &PackedWeight::plain(&x.data, x.rows, x.cols, Precision::F32),
            sum,
            true,
        );
    }
    if let Some(sum) = grads.get_mut(id_b) {
        let down = times_transposed(x.expect(INPUT_OF_TRAINED), &pair.a, scale);
        matmul(
            out,
            &dy.data,
            Left::Columns,
            &PackedWeight::plain(&down.data, dy.rows, rank, Precision::F32),
            sum,
            true,
        );
    }
    if let Some(dx) = dx {
        let a = PackedWeight::plain(&pair.a.data, rank, dx.cols, Precision::F32);
        if dropout.is_off() {
            matmul(dy.rows, &low.data, Left::Rows, &a, &mut dx.data, true);
            return;
        }
        let mut through = Mat::zeros(dx.rows, dx.cols);
        matmul(dy.rows, &low.data, Left::Rows, &a, &mut through.data, false);
        dropout.apply(&mut through);
        vector::add(&mut dx.data, &through.data);
    }
}

/// The kernel's name of the non-linearity.
pub(super) fn kernel(activation: Activation) -> Kernel {
    match activation {
        Activation::Silu => Kernel::Silu,
        Activation::Gelu => Kernel::Gelu,
        Activation::GeluTanh => Kernel::GeluTanh,
    }
}

/// Rotary frequencies theta^(-2i/d), with Llama 3's division of the low ones: wavelengths
/// above `original / low` are divided by `factor`, those below `original / high` kept, and those
/// between interpolated (the scheme of Llama 3.1's reference code). Rounded to f32, as the models were trained.
pub fn rope_frequencies(config: &ModelConfig) -> Vec<f64> {
    let d = config.rotary_dim as f64;
    let plain = (0..config.rotary_dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / d));
    let scaled = plain.map(|f| {
        let Some(s) = config.rope_scaling else {
            return f;
        };
        let turns = s.original_positions * f / std::f64::consts::TAU;
        let keep = ((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)).clamp(0.0, 1.0);
        keep * f + (1.0 - keep) * f / s.factor
    });
    scaled.map(|f| f64::from(f as f32)).collect()
}

/// Cosines and sines for positions below `positions`.
pub(super) fn rope_table(config: &ModelConfig, positions: usize) -> RopeTable {
    RopeTable::new(&rope_frequencies(config), positions)
}

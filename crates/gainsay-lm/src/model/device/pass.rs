//! Forward and backward of packed rows. As in the engine a tape keeps the input of each layer and
//! the backward pass computes one layer at a time again: a graph never spans more than that.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var};

use super::attention::Plan;
use super::layer::Computer;
use super::ops::Angles;
use super::weights::{Weights, factors};
use super::{Outcome, Resident, failed};
use crate::model::layer::trains_layer;
use crate::model::ops::Mat;
use crate::model::packed::Packed;
use crate::model::params::{Grads, Model, ParamId, Part};

/// What a backward pass on a device needs.
pub struct DeviceTape {
    /// The sequences.
    pub batch: Packed,
    /// After the final norm, `[rows, hidden]`.
    pub hidden: Mat,
    /// Inputs of the layers from the lowest that the backward pass goes through, and the last
    /// layer's output.
    inputs: Vec<Tensor>,
    lowest: usize,
    rows: Rows,
}

/// What all layers of a pass share.
struct Rows {
    angles: Angles,
    plan: Plan,
}

impl Rows {
    fn new(computer: &Computer, batch: &Packed) -> Result<Self> {
        let plan = Plan::new(computer.heads(), &batch.spans(), batch.tokens.len(), computer.device())?;
        Ok(Self { angles: computer.angles(&batch.positions)?, plan })
    }

    fn layer(&self, computer: &Computer, l: usize, x: &Tensor) -> Result<Tensor> {
        computer.layer(l, x, &self.angles, |q, k, v| self.plan.attend(q, k, v))
    }
}

/// A computer of `model`, with its adapter, on the device where `weights` are.
pub(super) fn computer<'a>(model: &'a Model, weights: &'a Weights) -> Result<Computer<'a>> {
    let own = factors(model.adapter.as_ref(), &weights.device)?;
    let scale = model.adapter.as_ref().map_or(1.0, |a| f64::from(a.scale()));
    let rate = model.adapter.as_ref().map_or(0.0, |a| a.config.dropout);
    Ok(Computer { own, scale, rate, ..Computer::of_backbone(model, weights) })
}

/// Rows on the host.
pub(super) fn rows_of(x: &Tensor) -> Result<Mat> {
    let (rows, cols) = x.dims2()?;
    Ok(Mat { rows, cols, data: x.flatten_all()?.to_vec1()? })
}

fn upload(x: &Mat, computer: &Computer) -> Result<Tensor> {
    Tensor::from_slice(&x.data, (x.rows, x.cols), computer.device())
}

impl Resident {
    /// The residual stream after the first `layer` layers; `None`: after all and the final norm.
    pub(in crate::model) fn hidden(&self, model: &Model, batch: &Packed, layer: Option<usize>) -> Outcome<Mat> {
        if batch.tokens.is_empty() {
            return Ok(Mat::zeros(0, model.backbone.config.hidden_size));
        }
        let compute = || {
            let weights = self.weights(&model.backbone)?;
            let computer = Computer { dropout: &batch.dropout, ..computer(model, &weights)? };
            let rows = Rows::new(&computer, batch)?;
            let mut x = computer.embed(&batch.tokens)?;
            for l in 0..layer.unwrap_or(model.backbone.layers.len()) {
                x = rows.layer(&computer, l, &x)?.detach();
            }
            match layer {
                Some(_) => rows_of(&x),
                None => rows_of(&computer.norm(ParamId::FinalNorm, &x)?),
            }
        };
        compute().map_err(|e| failed(model, e))
    }

    /// The hidden rows after the final norm, and a tape that leads back from them to the
    /// parameters in `grads`.
    pub(in crate::model) fn forward_tape(&self, model: &Model, batch: &Packed, grads: &Grads) -> Outcome<DeviceTape> {
        let compute = || {
            let weights = self.weights(&model.backbone)?;
            let computer = Computer { dropout: &batch.dropout, ..computer(model, &weights)? };
            let rows = Rows::new(&computer, batch)?;
            let layers = model.backbone.layers.len();
            let lowest =
                if grads.trains(ParamId::Embed) { Some(0) } else { (0..layers).find(|l| trains_layer(grads, *l)) };
            let lowest = lowest.unwrap_or(layers);
            let mut x = computer.embed(&batch.tokens)?.detach();
            let mut inputs = Vec::with_capacity(layers + 1 - lowest);
            for l in 0..layers {
                let input = x;
                x = rows.layer(&computer, l, &input)?.detach();
                if l >= lowest {
                    inputs.push(input);
                }
            }
            let hidden = rows_of(&computer.norm(ParamId::FinalNorm, &x)?)?;
            inputs.push(x);
            Ok(DeviceTape { batch: batch.clone(), hidden, inputs, lowest, rows })
        };
        compute().map_err(|e| failed(model, e))
    }

    /// Adds to `grads` what `d_hidden`, the gradient of the hidden rows, sends to its parameters.
    pub(in crate::model) fn backward(
        &self,
        model: &Model,
        tape: DeviceTape,
        d_hidden: &Mat,
        grads: &mut Grads,
    ) -> Outcome<()> {
        let compute = || {
            let weights = self.weights(&model.backbone)?;
            let DeviceTape { batch, mut inputs, lowest, rows, .. } = tape;
            let mut computer = Computer { dropout: &batch.dropout, ..computer(model, &weights)? };
            let layers = model.backbone.layers.len();
            let through_embeddings = grads.trains(ParamId::Embed);
            let last = inputs.pop().map_or_else(|| candle_core::bail!("the tape is empty"), Ok)?;
            let d = upload(d_hidden, &computer)?;
            let need = lowest < layers || through_embeddings;
            let norms = [Part::Weight, Part::Bias].map(ParamId::FinalNorm);
            let mut d = pull(&mut computer, &last, &d, need, &norms, grads, |c, x| c.norm(ParamId::FinalNorm, x))?;
            for l in (lowest..layers).rev() {
                let (Some(input), Some(output)) = (inputs.pop(), d) else { candle_core::bail!("the tape ends early") };
                let need = l > lowest || through_embeddings;
                let ids: Vec<ParamId> = grads.by_id.keys().copied().filter(|id| of_layer(*id, l)).collect();
                d = pull(&mut computer, &input, &output, need, &ids, grads, |c, x| rows.layer(c, l, x))?;
            }
            match (d, grads.get_mut(ParamId::Embed)) {
                (Some(d), Some(sum)) => {
                    let d = rows_of(&d)?;
                    gainsay_kernels::vocab::add_rows_by_id(&d.data, &batch.tokens, d.cols, sum);
                    Ok(())
                }
                _ => Ok(()),
            }
        };
        compute().map_err(|e: candle_core::Error| failed(model, e))
    }
}

/// True where `id` is a parameter of layer `l`.
fn of_layer(id: ParamId, l: usize) -> bool {
    match id {
        ParamId::AttnNorm(of, _)
        | ParamId::MlpNorm(of, _)
        | ParamId::QNorm(of)
        | ParamId::KNorm(of)
        | ParamId::Linear(of, ..)
        | ParamId::LoraA(of, _)
        | ParamId::LoraB(of, _) => of == l,
        ParamId::Embed | ParamId::FinalNorm(_) | ParamId::LmHead | ParamId::Head => false,
    }
}

/// Pulls the gradient `d` of step(x) back: adds those of the parameters `ids` that are trained to
/// `grads`, and returns that of x where it is needed.
fn pull(
    computer: &mut Computer,
    x: &Tensor,
    d: &Tensor,
    need_input: bool,
    ids: &[ParamId],
    grads: &mut Grads,
    step: impl Fn(&Computer, &Tensor) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let mut variables: BTreeMap<ParamId, Var> = BTreeMap::new();
    for &id in ids.iter().filter(|id| grads.trains(**id)) {
        if let Some(value) = computer.get(id) {
            variables.insert(id, Var::from_tensor(value)?);
        }
    }
    if variables.is_empty() && !need_input {
        return Ok(None);
    }
    let frozen = computer.own.clone();
    computer.own.extend(variables.iter().map(|(id, var)| (*id, var.as_tensor().clone())));
    let input = need_input.then(|| Var::from_tensor(x)).transpose()?;
    let y = step(computer, input.as_ref().map_or(x, |input| input.as_tensor()));
    computer.own = frozen;
    let found = (y? * d)?.sum_all()?.backward()?;
    for (id, variable) in &variables {
        if let (Some(gradient), Some(sum)) = (found.get(variable), grads.get_mut(*id)) {
            let gradient: Vec<f32> = gradient.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            gainsay_kernels::vector::add(sum, &gradient);
        }
    }
    Ok(input.and_then(|input| found.get(&input).map(Tensor::detach)))
}

//! The vocabulary product with log-sum-exp and the picked token, in lots of rows: all logits are
//! never held. Its derivative is written out.

use candle_core::{D, DType, Result, Tensor};

use super::layer::Computer;
use super::pass::rows_of;
use super::{Outcome, Resident, failed};
use crate::model::ops::Mat;
use crate::model::params::Model;

/// Most logits that are held at once.
const LOGITS: usize = 1 << 26;

/// Some hidden rows, each with the token that it is asked about.
pub(in crate::model) struct Asked<'a> {
    /// `[rows, hidden]`, after the final norm.
    pub hidden: &'a Mat,
    /// One a row.
    pub targets: &'a [u32],
    /// Logits are divided by it.
    pub temperature: f64,
}

impl Resident {
    /// log softmax(hidden Uᵀ / temperature)\[target\] in nats, one a row.
    pub(in crate::model) fn token_logps(&self, model: &Model, asked: &Asked) -> Outcome<Vec<f32>> {
        let mut out = Vec::with_capacity(asked.targets.len());
        let mut compute = || {
            let weights = self.weights(&model.backbone)?;
            let computer = Computer::of_backbone(model, &weights);
            for lot in lots(model, asked) {
                let (_, targets, z) = scaled(&computer, asked, lot)?;
                let shifted = z.broadcast_sub(&z.max_keepdim(D::Minus1)?)?;
                let all = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
                let logps = (shifted.gather(&targets, 1)? - all)?;
                out.extend(logps.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(())
        };
        compute().map_err(|e| failed(model, e))?;
        Ok(out)
    }

    /// The gradient of sum(d_logp log-probs) by the hidden rows; that by U is added to `d_output`
    /// where given. With p the softmax and t the target, dz = d_logp (1\[t\] - p) / temperature,
    /// dh = dz U, dU = dzᵀ h.
    pub(in crate::model) fn token_logps_backward(
        &self,
        model: &Model,
        asked: &Asked,
        d_logp: &[f32],
        d_output: Option<&mut [f32]>,
    ) -> Outcome<Mat> {
        let mut out = Mat { rows: 0, cols: asked.hidden.cols, data: Vec::with_capacity(asked.hidden.data.len()) };
        let compute = || {
            let weights = self.weights(&model.backbone)?;
            let computer = Computer::of_backbone(model, &weights);
            let output = weights.output.to_dtype(DType::F32)?;
            let mut sum = d_output.is_some().then(|| output.zeros_like()).transpose()?;
            for lot in lots(model, asked) {
                let d = Tensor::from_slice(&d_logp[lot.clone()], (lot.len(), 1), computer.device())?;
                let d = (d / asked.temperature)?;
                let (h, targets, z) = scaled(&computer, asked, lot)?;
                let weights = z.broadcast_sub(&z.max_keepdim(D::Minus1)?)?.exp()?;
                let all = weights.sum_keepdim(D::Minus1)?;
                let dz = weights.broadcast_mul(&(d.neg()? / all)?)?.scatter_add(&targets, &d, 1)?;
                out.append(&rows_of(&dz.matmul(&output)?)?);
                if let Some(sum) = &mut sum {
                    *sum = (&*sum + dz.t()?.matmul(&h)?)?;
                }
            }
            if let (Some(sum), Some(d_output)) = (sum, d_output) {
                gainsay_kernels::vector::add(d_output, &sum.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(())
        };
        compute().map_err(|e| failed(model, e))?;
        Ok(out)
    }
}

/// Runs of rows whose logits may be held together.
fn lots(model: &Model, asked: &Asked) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let (rows, size) = (asked.targets.len(), (LOGITS / model.backbone.config.vocab_size).max(1));
    (0..rows).step_by(size).map(move |start| start..(start + size).min(rows))
}

/// A lot's hidden rows, targets `[rows, 1]` and logits divided by the temperature.
fn scaled(computer: &Computer, asked: &Asked, lot: std::ops::Range<usize>) -> Result<(Tensor, Tensor, Tensor)> {
    let cols = asked.hidden.cols;
    let own = &asked.hidden.data[lot.start * cols..lot.end * cols];
    let hidden = Tensor::from_slice(own, (lot.len(), cols), computer.device())?;
    let targets = Tensor::from_slice(&asked.targets[lot.clone()], (lot.len(), 1), computer.device())?;
    let logits = (computer.logits(&hidden)? / asked.temperature)?;
    Ok((hidden, targets, logits))
}

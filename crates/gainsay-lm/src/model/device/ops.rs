//! Building blocks of the layers, each with a gradient.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp1, D, DType, Layout, Result, Shape, Storage, Tensor, bail};

use crate::config::Activation;

/// An op whose result is known and whose derivative is said: `backward(result, gradient of the
/// result)` is the gradient of the argument.
struct Derived<B> {
    /// Taken by the forward pass.
    result: Mutex<Option<Tensor>>,
    backward: B,
}

impl<B> Derived<B> {
    fn take(&self) -> Result<Tensor> {
        match self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(result) => Ok(result),
            None => bail!("an op with a derivative of its own ran twice"),
        }
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Tensor>> CustomOp1 for Derived<B> {
    fn name(&self) -> &'static str {
        "derived"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let result = self.take()?;
        let (storage, layout) = result.storage_and_layout();
        match storage.try_clone(layout)? {
            Storage::Cpu(copy) => Ok((copy, layout.shape().clone())),
            _ => bail!("argument and result are on different devices"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let result = self.take()?;
        let (storage, layout) = result.storage_and_layout();
        match storage.try_clone(layout)? {
            Storage::Cuda(copy) => Ok((copy, layout.shape().clone())),
            _ => bail!("argument and result are on different devices"),
        }
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(result, gradient).map(Some)
    }
}

/// `result`, which was computed from `x` outside the graph, with `backward(result, gradient)` as
/// the derivative by `x`. Saves what the steps between would keep, and work for constants.
fn derived(
    x: &Tensor,
    result: &Tensor,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let is_constant = x.sorted_nodes().is_empty();
    if is_constant {
        return Ok(result.clone());
    }
    // The op's result is a copy of this one's memory: it has to be that and nothing more.
    let whole = result.is_contiguous() && result.layout().start_offset() == 0;
    let result = if whole { result.clone() } else { result.force_contiguous()? };
    x.apply_op1(Derived { result: Mutex::new(Some(result)), backward })
}

/// y = x Wᵀ in f32 for x `[rows, in]` and W `[out, in]`, the operands rounded to W's format. A
/// weight that is no variable costs no gradient; the gradient of x is dy W.
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let plain = |x: &Tensor| x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32);
    if weight.is_variable() {
        return plain(x);
    }
    let frozen = weight.clone();
    derived(x, &plain(&x.detach())?, move |_, dy| dy.to_dtype(frozen.dtype())?.matmul(&frozen)?.to_dtype(DType::F32))
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension; with a bias LayerNorm,
/// (x - mean) / sqrt(variance + eps) * weight + bias.
pub(super) fn norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    let x = match bias {
        Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        None => x.clone(),
    };
    let size = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?;
    let y = x.broadcast_div(&size)?.broadcast_mul(weight)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// Cosines and sines of each row's position, `[rows, 1, rotary_dim / 2]`.
pub(super) struct Angles {
    pub cos: Tensor,
    pub sin: Tensor,
}

/// Rotates the leading dimensions of every head of x `[rows, heads, dim]`, half-split: dimension i
/// goes with i + rotary_dim / 2.
pub(super) fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    let half = angles.cos.dim(D::Minus1)?;
    let rest = x.dim(D::Minus1)? - 2 * half;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(&angles.cos)? - b.broadcast_mul(&angles.sin)?)?;
    let second = (b.broadcast_mul(&angles.cos)? + a.broadcast_mul(&angles.sin)?)?;
    match rest {
        0 => Tensor::cat(&[&first, &second], D::Minus1),
        _ => Tensor::cat(&[&first, &second, &x.narrow(D::Minus1, 2 * half, rest)?], D::Minus1),
    }
}

/// softmax(scale x + mask) over the last dimension; the mask is 0 or -inf, each row sees something.
/// Without a gradient by the mask.
pub(super) fn masked_softmax(x: &Tensor, scale: f64, mask: &Tensor) -> Result<Tensor> {
    let z = (x.detach() * scale)?.broadcast_add(mask)?;
    let weights = z.broadcast_sub(&z.max_keepdim(D::Minus1)?)?.exp()?;
    let p = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    derived(x, &p, move |p, dp| {
        let pulled = (p * dp)?;
        let all = pulled.sum_keepdim(D::Minus1)?;
        (pulled - p.broadcast_mul(&all)?)? * scale
    })
}

/// The MLP's non-linearity.
pub(super) fn activate(kind: Activation, x: &Tensor) -> Result<Tensor> {
    match kind {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn softmax_and_its_gradient_by_hand() {
        // softmax(2 x) of (0, ln 2 / 2) with the third masked: (1/3, 2/3, 0). For the gradient
        // (1, 0, 5): dx = 2 p (d - sum p d) = 2 (1/3 (1 - 1/3), 2/3 (0 - 1/3), 0).
        let half = 0.5 * std::f32::consts::LN_2;
        let x = Var::from_vec(vec![0.0f32, half, 9.0], (1, 3), &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[0.0f32, 0.0, f32::NEG_INFINITY]], &Device::Cpu).unwrap();
        let p = masked_softmax(&x, 2.0, &mask).unwrap();
        let d = Tensor::new(&[[1.0f32, 0.0, 5.0]], &Device::Cpu).unwrap();
        let grads = (&p * &d).unwrap().sum_all().unwrap().backward().unwrap();
        for (found, expected) in
            [(values(&p), [1.0 / 3.0, 2.0 / 3.0, 0.0]), (values(grads.get(&x).unwrap()), [4.0 / 9.0, -4.0 / 9.0, 0.0])]
        {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn a_product_has_the_gradients_that_are_asked_for() {
        let x = Var::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let w = Tensor::new(&[[1.0f32, 0.0], [5.0, -1.0], [0.0, 2.0]], &Device::Cpu).unwrap();
        let d = Tensor::new(&[[1.0f32, 0.0, 0.0], [0.0, 1.0, 1.0]], &Device::Cpu).unwrap();
        let trained = Var::from_tensor(&w).unwrap();
        for weight in [&w, trained.as_tensor()] {
            let y = product(&x, weight).unwrap();
            assert_eq!(values(&y), [1.0, 3.0, 4.0, 3.0, 11.0, 8.0]);
            let grads = (&y * &d).unwrap().sum_all().unwrap().backward().unwrap();
            // dx = d W; dW = dᵀ x.
            assert_eq!(values(grads.get(&x).unwrap()), [1.0, 0.0, 5.0, 1.0]);
            let dw = grads.get(weight).map(values);
            assert_eq!(dw, weight.is_variable().then(|| vec![1.0, 2.0, 3.0, 4.0, 3.0, 4.0]));
        }
    }

    #[test]
    fn operands_are_rounded_to_the_weights_format() {
        // 1 + 2^-9 is no bf16; the nearest is 1.
        let x = Tensor::new(&[[1.001_953_1f32]], &Device::Cpu).unwrap();
        let w = Tensor::new(&[[3.0f32]], &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
        assert_eq!(values(&product(&x, &w).unwrap()), [3.0]);
    }
}

//! Copies of a model's parameters on a device.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use gainsay_kernels::gemm::Precision;

use crate::model::params::{self, Adapter, Backbone, ParamId, Part};

/// A backbone's parameters. Matrices of products have the backbone's number format, all else is
/// f32; the output matrix is there by its own name also where it is the embedding.
pub(super) struct Weights {
    pub by_id: BTreeMap<ParamId, Tensor>,
    /// `[vocab, hidden]`, in the number format of products.
    pub output: Tensor,
    pub device: Device,
}

impl Weights {
    /// Copies `backbone` to `device`.
    pub fn upload(backbone: &Backbone, device: &Device) -> Result<Self> {
        let format = format(backbone.precision());
        let mut by_id = BTreeMap::new();
        for (id, tensor) in backbone.params() {
            let in_products = matches!(id, ParamId::Linear(_, _, Part::Weight));
            if id != ParamId::LmHead {
                by_id.insert(id, copy(tensor, device)?.to_dtype(if in_products { format } else { DType::F32 })?);
            }
        }
        let output = match &backbone.lm_head {
            Some(head) => copy(head, device)?.to_dtype(format)?,
            None => by_id[&ParamId::Embed].to_dtype(format)?,
        };
        device.synchronize()?;
        Ok(Self { by_id, output, device: device.clone() })
    }
}

/// The factors of an adapter, in f32.
pub(super) fn factors(adapter: Option<&Adapter>, device: &Device) -> Result<BTreeMap<ParamId, Tensor>> {
    let all = adapter.map(Adapter::params).unwrap_or_default();
    all.into_iter().map(|(id, tensor)| Ok((id, copy(tensor, device)?))).collect()
}

fn format(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

fn copy(tensor: &params::Tensor, device: &Device) -> Result<Tensor> {
    Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)
}

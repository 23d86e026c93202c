//! The same model as composed ops on a candle device: a GPU, or candle's CPU, where tests compare
//! it with the engine.
//!
//! Weights are copied to the device once, at first use; hidden rows come back to the host, where
//! losses, heads, the draw of tokens and the optimizer work as they do for the engine. Products
//! with the weights are in the number format of the backbone; norms, attention, the residual
//! stream and the vocabulary's sums are f32, as in the engine. Only ops with a gradient are used
//! where one is asked for, or an op says its own (`derived` in `ops.rs`).

mod attention;
mod generate;
mod layer;
mod ops;
mod pass;
mod vocab;
mod weights;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, DeviceLocation};

use super::params::{Backbone, Model};
use crate::error::LmError;
use weights::Weights;

pub use pass::DeviceTape;
pub(super) use vocab::Asked;

/// What the model's methods return.
type Outcome<T> = Result<T, LmError>;

/// Where a backbone computes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Place {
    /// On the CPU, by the engine's own kernels.
    #[default]
    Engine,
    /// On a candle device.
    Device(Resident),
}

/// A device and the backbone's copy on it, made at first use. Belongs to one [`Backbone`]: a clone
/// starts without a copy.
pub struct Resident {
    device: Device,
    weights: Mutex<Option<Arc<Weights>>>,
}

impl Place {
    /// The place that this device is.
    pub fn on(device: Device) -> Self {
        Self::Device(Resident { device, weights: Mutex::default() })
    }

    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// A build without the feature `cuda`, and what the driver says where it opens no such GPU.
    pub fn cuda(ordinal: usize) -> Result<Self, LmError> {
        if !cfg!(feature = "cuda") {
            return Err(LmError::Input(format!(
                "cuda:{ordinal}: this build computes on the CPU alone; build it with `--features cuda` (docs/gpu.md)"
            )));
        }
        // A stream of its own, and not one for each thread: work is in order whoever asks for it.
        match Device::new_cuda_with_stream(ordinal) {
            Ok(device) => Ok(Self::on(device)),
            Err(e) => Err(LmError::Input(format!(
                "cuda:{ordinal}: {}; `nvidia-smi -L` lists the GPUs, `--device cpu` needs none",
                words(&e)
            ))),
        }
    }

    /// True for a GPU.
    pub fn is_gpu(&self) -> bool {
        matches!(self, Self::Device(resident) if resident.device.is_cuda())
    }

    /// Forgets the copy: the weights have changed.
    pub(super) fn clear(&mut self) {
        if let Self::Device(resident) = self {
            *resident.weights.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("cpu"),
            Self::Device(resident) => match resident.device.location() {
                DeviceLocation::Cuda { gpu_id } => write!(f, "cuda:{gpu_id}"),
                _ => f.write_str("candle's cpu"),
            },
        }
    }
}

impl Resident {
    /// The backbone's copy.
    fn weights(&self, backbone: &Backbone) -> candle_core::Result<Arc<Weights>> {
        let mut known = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = known.as_ref() {
            return Ok(weights.clone());
        }
        let weights = Arc::new(Weights::upload(backbone, &self.device)?);
        *known = Some(weights.clone());
        Ok(weights)
    }
}

impl Clone for Resident {
    fn clone(&self) -> Self {
        Self { device: self.device.clone(), weights: Mutex::default() }
    }
}

/// A copy says nothing that the weights do not.
impl PartialEq for Resident {
    fn eq(&self, other: &Self) -> bool {
        self.device.same_device(&other.device)
    }
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resident({:?})", self.device)
    }
}

/// What went wrong, without the backtrace that may follow it.
fn words(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What a device reports, with a remedy where there is one.
fn failed(model: &Model, error: candle_core::Error) -> LmError {
    let told = words(&error);
    let remedy = if told.to_lowercase().contains("out of memory") {
        "; bf16 needs half of the memory, shorter sequences need less"
    } else {
        ""
    };
    LmError::Run(format!("{}: {told}{remedy}", model.backbone.place))
}

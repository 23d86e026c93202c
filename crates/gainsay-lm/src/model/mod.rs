//! The transformer itself: parameters, forward, explicit backward, decoding.

pub mod backbone;
pub mod cache;
mod compute;
pub mod device;
mod dropout;
pub mod forward;
pub mod generate;
mod kv;
mod layer;
pub mod ops;
pub mod packed;
pub mod params;
mod sampler;
pub mod trunk;

pub use compute::Recording;
pub use device::Place;
pub use forward::{Keep, Tape};
pub use gainsay_kernels::gemm::Precision;
pub use generate::{GenOptions, Generated, generate};
pub use ops::Mat;
pub use packed::Packed;
pub use params::{
    Adapter, AdapterConfig, Backbone, Grads, Layer, Linear, LoraPair, Model, Norm, ParamId, Part, Proj, Tensor,
    Trainable,
};

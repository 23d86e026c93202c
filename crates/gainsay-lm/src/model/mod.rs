//! The transformer itself: parameters, forward, explicit backward, decoding.

pub mod params;

pub use params::{
    Adapter, AdapterConfig, Backbone, Grads, Layer, Linear, LoraPair, Model, Norm, Packed, ParamId, Part, Proj,
    Tensor, Trainable,
};

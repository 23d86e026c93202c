//! The one place that chooses who computes: the engine, or the device that the backbone is on.

use super::device::{Asked, DeviceTape, Place};
use super::forward::{Keep, Tape};
use super::generate::{Draw, GenOptions, Generated, generate};
use super::ops::Mat;
use super::packed::Packed;
use super::params::{Grads, Model};
use crate::error::LmError;

/// A forward pass that leads back to parameters, by whoever computed it.
pub enum Recording {
    /// The engine.
    Engine(Tape),
    /// A device.
    Device(DeviceTape),
}

impl Recording {
    /// The sequences.
    pub fn batch(&self) -> &Packed {
        match self {
            Self::Engine(tape) => &tape.batch,
            Self::Device(tape) => &tape.batch,
        }
    }

    /// After the final norm, `[rows, hidden]`.
    pub fn hidden(&self) -> &Mat {
        match self {
            Self::Engine(tape) => &tape.hidden,
            Self::Device(tape) => &tape.hidden,
        }
    }
}

/// As the methods of [`Model`] that the engine computes, on the device where the backbone is on
/// one.
///
/// # Errors
/// What a device reports, as [`LmError::Run`]; the engine reports nothing.
impl Model {
    /// [`Model::hidden`] with `None`, else [`Model::hidden_at`].
    pub fn rows(&self, batch: &Packed, layer: Option<usize>) -> Result<Mat, LmError> {
        match (&self.backbone.place, layer) {
            (Place::Device(device), _) => device.hidden(self, batch, layer),
            (Place::Engine, None) => Ok(self.hidden(batch)),
            (Place::Engine, Some(layer)) => Ok(self.hidden_at(batch, layer)),
        }
    }

    /// [`Model::token_logps`].
    pub fn logps(&self, hidden: &Mat, rows: &[usize], targets: &[u32], temperature: f64) -> Result<Vec<f32>, LmError> {
        match &self.backbone.place {
            Place::Engine => Ok(self.token_logps(hidden, rows, targets, temperature as f32)),
            Place::Device(device) => {
                device.token_logps(self, &Asked { hidden: &hidden.gather(rows), targets, temperature })
            }
        }
    }

    /// [`Model::forward_tape`]. A device keeps the layers' inputs alone, whatever `keep` says.
    pub fn record(&self, batch: &Packed, keep: Keep, grads: &Grads) -> Result<Recording, LmError> {
        match &self.backbone.place {
            Place::Engine => Ok(Recording::Engine(self.forward_tape(batch, keep, grads))),
            Place::Device(device) => Ok(Recording::Device(device.forward_tape(self, batch, grads)?)),
        }
    }

    /// [`Model::token_logps_backward`] for `recording`'s hidden rows.
    #[allow(clippy::too_many_arguments)]
    pub fn logps_backward(
        &self,
        recording: &Recording,
        rows: &[usize],
        targets: &[u32],
        temperature: f64,
        d_logp: &[f32],
        d_hidden: &mut Mat,
        grads: &mut Grads,
    ) -> Result<(), LmError> {
        let hidden = recording.hidden();
        let Place::Device(device) = &self.backbone.place else {
            self.token_logps_backward(hidden, rows, targets, temperature as f32, d_logp, d_hidden, grads);
            return Ok(());
        };
        let used: Vec<usize> = (0..rows.len()).filter(|i| d_logp[*i] != 0.0).collect();
        let rows: Vec<usize> = used.iter().map(|i| rows[*i]).collect();
        let targets: Vec<u32> = used.iter().map(|i| targets[*i]).collect();
        let d_logp: Vec<f32> = used.iter().map(|i| d_logp[*i]).collect();
        let asked = Asked { hidden: &hidden.gather(&rows), targets: &targets, temperature };
        let d_output = grads.get_mut(self.backbone.unembedding().0);
        let d_rows = device.token_logps_backward(self, &asked, &d_logp, d_output)?;
        for (i, row) in rows.iter().enumerate() {
            gainsay_kernels::vector::axpy(1.0, d_rows.row(i), d_hidden.row_mut(*row));
        }
        Ok(())
    }

    /// [`Model::backward`].
    pub fn pull_back(&self, recording: Recording, d_hidden: Mat, grads: &mut Grads) -> Result<(), LmError> {
        match (recording, &self.backbone.place) {
            (Recording::Engine(tape), _) => {
                self.backward(tape, d_hidden, grads);
                Ok(())
            }
            (Recording::Device(tape), Place::Device(device)) => device.backward(self, tape, &d_hidden, grads),
            (Recording::Device(_), Place::Engine) => {
                Err(LmError::Run("the model left its device between forward and backward".into()))
            }
        }
    }

    /// [`generate`].
    pub fn sample(
        &self,
        prompts: &[&[u32]],
        n: &[usize],
        opts: &GenOptions,
        draw: Draw<'_>,
        on_token: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<Generated>>, LmError> {
        match &self.backbone.place {
            Place::Engine => Ok(generate(self, prompts, n, opts, draw, on_token)),
            Place::Device(device) => device.generate(self, prompts, n, opts, draw, on_token),
        }
    }
}

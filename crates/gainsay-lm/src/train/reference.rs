//! What a policy is held to while it learns.

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::source::Loaded;

/// The frozen policy of KL penalties and preference losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reference {
    /// The model under the adapter that training starts from: over rounds the distance from the one
    /// base policy is what counts.
    #[default]
    Base,
    /// The policy that training starts from, its adapter included: after supervised fine-tuning.
    Start,
}

impl Reference {
    /// The reference of a training that starts from `start`.
    pub(super) fn of(self, start: &Loaded) -> Model {
        Model::new(start.backbone.clone(), start.adapter.clone().filter(|_| self == Self::Start))
    }
}

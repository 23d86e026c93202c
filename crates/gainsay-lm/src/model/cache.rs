//! Weights in the layout that the products read, made at first use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gainsay_kernels::gemm::PackedWeight;

use super::params::ParamId;

/// Which product a packed copy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// x·Wᵀ.
    Transposed,
    /// dy·W.
    Plain,
}

/// Packed copies of a backbone's weights. Belongs to one [`super::Backbone`]: a clone starts
/// empty, and any two caches are equal, since they hold nothing that the weights do not say.
#[derive(Default)]
pub struct WeightCache {
    packed: Mutex<BTreeMap<(ParamId, Form), Arc<PackedWeight>>>,
}

impl WeightCache {
    /// The copy of parameter `id` for `form`, made by `pack` if it is not there yet.
    pub fn get(
        &self,
        id: ParamId,
        form: Form,
        pack: impl FnOnce() -> PackedWeight,
    ) -> Arc<PackedWeight> {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed
            .entry((id, form))
            .or_insert_with(|| Arc::new(pack()))
            .clone()
    }

    /// Forgets all copies: the weights have changed.
    pub fn clear(&mut self) {
        self.packed
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Clone for WeightCache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for WeightCache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for WeightCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeightCache")
    }
}

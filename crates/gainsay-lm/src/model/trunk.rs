//! Rows after the layers that several models have in common.
//!
//! Reward models are often adapters of the policy's upper layers: below the lowest adapted layer
//! all of them compute the same rows, to the bit. What one of them computed there is kept for the
//! others, and for the next pass over the same texts.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::layer::Rows;
use super::ops::Mat;
use super::packed::Packed;
use super::params::Model;
use gainsay_kernels::attention::Span;

/// Bytes of rows that are kept; the oldest go first.
const KEPT_BYTES: usize = 256 << 20;

/// Kept rows of one backbone. A clone starts empty, as its weights may change.
#[derive(Default)]
pub struct Trunk {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Rows are kept after this many layers; `None`: not at all.
    layer: Option<usize>,
    /// By a family's tokens and positions.
    rows: HashMap<Arc<[u32]>, Arc<[f32]>>,
    /// The keys, oldest first.
    order: VecDeque<Arc<[u32]>>,
    bytes: usize,
}

impl Trunk {
    /// Says that a model's adapter begins at `layer`: from now on rows are kept there, or at a
    /// lower layer that was named before.
    pub fn meet_at(&self, layer: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if layer > 0 && kept.layer.is_none_or(|known| layer < known) {
            *kept = Kept { layer: Some(layer), ..Kept::default() };
        }
    }

    /// Forgets all rows: the weights have changed.
    pub fn clear(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        *kept = Kept { layer: kept.layer, ..Kept::default() };
    }

    fn layer(&self) -> Option<usize> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).layer
    }

    /// The rows of all keys after `layer`, one after the other; `None` where one is missing, or where
    /// rows are kept after another layer by now.
    fn get(&self, layer: usize, keys: &[Arc<[u32]>], cols: usize) -> Option<Mat> {
        let found: Vec<Arc<[f32]>> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.layer != Some(layer) {
                return None;
            }
            keys.iter().map(|key| kept.rows.get(key).cloned()).collect::<Option<_>>()?
        };
        let data = found.iter().flat_map(|rows| rows.iter().copied()).collect::<Vec<f32>>();
        Some(Mat { rows: data.len() / cols, cols, data })
    }

    /// Keeps a family's rows after `layer`, unless rows are kept after another layer by now.
    fn put(&self, layer: usize, key: Arc<[u32]>, rows: &[f32]) {
        let size = |rows: usize| rows * size_of::<f32>();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.layer != Some(layer) || size(rows.len()) > KEPT_BYTES || kept.rows.contains_key(&key) {
            return;
        }
        while kept.bytes + size(rows.len()) > KEPT_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(gone) = kept.rows.remove(&oldest) {
                kept.bytes -= size(gone.len());
            }
        }
        kept.bytes += size(rows.len());
        kept.order.push_back(key.clone());
        kept.rows.insert(key, rows.into());
    }
}

impl Clone for Trunk {
    fn clone(&self) -> Self {
        let layer = self.layer();
        Self { kept: Mutex::new(Kept { layer, ..Kept::default() }) }
    }
}

/// Kept rows say nothing that the weights do not.
impl PartialEq for Trunk {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trunk(after {:?} layers)", self.layer())
    }
}

impl Model {
    /// The lowest layer that the adapter changes; the number of layers without one.
    pub fn first_adapted(&self) -> usize {
        let layers = self.backbone.layers.len();
        let lowest = self.adapter.as_ref().and_then(|a| a.pairs.keys().map(|(layer, _)| *layer).min());
        lowest.unwrap_or(layers)
    }

    /// The residual stream of a slice of `batch` at a layer from which this model has to go on,
    /// at most `most`: (layer, rows).
    pub(super) fn begin(
        &self,
        batch: &Packed,
        range: &Range<usize>,
        rows: &Rows,
        spans: &[Span],
        most: usize,
    ) -> (usize, Mat) {
        let tokens = &batch.tokens[range.clone()];
        let trunk = &self.backbone.trunk;
        let Some(layer) = trunk.layer().filter(|layer| *layer <= most.min(self.first_adapted())) else {
            return (0, self.embed(tokens));
        };
        let cols = self.backbone.config.hidden_size;
        let families = batch.families(range);
        let key = |f: &Range<usize>| -> Arc<[u32]> {
            batch.tokens[f.clone()].iter().chain(&batch.positions[f.clone()]).copied().collect()
        };
        let keys: Vec<Arc<[u32]>> = families.iter().map(key).collect();
        if let Some(x) = trunk.get(layer, &keys, cols) {
            return (layer, x);
        }
        let x = (0..layer).fold(self.embed(tokens), |x, l| self.layer(l, rows, spans, &x).0);
        for (key, family) in keys.into_iter().zip(families) {
            trunk.put(layer, key, &x.data[(family.start - range.start) * cols..(family.end - range.start) * cols]);
        }
        (layer, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> Arc<[u32]> {
        Arc::new([i])
    }

    #[test]
    fn rows_come_back_until_they_are_the_oldest() {
        let trunk = Trunk::default();
        assert_eq!(trunk.layer(), None);
        trunk.meet_at(0);
        assert_eq!(trunk.layer(), None, "an adapter of all layers shares nothing");
        trunk.meet_at(5);
        trunk.put(5, key(1), &[1.0, 2.0]);
        trunk.put(5, key(2), &[3.0, 4.0]);
        assert_eq!(trunk.get(5, &[key(2), key(1)], 2).unwrap().data, [3.0, 4.0, 1.0, 2.0]);
        assert!(trunk.get(5, &[key(2), key(3)], 2).is_none());
        let third = vec![0.0; KEPT_BYTES / 4 / 3 + 1];
        (10..13).for_each(|i| trunk.put(5, key(i), &third));
        assert!(trunk.get(5, &[key(1)], 2).is_none() && trunk.get(5, &[key(10)], 2).is_none());
        assert!(trunk.get(5, &[key(11), key(12)], 1).is_some());
        // A lower meeting place forgets, a higher one changes nothing.
        trunk.meet_at(9);
        assert!(trunk.get(5, &[key(12)], 1).is_some());
        trunk.meet_at(3);
        assert!(trunk.layer() == Some(3) && trunk.get(3, &[key(12)], 1).is_none());
        // Who began before another model met lower neither reads nor leaves rows there.
        trunk.put(5, key(20), &[1.0]);
        trunk.put(3, key(21), &[2.0]);
        assert!(trunk.get(3, &[key(20)], 1).is_none() && trunk.get(5, &[key(21)], 1).is_none());
        assert_eq!(trunk.get(3, &[key(21)], 1).unwrap().data, [2.0]);
        assert!(trunk.clone().layer() == Some(3));
    }
}

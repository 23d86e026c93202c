//! Causal attention of packed rows with composed ops: spans of similar length are padded to one
//! batch, whose batched products are all that the device sees.

use candle_core::{DType, Device, Result, Tensor};
use gainsay_kernels::attention::{Heads, Span};

use super::ops::masked_softmax;

/// Most attention weights of one batch, in values; a single longer span goes alone.
const BATCH_WEIGHTS: usize = 1 << 26;

/// How the rows of a pass attend, for all of its layers.
pub(super) struct Plan {
    shape: Heads,
    batches: Vec<PaddedBatch>,
    /// For each row, where its result stands in the batches' results.
    places: Tensor,
}

/// Spans padded to `queries` rows that see `keys` rows.
struct PaddedBatch {
    spans: usize,
    queries: usize,
    keys: usize,
    query_rows: Tensor,
    key_rows: Tensor,
    /// `[spans, 1, queries, keys]`: 0 for what a row sees, else -inf.
    mask: Tensor,
}

impl Plan {
    /// For the spans of `rows` rows.
    pub fn new(shape: Heads, spans: &[Span], rows: usize, device: &Device) -> Result<Self> {
        let mut places = vec![0u32; rows];
        let (mut batches, mut before) = (Vec::new(), 0);
        for group in grouped(shape.heads, spans) {
            let batch = PaddedBatch::new(&group, device)?;
            for (b, span) in group.iter().enumerate() {
                for (i, row) in span.rows.clone().enumerate() {
                    places[row] = (before + b * batch.queries + i) as u32;
                }
            }
            before += batch.spans * batch.queries;
            batches.push(batch);
        }
        Ok(Self { shape, batches, places: Tensor::from_vec(places, rows, device)? })
    }

    /// What attention makes of queries `[rows, heads, dim]`, keys and values `[rows, kv_heads,
    /// dim]`: `[rows, heads * dim]`.
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let parts = self.batches.iter().map(|batch| batch.attend(self.shape, q, k, v));
        let parts = parts.collect::<Result<Vec<Tensor>>>()?;
        Tensor::cat(&parts, 0)?.index_select(&self.places, 0)
    }
}

/// Spans of similar size together, the longest first.
fn grouped(heads: usize, spans: &[Span]) -> Vec<Vec<&Span>> {
    let size = |span: &Span| (span.rows.len(), span.prefix.len() + span.rows.len());
    let mut sorted: Vec<&Span> = spans.iter().filter(|span| !span.rows.is_empty()).collect();
    sorted.sort_by_key(|span| std::cmp::Reverse(size(span)));
    let mut groups: Vec<Vec<&Span>> = Vec::new();
    let (mut queries, mut keys) = (0, 0);
    for span in sorted {
        let (own, seen) = size(span);
        let fits = |group: &Vec<&Span>| {
            let most = keys.max(seen);
            let weights = (group.len() + 1) * heads * queries * most;
            2 * own >= queries && 2 * seen >= keys && seen <= 2 * keys && weights <= BATCH_WEIGHTS
        };
        match groups.last_mut().filter(|group| fits(group)) {
            Some(group) => {
                group.push(span);
                keys = keys.max(seen);
            }
            None => {
                groups.push(vec![span]);
                (queries, keys) = (own, seen);
            }
        }
    }
    groups
}

impl PaddedBatch {
    /// Row numbers and mask; padding reads row 0, and nothing reads padding.
    fn new(spans: &[&Span], device: &Device) -> Result<Self> {
        let queries = spans.iter().map(|s| s.rows.len()).max().unwrap_or(0);
        let keys = spans.iter().map(|s| s.prefix.len() + s.rows.len()).max().unwrap_or(0);
        let padded = |rows: &mut Vec<u32>, from: &mut dyn Iterator<Item = usize>, to: usize| {
            let end = rows.len() + to;
            rows.extend(from.map(|row| row as u32));
            rows.resize(end, 0);
        };
        let (mut query_rows, mut key_rows, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            padded(&mut query_rows, &mut span.rows.clone(), queries);
            padded(&mut key_rows, &mut span.prefix.clone().chain(span.rows.clone()), keys);
            // A row sees the prefix, its predecessors and itself.
            last.extend((0..queries).map(|i| (span.prefix.len() + i) as u32));
        }
        let spans = spans.len();
        let mask = mask(Tensor::from_vec(last, (spans, 1, queries, 1), device)?, keys)?;
        let query_rows = Tensor::from_vec(query_rows, spans * queries, device)?;
        Ok(Self { spans, queries, keys, key_rows: Tensor::from_vec(key_rows, spans * keys, device)?, query_rows, mask })
    }

    /// `[spans * queries, heads * dim]`.
    fn attend(&self, shape: Heads, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (spans, queries, dim) = (self.spans, self.queries, shape.dim);
        let group = shape.heads / shape.kv_heads;
        let q = q.index_select(&self.query_rows, 0)?;
        let q = q.reshape((spans, queries, shape.kv_heads, group, dim))?.permute((0, 2, 3, 1, 4))?;
        let q = q.contiguous()?.reshape((spans * shape.kv_heads, group * queries, dim))?;
        let rows = |x: &Tensor| {
            let x = x.index_select(&self.key_rows, 0)?.reshape((spans, self.keys, shape.kv_heads, dim))?;
            x.transpose(1, 2)?.contiguous()?.reshape((spans * shape.kv_heads, self.keys, dim))
        };
        let scores = q.matmul(&rows(k)?.t()?)?.reshape((spans, shape.heads, queries, self.keys))?;
        let weights = masked_softmax(&scores, 1.0 / (dim as f64).sqrt(), &self.mask)?;
        let mixed = weights.reshape((spans * shape.kv_heads, group * queries, self.keys))?.matmul(&rows(v)?)?;
        let mixed = mixed.reshape((spans, shape.kv_heads, group, queries, dim))?.permute((0, 3, 1, 2, 4))?;
        mixed.contiguous()?.reshape((spans * queries, shape.heads * dim))
    }
}

/// 0 for the keys up to `last`, else -inf: `last` of any shape that ends in 1, whose place the
/// keys take.
pub(super) fn mask(last: Tensor, keys: usize) -> Result<Tensor> {
    let seen = Tensor::arange(0, keys as u32, last.device())?.broadcast_le(&last)?;
    let zero = Tensor::zeros(seen.dims(), DType::F32, last.device())?;
    let never = Tensor::full(f32::NEG_INFINITY, seen.dims(), last.device())?;
    seen.where_cond(&zero, &never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_spans_go_together() {
        let span = |prefix: usize, rows: usize| Span { prefix: 0..prefix, rows: 0..rows };
        let all = [span(0, 3), span(0, 10), span(0, 0), span(0, 6), span(9, 8), span(40, 6)];
        let sizes = |groups: Vec<Vec<&Span>>| -> Vec<Vec<(usize, usize)>> {
            let of = |s: &&Span| (s.prefix.len(), s.rows.len());
            groups.iter().map(|group| group.iter().map(of).collect()).collect()
        };
        // 40 + 6 keys are more than twice 17; what sees 6 goes neither with them nor with the rest.
        assert_eq!(sizes(grouped(2, &all)), [vec![(0, 10), (9, 8)], vec![(40, 6)], vec![(0, 6), (0, 3)]]);
        // Nothing is together where the weights would be too many.
        assert_eq!(grouped(BATCH_WEIGHTS, &all).len(), 5);
    }

    #[test]
    fn a_mask_by_hand() {
        let last = Tensor::new(&[[0u32], [2]], &Device::Cpu).unwrap();
        let never = f32::NEG_INFINITY;
        let found: Vec<Vec<f32>> = mask(last, 3).unwrap().to_vec2().unwrap();
        assert_eq!(found, [[0.0, never, never], [0.0, 0.0, 0.0]]);
    }
}

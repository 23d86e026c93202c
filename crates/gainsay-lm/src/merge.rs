//! An adapter folded into its backbone.

use std::sync::Arc;

use crate::model::{Adapter, Backbone, LoraPair, ParamId, Part};

/// The backbone whose projections are W + (alpha / rank) B A (arXiv 2106.09685, eq. 3): the same
/// function as backbone and adapter, up to rounding. Takes the backbone over where nobody else
/// holds it, and copies it otherwise. Its digest names the backbone it came from no longer: it is
/// empty.
pub fn merged(backbone: Arc<Backbone>, adapter: &Adapter) -> Backbone {
    let mut backbone = Arc::unwrap_or_clone(backbone);
    let scale = adapter.scale();
    for (&(layer, proj), pair) in &adapter.pairs {
        if let Some(weight) = backbone.param_mut(ParamId::Linear(layer, proj, Part::Weight)) {
            add_product(&mut weight.data, pair, scale);
        }
    }
    backbone.digest = String::new();
    backbone
}

/// weight `[out, in]` += scale b a, with b `[out, rank]` and a `[rank, in]`.
fn add_product(weight: &mut [f32], pair: &LoraPair, scale: f32) {
    let (rank, input) = (pair.a.shape[0], pair.a.shape[1]);
    let mut row = vec![0.0f32; input];
    for (weights, b) in weight.chunks_exact_mut(input).zip(pair.b.data.chunks_exact(rank)) {
        row.fill(0.0);
        for (factor, a) in b.iter().zip(pair.a.data.chunks_exact(input)) {
            row.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
        }
        weights.iter_mut().zip(&row).for_each(|(w, update)| *w += scale * update);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tensor;

    #[test]
    fn product_by_hand() {
        // a = [1 2 0; 0 1 1], b = [1 0; 2 3]: b a = [1 2 0; 2 7 3]; times 2, on top of ones.
        let tensor = |shape: [usize; 2], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
        let pair =
            LoraPair { a: tensor([2, 3], &[1.0, 2.0, 0.0, 0.0, 1.0, 1.0]), b: tensor([2, 2], &[1.0, 0.0, 2.0, 3.0]) };
        let mut weight = [1.0; 6];
        add_product(&mut weight, &pair, 2.0);
        assert_eq!(weight, [3.0, 5.0, 1.0, 5.0, 15.0, 7.0]);
    }
}

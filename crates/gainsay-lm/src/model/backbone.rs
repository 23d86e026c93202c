//! Access to parameters by name, construction of adapters and gradients.

use std::collections::BTreeMap;

use gainsay_core::rng::Key;
use gainsay_kernels::gemm::Precision;

use super::cache::WeightCache;
use super::params::{
    Adapter, AdapterConfig, Backbone, Grads, Linear, LoraPair, Model, Norm, ParamId, Part, Proj, Tensor, Trainable,
};

impl Tensor {
    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }
}

impl Proj {
    /// Position in [`Proj::ALL`] and in [`super::Layer::linears`].
    pub fn index(self) -> usize {
        self as usize
    }
}

fn push_norm<'a>(out: &mut Vec<(ParamId, &'a Tensor)>, norm: &'a Norm, id: impl Fn(Part) -> ParamId) {
    out.push((id(Part::Weight), &norm.weight));
    out.extend(norm.bias.iter().map(|bias| (id(Part::Bias), bias)));
}

fn norm_mut(norm: &mut Norm, part: Part) -> Option<&mut Tensor> {
    match part {
        Part::Weight => Some(&mut norm.weight),
        Part::Bias => norm.bias.as_mut(),
    }
}

impl Backbone {
    /// Every parameter that exists, in [`ParamId`] order.
    pub fn params(&self) -> Vec<(ParamId, &Tensor)> {
        let mut out = vec![(ParamId::Embed, &self.embed)];
        for (l, layer) in self.layers.iter().enumerate() {
            push_norm(&mut out, &layer.attn_norm, |p| ParamId::AttnNorm(l, p));
            push_norm(&mut out, &layer.mlp_norm, |p| ParamId::MlpNorm(l, p));
            out.extend(layer.q_norm.iter().map(|n| (ParamId::QNorm(l), &n.weight)));
            out.extend(layer.k_norm.iter().map(|n| (ParamId::KNorm(l), &n.weight)));
            for (proj, linear) in layer.projections() {
                out.push((ParamId::Linear(l, proj, Part::Weight), &linear.weight));
                out.extend(linear.bias.iter().map(|b| (ParamId::Linear(l, proj, Part::Bias), b)));
            }
        }
        push_norm(&mut out, &self.final_norm, ParamId::FinalNorm);
        out.extend(self.lm_head.iter().map(|t| (ParamId::LmHead, t)));
        out.sort_by_key(|(id, _)| *id);
        out
    }

    /// A parameter to change; `None` where this backbone has no such parameter (the factors of
    /// an adapter and task heads live elsewhere). The way to change weights: it drops what the
    /// engine keeps of them.
    pub fn param_mut(&mut self, id: ParamId) -> Option<&mut Tensor> {
        self.cache.clear();
        self.trunk.clear();
        self.place.clear();
        match id {
            ParamId::Embed => Some(&mut self.embed),
            ParamId::AttnNorm(l, part) => norm_mut(&mut self.layers.get_mut(l)?.attn_norm, part),
            ParamId::MlpNorm(l, part) => norm_mut(&mut self.layers.get_mut(l)?.mlp_norm, part),
            ParamId::QNorm(l) => self.layers.get_mut(l)?.q_norm.as_mut().map(|n| &mut n.weight),
            ParamId::KNorm(l) => self.layers.get_mut(l)?.k_norm.as_mut().map(|n| &mut n.weight),
            ParamId::Linear(l, proj, part) => {
                let linear = self.layers.get_mut(l)?.linears[proj.index()].as_mut()?;
                match part {
                    Part::Weight => Some(&mut linear.weight),
                    Part::Bias => linear.bias.as_mut(),
                }
            }
            ParamId::FinalNorm(part) => norm_mut(&mut self.final_norm, part),
            ParamId::LmHead => self.lm_head.as_mut(),
            ParamId::LoraA(..) | ParamId::LoraB(..) | ParamId::Head => None,
        }
    }

    /// Chooses what the operands of products with the weights are rounded to; the weights
    /// themselves stay f32, as do norms, attention, the residual stream and all sums.
    pub fn set_precision(&mut self, precision: Precision) {
        self.cache = WeightCache::new(precision);
        self.trunk.clear();
        self.place.clear();
    }

    /// What the operands of products with the weights are rounded to.
    pub fn precision(&self) -> Precision {
        self.cache.precision()
    }

    /// The matrix that turns hidden rows into logits, `[vocab, hidden]`, and its name.
    pub fn unembedding(&self) -> (ParamId, &Tensor) {
        match &self.lm_head {
            Some(head) => (ParamId::LmHead, head),
            None => (ParamId::Embed, &self.embed),
        }
    }
}

impl super::params::Layer {
    /// The projections that this layer has, in [`Proj::ALL`] order.
    pub fn projections(&self) -> impl Iterator<Item = (Proj, &Linear)> {
        Proj::ALL.into_iter().zip(&self.linears).filter_map(|(proj, linear)| Some((proj, linear.as_ref()?)))
    }
}

impl Adapter {
    /// A fresh adapter: A is Kaiming-uniform with a = sqrt 5, that is uniform in
    /// ±1/sqrt(in) (He et al. 2015; PEFT's choice), B is zero, so the model starts unchanged.
    /// Each factor's numbers depend on `seed`, layer and projection alone.
    pub fn new(config: &AdapterConfig, backbone: &Backbone, seed: u64) -> Self {
        let mut pairs = BTreeMap::new();
        for (l, layer) in backbone.layers.iter().enumerate() {
            if config.layers.as_ref().is_some_and(|layers| !layers.contains(&l)) {
                continue;
            }
            for (proj, linear) in layer.projections().filter(|(proj, _)| config.targets.contains(proj)) {
                let (out, input) = (linear.weight.shape[0], linear.weight.shape[1]);
                let mut a = Tensor::zeros(&[config.rank, input]);
                let mut stream = Key::new(seed, "lora-a").prompt(&format!("{l}/{proj:?}")).stream();
                let bound = 1.0 / (input as f64).sqrt();
                a.data.iter_mut().for_each(|w| *w = ((2.0 * stream.uniform() - 1.0) * bound) as f32);
                pairs.insert((l, proj), LoraPair { a, b: Tensor::zeros(&[out, config.rank]) });
            }
        }
        Self { config: config.clone(), pairs }
    }

    /// False where all factors are zero, as in the folder of a head alone: such factors change
    /// nothing, and their gradients are zero too.
    pub fn is_active(&self) -> bool {
        self.params().iter().any(|(_, factor)| factor.data.iter().any(|w| *w != 0.0))
    }

    /// alpha / rank.
    pub fn scale(&self) -> f32 {
        (self.config.alpha / self.config.rank as f64) as f32
    }

    /// Every factor, in [`ParamId`] order.
    pub fn params(&self) -> Vec<(ParamId, &Tensor)> {
        let a = self.pairs.iter().map(|(&(l, proj), pair)| (ParamId::LoraA(l, proj), &pair.a));
        let b = self.pairs.iter().map(|(&(l, proj), pair)| (ParamId::LoraB(l, proj), &pair.b));
        a.chain(b).collect()
    }

    /// A factor to change; `None` where there is none.
    pub fn param_mut(&mut self, id: ParamId) -> Option<&mut Tensor> {
        match id {
            ParamId::LoraA(l, proj) => self.pairs.get_mut(&(l, proj)).map(|p| &mut p.a),
            ParamId::LoraB(l, proj) => self.pairs.get_mut(&(l, proj)).map(|p| &mut p.b),
            _ => None,
        }
    }
}

impl Grads {
    /// Zero gradients of exactly the parameters that `what` trains, and of the scalar head
    /// (`[hidden]`) with `with_head`: it then stands in place of an untied output matrix, which
    /// gets no entry. [`Trainable::Head`] alone has the head or nothing.
    pub fn zeros(model: &Model, what: &Trainable, with_head: bool) -> Self {
        let params = match what {
            Trainable::Head => Vec::new(),
            Trainable::Lora => model.adapter.as_ref().map(Adapter::params).unwrap_or_default(),
            Trainable::Full => model.backbone.params(),
        };
        let mut by_id: BTreeMap<_, _> = params.into_iter().map(|(id, t)| (id, vec![0.0; t.data.len()])).collect();
        if with_head {
            by_id.remove(&ParamId::LmHead);
            by_id.insert(ParamId::Head, vec![0.0; model.backbone.config.hidden_size]);
        }
        Self { by_id, reached: Default::default() }
    }

    /// The sum to add to, marked as reached; `None` for a frozen parameter.
    pub fn get_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let sum = self.by_id.get_mut(&id)?;
        self.reached.insert(id);
        Some(sum)
    }

    /// True where `id` is trained.
    pub fn trains(&self, id: ParamId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Back to zero, nothing reached.
    pub fn zero(&mut self) {
        self.reached.clear();
        self.by_id.values_mut().for_each(|sum| gainsay_kernels::optim::clear(sum));
    }
}

//! Live mode of the annotation app: a reward head learns from the answers, and the queue follows
//! where it contradicts the policy now.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use gainsay_core::conflict::{kendall_tau_distance, pacs};
use gainsay_core::engine::ScoreItem;
use gainsay_core::files;
use gainsay_core::record::{PreferenceRecord, PromptRecord, SelectionRecord};
use gainsay_lm::features::FeatureCache;
use gainsay_lm::model::Mat;
use gainsay_lm::reward::head_product;
use gainsay_lm::train::{HeadFitOptions, PairLabel, fit_head, is_heldout};
use gainsay_server::annotate::live::{Refit, Refitted};
use gainsay_server::annotate::store::ReRank;

use crate::cli::Dtype;
use crate::error::{Error, Result};
use crate::models;

/// Share of the prompts whose answers are held out for the curve.
const HELD_OUT: f64 = 0.25;

/// A pair of the queue: its id, its prompt in the pool, and its two completions there.
struct Pair {
    id: String,
    prompt: usize,
    first: usize,
    second: usize,
}

/// A head on the features of the completions that the selection's prompts have in a pool.
pub struct HeadRefit {
    /// Prompts with a pair in the selection.
    pool: Vec<PromptRecord>,
    /// Of each prompt, the row of its first completion.
    start: Vec<usize>,
    pairs: Vec<Pair>,
    spec: String,
    /// Where features are kept for the next start.
    cache: PathBuf,
    /// Completions without features so far.
    left: AtomicUsize,
    features: OnceLock<std::result::Result<Mat, String>>,
}

impl HeadRefit {
    /// Prepares live mode; the features are computed on a thread of their own and kept beside the
    /// pool.
    ///
    /// # Errors
    /// A pool without log-probs, or without a prompt of the selection.
    pub fn new(spec: &str, pool: &Path, selection: &[SelectionRecord]) -> Result<Arc<Self>> {
        let asked: HashSet<&str> = selection.iter().map(|pair| pair.prompt_id.as_str()).collect();
        let mut records: Vec<PromptRecord> = files::read_all(pool)?;
        records.retain(|record| asked.contains(record.id.as_str()));
        let wrong = |what: String| Error::Input(format!("{}: {what}", pool.display()));
        let mut start = Vec::with_capacity(records.len());
        let mut rows = 0;
        for record in &records {
            start.push(rows);
            rows += record.completions.len();
            if record.completions.iter().any(|c| c.logp.is_none()) {
                return Err(wrong(format!("prompt `{}` has completions without logp; run gainsay score", record.id)));
            }
        }
        let place: HashMap<&str, usize> = records.iter().enumerate().map(|(i, r)| (r.id.as_str(), i)).collect();
        let mut pairs = Vec::with_capacity(selection.len());
        for pair in selection {
            let prompt = place.get(pair.prompt_id.as_str()).copied();
            let prompt =
                prompt.ok_or_else(|| wrong(format!("prompt `{}` of the selection is not in it", pair.prompt_id)))?;
            let (first, second) = (pair.first.index, pair.second.index);
            if first.max(second) >= records[prompt].completions.len() {
                return Err(wrong(format!("pair `{}` names a completion that is not in it", pair.id)));
            }
            pairs.push(Pair { id: pair.id.clone(), prompt, first, second });
        }
        let refit = Arc::new(Self {
            pool: records,
            start,
            pairs,
            spec: spec.into(),
            cache: models::features_beside(pool),
            left: AtomicUsize::new(rows),
            features: OnceLock::new(),
        });
        let ahead = refit.clone();
        std::thread::spawn(move || ahead.features().map(|_| ()));
        Ok(refit)
    }

    fn features(&self) -> std::result::Result<&Mat, String> {
        let made = self.features.get_or_init(|| self.compute().map_err(|e| e.to_string()));
        made.as_ref().map_err(Clone::clone)
    }

    /// The last token's features of every completion.
    fn compute(&self) -> Result<Mat> {
        let model = models::featurizer(&self.spec, Dtype::Bf16)?;
        let items: Vec<ScoreItem<'_>> = self
            .pool
            .iter()
            .flat_map(|record| record.completions.iter().map(move |c| (record, c)))
            .map(|(record, c)| ScoreItem {
                prompt: &record.prompt,
                text: &c.text,
                token_ids: c.token_ids.as_deref(),
                finish: c.finish,
            })
            .collect();
        let (started, mut done) = (Instant::now(), 0);
        let told = |lot: usize, left: usize| {
            done += lot;
            self.left.store(left, Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f64() * left as f64 / done as f64;
            eprintln!("annotate: live mode: {left} completions without features, about {seconds:.0} s left");
        };
        Ok(model.cached_features(&items, &mut FeatureCache::in_folder(&self.cache)?, told)?)
    }
}

/// [`Refit`] of a shared [`HeadRefit`].
pub struct Shared(pub Arc<HeadRefit>);

impl Refit for Shared {
    fn preparing(&self) -> Option<String> {
        let left = || self.0.left.load(Ordering::Relaxed);
        self.0.features.get().is_none().then(|| format!("features of {} completions are still computed", left()))
    }

    fn refit(&self, answered: &[PreferenceRecord]) -> std::result::Result<Refitted, String> {
        let this = &self.0;
        let features = this.features()?;
        let by_id: HashMap<&str, &Pair> = this.pairs.iter().map(|pair| (pair.id.as_str(), pair)).collect();
        let row = |pair: &Pair, index: usize| features.row(this.start[pair.prompt] + index);
        let (mut fitted, mut labels, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
        for record in answered {
            let (Some(pair), Some(p)) = (by_id.get(record.id.as_str()), record.p_first) else { continue };
            if is_heldout(&record.prompt, HELD_OUT) {
                unseen.push((*pair, p));
                continue;
            }
            fitted.extend_from_slice(row(pair, pair.first));
            fitted.extend_from_slice(row(pair, pair.second));
            labels.push(PairLabel::new(p, 0.0).into());
        }
        let head = fit_head(&fitted, features.cols, &labels, &HeadFitOptions::default()).head;
        let reward = |pair: &Pair, index| head_product(row(pair, index), &head);
        let ordered: Vec<f64> = unseen
            .iter()
            .filter(|(_, p)| *p != 0.5)
            .map(|(pair, p)| {
                let difference = reward(pair, pair.first) - reward(pair, pair.second);
                if difference == 0.0 { 0.5 } else { f64::from(u8::from((difference > 0.0) == (*p > 0.5))) }
            })
            .collect();
        Ok(Refitted {
            places: this.places(features, &head),
            right: ordered.iter().sum(),
            held_out: ordered.len(),
            fitted: labels.len(),
        })
    }
}

impl HeadRefit {
    /// The queue by the conflicts of the new rewards: larger K first, then the larger difference
    /// of PACS; degenerate prompts last.
    fn places(&self, features: &Mat, head: &[f32]) -> Vec<ReRank> {
        let conflicts: Vec<Option<(f64, Vec<f64>)>> = self
            .pool
            .iter()
            .zip(&self.start)
            .map(|(record, start)| {
                let rewards: Vec<f64> = (0..record.completions.len())
                    .map(|index| head_product(features.row(start + index), head))
                    .collect();
                let logps: Vec<f64> = record.completions.iter().filter_map(|c| c.logp).collect();
                Some((kendall_tau_distance(&rewards, &logps)?, pacs(&rewards, &logps)?))
            })
            .collect();
        let strength = |pair: &Pair| match &conflicts[pair.prompt] {
            Some((k, pacs)) => (*k, (pacs[pair.first] - pacs[pair.second]).abs()),
            None => (-1.0, 0.0),
        };
        let mut order: Vec<&Pair> = self.pairs.iter().collect();
        order.sort_by(|a, b| {
            let (a_strength, b_strength) = (strength(a), strength(b));
            b_strength.0.total_cmp(&a_strength.0).then(b_strength.1.total_cmp(&a_strength.1)).then(a.id.cmp(&b.id))
        });
        let place = |(place, pair): (usize, &Pair)| ReRank { id: pair.id.clone(), priority: place as f64 };
        order.into_iter().enumerate().map(place).collect()
    }
}

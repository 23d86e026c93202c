//! The queue re-ranked by a reward model that learns from the answers.
//!
//! Off by default: whether it pays is an open question, so its effect is shown as a curve. This
//! room knows no models; who serves brings a [`Refit`].

use gainsay_core::record::PreferenceRecord;

use super::store::ReRank;

/// Fits a reward model to the answers so far and says where the conflicts are now.
pub trait Refit: Send + Sync {
    /// Called after each batch of answers, on a thread of its own.
    ///
    /// # Errors
    /// In words for the admin; the queue stays as it was.
    fn refit(&self, answered: &[PreferenceRecord]) -> Result<Refitted, String>;

    /// What is still being prepared, in words for the admin: no fit is asked for meanwhile.
    fn preparing(&self) -> Option<String> {
        None
    }
}

/// What came out of one fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Refitted {
    /// New places in the queue.
    pub places: Vec<ReRank>,
    /// Held-out pairs that the new head orders as people did, of those with an order.
    pub right: f64,
    /// Held-out pairs with an order.
    pub held_out: usize,
    /// Pairs fitted.
    pub fitted: usize,
}

/// One point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Answers in the database.
    pub answers: i64,
    /// Pairs fitted.
    pub fitted: usize,
    /// Share of held-out pairs ordered as people did; `None` without held-out pairs.
    pub accuracy: Option<f64>,
    /// Held-out pairs with an order.
    pub held_out: usize,
    /// From the start of the fit to the queue in its new order, seconds.
    pub seconds: f64,
}

/// Live mode of a server.
pub struct Live {
    /// Who fits.
    pub refit: Box<dyn Refit>,
    /// Answers between two fits.
    pub every: i64,
}

//! The first `budget` proposals of all prompts, in memory of the budget's size.

use super::Proposal;
use crate::record::PromptRecord;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Keeps the proposals that come first.
pub(super) struct Best<'a> {
    budget: usize,
    /// The last of those kept is on top.
    heap: BinaryHeap<Placed<'a>>,
}

struct Placed<'a> {
    record: &'a PromptRecord,
    proposal: Proposal,
    pacs_gap: f64,
}

impl Ord for Placed<'_> {
    /// `Less` comes first: tier, pass, score (descending), |PACS_i - PACS_j| (descending), prompt
    /// id, completion indices. Total, because a pair is proposed once.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.proposal, &other.proposal);
        (a.tier.cmp(&b.tier))
            .then(a.pass.cmp(&b.pass))
            .then(b.score.total_cmp(&a.score))
            .then(other.pacs_gap.total_cmp(&self.pacs_gap))
            .then_with(|| self.record.id.cmp(&other.record.id))
            .then((a.i, a.j).cmp(&(b.i, b.j)))
    }
}

impl PartialOrd for Placed<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Placed<'_> {}

impl<'a> Best<'a> {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, heap: BinaryHeap::new() }
    }

    pub(super) fn see(&mut self, record: &'a PromptRecord, proposal: Proposal, pacs_gap: f64) {
        let placed = Placed { record, proposal, pacs_gap };
        if self.heap.len() < self.budget {
            self.heap.push(placed);
        } else if self.heap.peek().is_some_and(|last| placed < *last) {
            self.heap.pop();
            self.heap.push(placed);
        }
    }

    pub(super) fn into_sorted(self) -> Vec<(&'a PromptRecord, Proposal)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|placed| (placed.record, placed.proposal)).collect()
    }
}

//! The strongest conflicts of a file, in constant memory.

use super::Conflict;
use crate::record::PromptRecord;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A record with its conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct TopEntry {
    /// The annotated record.
    pub record: PromptRecord,
    /// Its conflict.
    pub conflict: Conflict,
}

/// Keeps the `n` records with the largest K, then the largest |PACS|, then the smallest id.
#[derive(Clone, Debug)]
pub struct Top {
    n: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

#[derive(Clone, Debug)]
struct Ranked(TopEntry);

impl Ranked {
    fn order(conflict: &Conflict, id: &str, other: &Self) -> Ordering {
        let mine = &other.0.conflict;
        (conflict.k.total_cmp(&mine.k))
            .then(conflict.max_abs_pacs.total_cmp(&mine.max_abs_pacs))
            .then(other.0.record.id.as_str().cmp(id))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::order(&self.0.conflict, &self.0.record.id, other)
    }
}

impl Top {
    /// Keeps `n` records.
    pub fn new(n: usize) -> Self {
        Self { n, heap: BinaryHeap::new() }
    }

    /// Whether a record with this conflict may rank among the `n` so far; ties are decided by ids.
    pub fn may_take(&self, conflict: &Conflict) -> bool {
        let rank = |c: &Conflict| (c.k, c.max_abs_pacs);
        match self.heap.peek() {
            Some(Reverse(Ranked(least))) if self.heap.len() >= self.n => rank(conflict) >= rank(&least.conflict),
            _ => self.n > 0,
        }
    }

    /// Looks at a record; it is copied only when it ranks among the `n` so far.
    pub fn see(&mut self, record: &PromptRecord, conflict: &Conflict) {
        if self.heap.len() >= self.n {
            match self.heap.peek() {
                Some(Reverse(least)) if Ranked::order(conflict, &record.id, least).is_gt() => {}
                _ => return,
            }
            self.heap.pop();
        }
        let entry = TopEntry { record: record.clone(), conflict: *conflict };
        self.heap.push(Reverse(Ranked(entry)));
    }

    /// The kept records, strongest conflict first.
    pub fn into_sorted(self) -> Vec<TopEntry> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(Ranked(entry))| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_strongest_in_order() {
        let mut top = Top::new(3);
        let cases =
            [("d", 0.5, 1.0), ("b", 0.9, 1.0), ("a", 0.9, 1.0), ("c", 0.9, 2.0), ("e", 0.1, 9.0), ("f", 0.7, 0.0)];
        for (id, k, pacs) in cases {
            let record = serde_json::from_str(&format!(r#"{{"id":"{id}","prompt":"?"}}"#)).unwrap();
            let conflict = Conflict { k, tau_b: 0.0, mean_abs_pacs: 0.0, max_abs_pacs: pacs };
            top.see(&record, &conflict);
        }
        let ids: Vec<_> = top.into_sorted().into_iter().map(|e| e.record.id).collect();
        assert_eq!(ids, ["c", "a", "b"]);
        let mut none = Top::new(0);
        let record = serde_json::from_str(r#"{"id":"a","prompt":"?"}"#).unwrap();
        none.see(&record, &Conflict { k: 1.0, tau_b: 0.0, mean_abs_pacs: 0.0, max_abs_pacs: 0.0 });
        assert!(none.into_sorted().is_empty());
    }
}

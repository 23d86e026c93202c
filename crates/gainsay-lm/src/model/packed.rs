//! Sequences that go through the model together; neighbors with one prompt may share its rows.

use std::ops::Range;

use gainsay_kernels::attention::Span;

use crate::sequence::Sequence;

/// Rows that go through the layers together, whole families: what they need fits the last-level
/// cache. Their number changes no value. A family whose completions would grow beyond it is split, its
/// prompt computed again: however long a prompt is, at least as many rows of completions share it.
const SLICE_TOKENS: usize = 1024;

/// Sequences laid back to back without padding. With [`Packed::sharing`], consecutive sequences
/// of the same prompt form a family: the prompt's rows stand there once, and each member sees
/// them before its own. A row's bits depend on what it sees alone, so they are those of the
/// sequence by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The token of each row.
    pub tokens: Vec<u32>,
    /// The position of each row in its sequence.
    pub positions: Vec<u32>,
    /// First row of each family, and the end.
    starts: Vec<usize>,
    /// Rows of each sequence: shared with its family, and its own.
    members: Vec<Member>,
    /// One key of the adapter's dropout a row; empty where there is none.
    pub(super) dropout: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    family: usize,
    shared: Range<usize>,
    own: Range<usize>,
}

impl Packed {
    /// Lays whole sequences out in their order, nothing shared.
    pub fn new(sequences: &[&[u32]]) -> Self {
        let mut out = Self { starts: vec![0], ..Self::default() };
        for sequence in sequences {
            out.open(&[]);
            out.add(sequence);
        }
        out.close()
    }

    /// Lays sequences out in their order; neighbors with the same prompt share its rows.
    pub fn sharing<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Self {
        let mut out = Self { starts: vec![0], ..Self::default() };
        let mut layout = Layout::default();
        for sequence in sequences {
            if !layout.add(sequence) {
                out.open(sequence.prompt());
            }
            out.add(sequence.completion());
        }
        out.close()
    }

    fn close(mut self) -> Self {
        if !self.members.is_empty() {
            self.starts.push(self.tokens.len());
        }
        self
    }

    /// Begins a family with this prompt.
    fn open(&mut self, prompt: &[u32]) {
        if !self.members.is_empty() {
            self.starts.push(self.tokens.len());
        }
        self.tokens.extend_from_slice(prompt);
        self.positions.extend(0..prompt.len() as u32);
    }

    /// Adds a member to the family that was begun last.
    fn add(&mut self, completion: &[u32]) {
        let family = self.starts.len() - 1;
        let start = self.starts[family];
        let relative = self.members.last().filter(|m| m.family == family);
        let shared = relative.map_or(start..self.tokens.len(), |m| m.shared.clone());
        let own = self.tokens.len()..self.tokens.len() + completion.len();
        self.positions.extend((0..completion.len()).map(|i| (shared.len() + i) as u32));
        self.tokens.extend_from_slice(completion);
        self.members.push(Member { family, shared, own });
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True without sequences.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The rows that sequence `i` shares with no other: all of them after [`Packed::new`], its
    /// completion's after [`Packed::sharing`].
    pub fn range(&self, i: usize) -> Range<usize> {
        self.members[i].own.clone()
    }

    /// Each sequence's rows: shared with its family, and its own.
    pub(super) fn parts(&self) -> Vec<(Range<usize>, Range<usize>)> {
        self.members.iter().map(|m| (m.shared.clone(), m.own.clone())).collect()
    }

    /// The keys of the adapter's dropout of a slice's rows.
    pub(super) fn dropout_of(&self, slice: &Range<usize>) -> &[u64] {
        if self.dropout.is_empty() { &[] } else { &self.dropout[slice.clone()] }
    }

    /// The row of token `j` of sequence `i`.
    pub fn row(&self, i: usize, j: usize) -> usize {
        let Member { shared, own, .. } = &self.members[i];
        if j < shared.len() { shared.start + j } else { own.start + j - shared.len() }
    }

    /// The last row of each sequence; none may be empty.
    pub fn last_rows(&self) -> Vec<usize> {
        self.members.iter().map(|m| if m.own.is_empty() { m.shared.end - 1 } else { m.own.end - 1 }).collect()
    }

    /// The rows of sequence `i` that are its completion's; its last prompt row where it has none.
    pub fn completion_or_last(&self, i: usize) -> Range<usize> {
        let Member { shared, own, .. } = &self.members[i];
        if own.is_empty() { shared.end - 1..shared.end } else { own.clone() }
    }

    /// Rows whose next token is one of [`Packed::range`], with those tokens, sequence after
    /// sequence: (rows, targets). A first token that nothing precedes is not predicted.
    pub fn predictions(&self) -> (Vec<usize>, Vec<u32>) {
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for Member { shared, own, .. } in &self.members {
            let predicted = own.start + usize::from(shared.is_empty() && !own.is_empty())..own.end;
            targets.extend_from_slice(&self.tokens[predicted.clone()]);
            rows.extend(predicted.map(|row| if row == own.start { shared.end - 1 } else { row - 1 }));
        }
        (rows, targets)
    }

    /// The families within a slice's rows.
    pub(super) fn families(&self, slice: &Range<usize>) -> Vec<Range<usize>> {
        let within = |w: &&[usize]| slice.start <= w[0] && w[1] <= slice.end;
        self.starts.windows(2).filter(within).map(|w| w[0]..w[1]).collect()
    }

    /// All sequences' spans.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.slices_of(usize::MAX).pop().map_or_else(Vec::new, |(_, spans)| spans)
    }

    /// Whole families that go through the layers together: their rows, and their spans relative
    /// to the first of these, a family's prompt before its members.
    pub(super) fn slices(&self) -> Vec<(Range<usize>, Vec<Span>)> {
        self.slices_of(SLICE_TOKENS)
    }

    fn slices_of(&self, most: usize) -> Vec<(Range<usize>, Vec<Span>)> {
        let mut out = Vec::new();
        let (mut first, mut member) = (0, 0);
        while first + 1 < self.starts.len() {
            let start = self.starts[first];
            let fits = (first + 1..self.starts.len() - 1).take_while(|f| self.starts[f + 1] - start <= most);
            let end = first + 1 + fits.count();
            let mut spans = Vec::new();
            while let Some(Member { family, shared, own }) = self.members.get(member).filter(|m| m.family < end) {
                let shift = |r: &Range<usize>| r.start - start..r.end - start;
                let is_first = member == 0 || self.members[member - 1].family != *family;
                let alone = self.members.get(member + 1).is_none_or(|m| m.family != *family);
                if is_first && alone {
                    spans.push(Span { prefix: 0..0, rows: shared.start - start..own.end - start });
                } else {
                    if is_first {
                        spans.push(Span { prefix: 0..0, rows: shift(shared) });
                    }
                    spans.push(Span { prefix: shift(shared), rows: shift(own) });
                }
                member += 1;
            }
            out.push((start..self.starts[end], spans));
            first = end;
        }
        out
    }
}

/// How far a layout of sequences that share prompts has come.
#[derive(Clone, Copy, Default)]
struct Layout<'a> {
    /// The family's prompt; empty where none can join.
    prompt: &'a [u32],
    /// Rows of the family's completions.
    completions: usize,
    /// All rows.
    rows: usize,
}

impl<'a> Layout<'a> {
    /// Adds a sequence; whether it joins the family of its predecessor.
    fn add(&mut self, sequence: &'a Sequence) -> bool {
        let (prompt, own) = (sequence.prompt(), sequence.completion().len());
        let joins = !prompt.is_empty() && prompt == self.prompt && self.completions + own <= SLICE_TOKENS;
        let (completions, added) = if joins { (self.completions + own, own) } else { (own, sequence.tokens.len()) };
        *self = Self { prompt, completions, rows: self.rows + added };
        joins
    }

    fn with(mut self, sequences: &'a [Sequence]) -> Self {
        for sequence in sequences {
            self.add(sequence);
        }
        self
    }
}

/// Rows of sequences laid out by [`Packed::sharing`].
pub fn shared_rows(sequences: &[Sequence]) -> usize {
    Layout::default().with(sequences).rows
}

/// Consecutive sequences that go through the model together, laid out by [`Packed::sharing`] in at most
/// `budget` rows; one that is longer by itself is alone.
pub fn batches(sequences: &[Sequence], budget: usize) -> Vec<Range<usize>> {
    let units: Vec<Range<usize>> = (0..sequences.len()).map(|i| i..i + 1).collect();
    batches_of_units(sequences, &units, budget)
}

/// [`batches`] of consecutive runs of sequences that stay together, as places among the runs.
pub fn batches_of_units(sequences: &[Sequence], units: &[Range<usize>], budget: usize) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut layout) = (0, Layout::default());
    for (i, unit) in units.iter().enumerate() {
        layout = layout.with(&sequences[unit.clone()]);
        if i > start && layout.rows > budget {
            out.push(start..i);
            // What begins a batch brings its prompt again.
            (start, layout) = (i, Layout::default().with(&sequences[unit.clone()]));
        }
    }
    if start < units.len() {
        out.push(start..units.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(prompt: &[u32], completion: &[u32]) -> Sequence {
        Sequence { tokens: [prompt, completion].concat(), prompt_len: prompt.len(), truncated: false }
    }

    #[test]
    fn a_family_and_a_single_by_hand() {
        let all = [sequence(&[1, 2], &[3]), sequence(&[1, 2], &[4, 5]), sequence(&[1, 2], &[]), sequence(&[6], &[7])];
        let packed = Packed::sharing(&all);
        assert_eq!(packed.tokens, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(packed.positions, [0, 1, 2, 2, 3, 0, 1]);
        assert_eq!(packed.last_rows(), [2, 4, 1, 6]);
        assert_eq!(packed.predictions(), (vec![1, 1, 3, 5], vec![3, 4, 5, 7]));
        assert_eq!((packed.row(1, 0), packed.row(1, 2), packed.row(3, 1)), (0, 3, 6));
        assert_eq!((packed.completion_or_last(1), packed.completion_or_last(2)), (3..5, 1..2));
        let span = |prefix, rows| Span { prefix, rows };
        let spans = vec![span(0..0, 0..2), span(0..2, 2..3), span(0..2, 3..5), span(0..2, 5..5), span(0..0, 5..7)];
        assert_eq!(packed.slices(), [(0..7, spans)]);
        assert_eq!(shared_rows(&all), 7);
        assert_eq!(batches(&all, 5), [0..3, 3..4]);
        // The second brings its prompt into a batch of its own.
        assert_eq!(batches(&all, 3), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(batches_of_units(&all, &[0..2, 2..4], 5), [0..1, 1..2]);
        assert!(batches(&[], 5).is_empty());
    }

    #[test]
    fn whole_sequences_share_nothing() {
        let packed = Packed::new(&[&[1, 2, 3], &[1, 2]]);
        assert_eq!((&packed.tokens[..], &packed.positions[..]), (&[1, 2, 3, 1, 2][..], &[0, 1, 2, 0, 1][..]));
        assert_eq!((packed.range(0), packed.range(1), packed.last_rows()), (0..3, 3..5, vec![2, 4]));
        assert_eq!(packed.predictions(), (vec![0, 1, 3], vec![2, 3, 2]));
        assert_eq!(packed.spans(), Span::whole(&[0, 3, 5]));
    }

    #[test]
    fn the_same_prompt_later_is_another_family() {
        let all = [sequence(&[1], &[2]), sequence(&[3], &[4]), sequence(&[1], &[5])];
        assert_eq!(Packed::sharing(&all).tokens, [1, 2, 3, 4, 1, 5]);
        assert_eq!(shared_rows(&all), 6);
        let none: [&Sequence; 0] = [];
        assert!(Packed::sharing(none).is_empty() && Packed::sharing(none).slices().is_empty());
    }

    #[test]
    fn a_family_ends_where_its_completions_fill_a_slice() {
        let long = vec![9; SLICE_TOKENS / 3];
        let all: Vec<Sequence> = (0..5).map(|_| sequence(&[1, 2, 3], &long)).collect();
        let packed = Packed::sharing(&all);
        let slices = packed.slices();
        assert_eq!(slices.iter().map(|(rows, _)| rows.len()).collect::<Vec<_>>(), [3 + 3 * 341, 3 + 2 * 341]);
        assert_eq!((packed.len(), packed.tokens.len()), (5, shared_rows(&all)));
    }

    #[test]
    fn a_prompt_longer_than_a_slice_is_shared() {
        let prompt: Vec<u32> = (0..2 * SLICE_TOKENS as u32).collect();
        let all: Vec<Sequence> = (0..8).map(|i| sequence(&prompt, &[i; 20])).collect();
        assert_eq!(shared_rows(&all), prompt.len() + 8 * 20);
        assert_eq!(Packed::sharing(&all).slices().len(), 1);
    }

    proptest! {
        #[test]
        fn batches_hold_what_they_say(
            shapes in prop::collection::vec((0u32..3, 0usize..400), 0..40),
            length in 0usize..1500,
            budget in 1usize..4000,
        ) {
            let of = |&(prompt, own): &(u32, usize)| sequence(&vec![prompt; length * prompt as usize], &vec![7; own]);
            let all: Vec<Sequence> = shapes.iter().map(of).collect();
            prop_assert_eq!(shared_rows(&all), Packed::sharing(&all).tokens.len());
            let batches = batches(&all, budget);
            prop_assert_eq!(batches.iter().cloned().flatten().collect::<Vec<_>>(), (0..all.len()).collect::<Vec<_>>());
            for batch in batches {
                let rows = Packed::sharing(&all[batch.clone()]).tokens.len();
                prop_assert!(rows <= budget || batch.len() == 1);
            }
        }
    }
}

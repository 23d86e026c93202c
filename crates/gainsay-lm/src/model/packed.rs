//! Sequences that go through the model together; neighbors with one prompt may share its rows.

use std::ops::Range;

use gainsay_kernels::attention::Span;

use crate::sequence::Sequence;

/// Rows that go through the layers together, whole families: what they need fits the last-level
/// cache. Their number changes no value. A family that would grow beyond it is split, its prompt
/// computed again.
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
        let mut prompt: &[u32] = &[];
        for sequence in sequences {
            let own = sequence.prompt();
            let family = out.tokens.len() - out.starts[out.starts.len() - 1];
            let grown = family + sequence.completion().len();
            if out.members.is_empty() || own != prompt || own.is_empty() || grown > SLICE_TOKENS {
                out.open(own);
                prompt = own;
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

/// Rows that each sequence adds to a batch in this order: a sequence whose prompt is its
/// predecessor's adds its completion alone.
pub fn added_rows(sequences: &[Sequence]) -> Vec<usize> {
    let shares = |i: usize| i > 0 && sequences[i - 1].prompt() == sequences[i].prompt();
    (0..sequences.len())
        .map(|i| if shares(i) { sequences[i].completion().len() } else { sequences[i].tokens.len() })
        .collect()
}

#[cfg(test)]
mod tests {
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
        assert_eq!(added_rows(&all), [3, 2, 0, 2]);
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
        assert_eq!(added_rows(&all), [2, 2, 2]);
        let none: [&Sequence; 0] = [];
        assert!(Packed::sharing(none).is_empty() && Packed::sharing(none).slices().is_empty());
    }

    #[test]
    fn a_family_ends_where_a_slice_does() {
        let long = vec![9; SLICE_TOKENS / 3];
        let all: Vec<Sequence> = (0..5).map(|_| sequence(&[1, 2, 3], &long)).collect();
        let packed = Packed::sharing(&all);
        let slices = packed.slices();
        assert_eq!(slices.len(), 3);
        assert!(slices.iter().all(|(rows, _)| rows.len() <= SLICE_TOKENS));
        assert_eq!(slices.iter().map(|(rows, _)| rows.len()).sum::<usize>(), packed.tokens.len());
        assert_eq!(packed.len(), 5);
    }
}

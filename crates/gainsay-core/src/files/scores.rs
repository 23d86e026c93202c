//! The scores of a record straight from its line, without building the record.
//!
//! Measuring conflict needs three numbers a completion. [`ScoreLine::scan`] reads them from a line
//! in the form that Gainsay writes; on anything else, valid or not, it says so, and the reader of
//! whole records decides. So it may refuse what [`super::Reader`] reads, but never accepts what
//! that refuses, and the numbers are the same bits.

use std::hash::{DefaultHasher, Hasher};

use super::check::LOGP_TOLERANCE;
use crate::record::SCHEMA;

/// The scores of one prompt's completions; reused from line to line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreLine {
    /// A 64-bit hash of the id.
    pub id: u64,
    /// Where in the line the value of `meta` stands; empty without one.
    pub meta: std::ops::Range<usize>,
    /// Proxy rewards, one a completion.
    pub rewards: Vec<Option<f64>>,
    /// Log-prob sums, nats.
    pub logps: Vec<Option<f64>>,
    /// Token counts, where known and not 0.
    pub tokens: Vec<Option<u32>>,
    /// Bytes of the texts.
    pub bytes: Vec<usize>,
}

impl ScoreLine {
    /// Reads a line without its newline; `None`: not in the plain form, and nothing is known.
    pub fn scan(&mut self, line: &[u8]) -> Option<()> {
        std::str::from_utf8(line).ok()?;
        self.rewards.clear();
        self.logps.clear();
        self.tokens.clear();
        self.bytes.clear();
        self.meta = 0..0;
        let mut cursor = Cursor { line, at: 0 };
        let mut seen = Seen::default();
        cursor.object(|cursor, key| match key {
            b"schema" => {
                seen.once(0)?;
                (cursor.unsigned()? == u64::from(SCHEMA)).then_some(())
            }
            b"id" => {
                seen.once(1)?;
                let id = cursor.plain_string()?;
                let mut hasher = DefaultHasher::new();
                hasher.write(id);
                self.id = hasher.finish();
                (!id.is_empty()).then_some(())
            }
            b"prompt" => {
                seen.once(2)?;
                (cursor.string()? > 0).then_some(())
            }
            b"completions" => {
                seen.once(3)?;
                cursor.array(|cursor| self.completion(cursor))
            }
            b"meta" => {
                seen.once(4)?;
                let start = cursor.at;
                cursor.braces()?;
                self.meta = start..cursor.at;
                Some(())
            }
            _ => None,
        })?;
        (cursor.at == line.len() && seen.all(0b1110)).then_some(())
    }

    fn completion(&mut self, cursor: &mut Cursor) -> Option<()> {
        let (mut reward, mut logp, mut tokens, mut bytes) = (None, None, None, 0);
        let mut seen = Seen::default();
        cursor.object(|cursor, key| match key {
            b"text" => {
                seen.once(0)?;
                bytes = cursor.string()?;
                Some(())
            }
            b"logp" => {
                seen.once(1)?;
                logp = cursor.optional(Cursor::number)?;
                logp.is_none_or(|l| l <= LOGP_TOLERANCE).then_some(())
            }
            b"n_tokens" => {
                seen.once(2)?;
                tokens = cursor.optional(|c| u32::try_from(c.unsigned()?).ok())?;
                Some(())
            }
            b"reward" => {
                seen.once(3)?;
                reward = cursor.optional(Cursor::number)?;
                Some(())
            }
            b"gold" => {
                seen.once(4)?;
                cursor.optional(Cursor::number).map(drop)
            }
            b"finish" => {
                seen.once(5)?;
                matches!(cursor.plain_string()?, b"stop" | b"length").then_some(())
            }
            _ => None,
        })?;
        self.rewards.push(reward);
        self.logps.push(logp);
        self.tokens.push(tokens.filter(|n| *n > 0));
        self.bytes.push(bytes);
        seen.all(0b1).then_some(())
    }
}

/// Which keys an object has had.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    /// Notes key number `bit`; `None` the second time.
    fn once(&mut self, bit: u8) -> Option<()> {
        let mask = 1 << bit;
        let fresh = self.0 & mask == 0;
        self.0 |= mask;
        fresh.then_some(())
    }

    fn all(&self, mask: u8) -> bool {
        self.0 & mask == mask
    }
}

/// A place in a line. Every step returns `None` where the plain form ends.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

/// Bytes that end a run of ordinary characters in a string: quote, backslash, control characters.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// This byte, with white space around it.
    fn mark(&mut self, byte: u8) -> Option<()> {
        self.space();
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// `{"key": value, …}`; `value` reads the value of a key.
    fn object(&mut self, mut value: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.items(b'{', b'}', |cursor| {
            let key = cursor.plain_string()?;
            cursor.mark(b':')?;
            value(cursor, key)
        })
    }

    fn array(&mut self, value: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.items(b'[', b']', value)
    }

    fn items(&mut self, open: u8, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.mark(open)?;
        if self.peek()? != close {
            loop {
                item(self)?;
                self.space();
                if self.peek()? != b',' {
                    break;
                }
                self.mark(b',')?;
            }
        }
        if self.peek()? != close {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// A string; its length in bytes. Escapes of code points are not in the plain form.
    fn string(&mut self) -> Option<usize> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let (start, mut escapes) = (self.at, 0);
        loop {
            let rest = self.line.get(self.at..)?;
            self.at += rest.iter().position(|b| SPECIAL[usize::from(*b)])?;
            match self.line[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(self.at - 1 - start - escapes);
                }
                b'\\' => {
                    let next = self.line.get(self.at + 1)?;
                    if !matches!(next, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') {
                        return None;
                    }
                    self.at += 2;
                    escapes += 1;
                }
                _ => return None,
            }
        }
    }

    /// A string without escapes.
    fn plain_string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let length = self.string()?;
        let end = self.at - 1;
        (end - start == length).then(|| &self.line[start..end])
    }

    fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.line[self.at..].starts_with(b"null") {
            self.at += 4;
            return Some(None);
        }
        value(self).map(Some)
    }

    /// Digits: their value, unless it exceeds 19 digits, and how many.
    fn digits(&mut self, value: &mut u64) -> usize {
        let start = self.at;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.at - start
    }

    fn unsigned(&mut self) -> Option<u64> {
        let (start, mut value) = (self.at, 0);
        let digits = self.digits(&mut value);
        let plain = (1..=18).contains(&digits) && (digits == 1 || self.line[start] != b'0');
        let whole = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        (plain && whole).then_some(value)
    }

    /// A finite JSON number, correctly rounded.
    fn number(&mut self) -> Option<f64> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let mut mantissa = 0;
        let first = self.at;
        let whole = self.digits(&mut mantissa);
        if whole == 0 || (whole > 1 && self.line[first] == b'0') {
            return None;
        }
        let mut fraction = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            fraction = self.digits(&mut mantissa);
            if fraction == 0 {
                return None;
            }
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits(&mut 0) == 0 {
                return None;
            }
        }
        // Exact: both numbers are exact in f64 and one division rounds once (Clinger 1990).
        if !exponent && whole + fraction <= 18 && mantissa < 1 << 53 && fraction < POWERS.len() {
            let value = mantissa as f64 / POWERS[fraction];
            return Some(if negative { -value } else { value });
        }
        let text = std::str::from_utf8(&self.line[start..self.at]).ok()?;
        text.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// An object of which only the end is looked for; its content is not checked.
    fn braces(&mut self) -> Option<()> {
        if self.peek()? != b'{' {
            return None;
        }
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Powers of ten that f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conflict::token_count;
    use crate::files::check::Record;
    use crate::record::PromptRecord;

    fn scan(line: &str) -> Option<ScoreLine> {
        let mut scores = ScoreLine::default();
        scores.scan(line.as_bytes()).map(|()| scores)
    }

    /// What is scanned is what the record says; and the record is accepted.
    fn agrees(line: &str) {
        let Some(scores) = scan(line) else { return };
        // `meta` is not checked by the scan: its users compare it with one that was.
        let without = format!("{}{{}}{}", &line[..scores.meta.start], &line[scores.meta.end..]);
        let line = if scores.meta.is_empty() { line } else { &without };
        let record: PromptRecord = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        record.check().unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(record.completions.len(), scores.rewards.len());
        for (i, c) in record.completions.iter().enumerate() {
            assert_eq!(c.reward.map(f64::to_bits), scores.rewards[i].map(f64::to_bits), "{line}");
            assert_eq!(c.logp.map(f64::to_bits), scores.logps[i].map(f64::to_bits), "{line}");
            assert_eq!((token_count(c), c.text.len()), (scores.tokens[i], scores.bytes[i]), "{line}");
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(record.id.as_bytes());
        assert_eq!(scores.id, hasher.finish());
    }

    const LINE: &str = r#"{"schema":1,"id":"p1","prompt":"why?","completions":[{"text":"a\n\"b\"","logp":-1.25,"n_tokens":3,"finish":"stop","reward":0.5,"gold":-2e-1},{"text":"ü","logp":null,"reward":-0.0}],"meta":{"logp_policy":"m"}}"#;

    #[test]
    fn by_hand() {
        let scores = scan(LINE).unwrap();
        assert_eq!(scores.rewards, [Some(0.5), Some(-0.0)]);
        assert_eq!(scores.logps, [Some(-1.25), None]);
        assert_eq!((&scores.tokens[..], &scores.bytes[..]), (&[Some(3), None][..], &[5, 2][..]));
        assert_eq!(&LINE[scores.meta.clone()], r#"{"logp_policy":"m"}"#);
        agrees(LINE);
        // As Python's json writes it, and with nothing in it.
        assert!(scan(&LINE.replace(':', ": ").replace(",\"", ", \"")).is_some());
        assert!(scan(r#"{"id":"a","prompt":"q","completions":[]}"#).unwrap().rewards.is_empty());
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_reader() {
        for (from, to) in [
            ("\"schema\":1", "\"schema\":2"),
            ("\"id\":\"p1\"", "\"id\":\"\""),
            ("\"why?\"", "[{\"role\":\"user\",\"content\":\"why?\"}]"),
            ("-1.25", "0.5"),
            ("-1.25", "NaN"),
            ("-1.25", "-01.25"),
            ("-1.25", "-1."),
            ("-1.25", "-1e400"),
            ("\"n_tokens\":3", "\"n_tokens\":3.0"),
            ("\"n_tokens\":3", "\"token_ids\":[1]"),
            ("\"reward\":0.5", "\"reward\":0.5,\"reward\":0.5"),
            ("a\\n", "a\\x"),
            ("a\\n", "a\\u00e9"),
            ("\"stop\"", "\"end\""),
            ("\"text\":\"ü\",", ""),
            ("\"prompt\"", "\"question\""),
            ("}}", "}"),
            ("}}", "}}}"),
        ] {
            let line = LINE.replacen(from, to, 1);
            assert_ne!(line, LINE);
            assert!(scan(&line).is_none(), "{line}");
        }
        assert!(ScoreLine::default().scan(b"{\"id\":\"\xff\"}").is_none());
    }

    proptest! {
        #[test]
        fn numbers_have_the_bits_that_the_reader_reads(value in prop::num::f64::NORMAL | prop::num::f64::ZERO, digits in 0usize..20) {
            for text in [format!("{value:?}"), format!("{:.digits$}", value % 1e6), format!("{value:e}")] {
                agrees(&LINE.replacen("0.5", &text, 1));
            }
        }

        #[test]
        fn whatever_is_accepted_is_what_the_reader_accepts(
            places in prop::collection::vec((0usize..LINE.len(), prop::sample::select(br#"{}[]:,"\ 019-+.eEntul/x"#.to_vec())), 1..4),
            cut in 0usize..LINE.len() * 4,
        ) {
            let mut line = LINE.as_bytes().to_vec();
            for (at, byte) in places {
                line[at] = byte;
            }
            line.truncate(cut.max(10));
            if let Ok(text) = String::from_utf8(line) {
                agrees(&text);
            }
        }
    }
}

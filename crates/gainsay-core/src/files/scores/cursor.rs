//! A place in a line of JSON that is expected to be in the plain form.

/// A place in a line. Every step returns `None` where the plain form ends.
pub(super) struct Cursor<'a> {
    pub line: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    pub fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// These bytes, as they are.
    #[inline]
    pub fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        let found = self.line.get(self.at..self.at + bytes.len())?;
        self.at += bytes.len();
        same(found, bytes).then_some(())
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
    pub fn object(&mut self, mut value: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.items(b'{', b'}', |cursor| {
            let key = cursor.plain_string()?;
            cursor.mark(b':')?;
            value(cursor, key)
        })
    }

    pub fn array(&mut self, value: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
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
    pub fn string(&mut self) -> Option<usize> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let (start, mut escapes) = (self.at, 0);
        loop {
            let rest = self.line.get(self.at..)?;
            let run = memchr::memchr2(b'"', b'\\', rest)?;
            if rest[..run].iter().fold(false, |any, b| any | (*b < 0x20)) {
                return None;
            }
            self.at += run;
            match self.line[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(self.at - 1 - start - escapes);
                }
                _ => {
                    let next = self.line.get(self.at + 1)?;
                    if !matches!(next, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') {
                        return None;
                    }
                    self.at += 2;
                    escapes += 1;
                }
            }
        }
    }

    /// A string without escapes.
    pub fn plain_string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let length = self.string()?;
        let end = self.at - 1;
        (end - start == length).then(|| &self.line[start..end])
    }

    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.peek() == Some(b'n') {
            return self.literal(b"null").map(|()| None);
        }
        value(self).map(Some)
    }

    /// Digits: their value, unless it exceeds 19 digits, and how many. Eight at a time, without a
    /// branch that depends on where they end: numbers of changing lengths are what costs time.
    #[inline(always)]
    fn digits(&mut self, value: &mut u64) -> usize {
        let start = self.at;
        while let Some(word) = self.line.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let (count, number) = leading_digits(u64::from_le_bytes(*word));
            *value = value.wrapping_mul(WHOLE_POWERS[count]).wrapping_add(number);
            self.at += count;
            if count < 8 {
                return self.at - start;
            }
        }
        while let Some(digit) = self.peek().map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.at - start
    }

    pub fn unsigned(&mut self) -> Option<u64> {
        let (start, mut value) = (self.at, 0);
        let digits = self.digits(&mut value);
        let plain = (1..=18).contains(&digits) && (digits == 1 || self.line[start] != b'0');
        let whole = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        (plain && whole).then_some(value)
    }

    /// A finite JSON number, correctly rounded.
    pub fn number(&mut self) -> Option<f64> {
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
    pub fn braces(&mut self) -> Option<()> {
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

/// Equality of two short slices of one length, without a call.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let words = || a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).all(|(a, b)| word(a) == word(b));
    match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a), Some(b)) => word(a) == word(b) && words(),
        _ => a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0,
    }
}

/// How many of eight characters, the first one in the lowest byte, are digits before anything else,
/// and their number.
#[inline(always)]
fn leading_digits(word: u64) -> (usize, u64) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let digits = word ^ (ONES * 0x30);
    // The top bit of each byte above 9; no sum carries into the next byte.
    let others = (((digits & (ONES * 0x7F)) + ONES * 0x76) | digits) & (ONES * 0x80);
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // Zeros in front of the digits; then pairs, fours and eights of neighbors become one number.
    let digits = digits << (64 - 8 * count);
    let pairs = (digits * 10 + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    (count, (fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF)
}

/// Powers of ten for up to eight digits.
const WHOLE_POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Powers of ten that f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

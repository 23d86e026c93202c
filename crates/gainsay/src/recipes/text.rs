//! Untrusted text on a terminal.

/// The text on one line, at most `width` characters, with control characters (escape sequences
/// among them) and direction overrides made visible.
pub fn one_line(text: &str, width: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == width {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str(" ⏎ "),
            c if c.is_control() || is_direction_control(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that reorder what follows on screen.
fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value with three digits, or a dash.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc", 80), "a\u{fffd}[2Jb ⏎ c");
        assert_eq!(one_line("x\u{202e}y", 80), "x\u{fffd}y");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }
}

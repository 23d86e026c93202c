//! Text for the page: escaping of what models and people wrote, and numbers as they are printed.
//!
//! Completions are untrusted. Everything that comes from a file passes through [`escape`] (short
//! labels, attributes, SVG titles) or [`passage`] (whole texts); nothing else on the page does.

/// Characters that render as nothing, or that reorder what stands around them, are spelled out:
/// a reader must see what the reward model saw. `None`: the character stands for itself.
fn spelled_out(c: char) -> Option<String> {
    match c {
        '\n' | '\t' => None,
        '\u{0}'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}'
        | '\u{ffff}'
        | '\u{61c}'
        | '\u{e0000}'..='\u{e007f}' => Some(format!("[U+{:04X}]", c as u32)),
        _ => None,
    }
}

/// The HTML entity of a character that HTML gives a meaning.
fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

/// Untrusted text for element content, attribute values and SVG titles: HTML's own characters as
/// entities, control and direction-changing characters spelled out (`[U+202E]`).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        if let Some(entity) = entity(c) {
            out.push_str(entity);
        } else if let Some(name) = spelled_out(c) {
            out.push_str(&name);
        } else {
            out.push(c);
        }
    }
    out
}

/// The first `limit` characters of `text`, with an ellipsis where more follow; not escaped.
pub fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A whole untrusted text as one element that keeps its line breaks, isolates its writing
/// direction from the page's and is cut after `limit` characters, saying how many are left out.
pub fn passage(text: &str, limit: usize) -> String {
    if text.trim().is_empty() {
        return r#"<p class="passage empty">(empty)</p>"#.to_string();
    }
    let total = text.chars().count();
    let shown: String = text.chars().take(limit).collect();
    let mut body = String::new();
    for c in shown.chars() {
        match spelled_out(c) {
            Some(name) => body.push_str(&format!(r#"<span class="control">{name}</span>"#)),
            None => match entity(c) {
                Some(entity) => body.push_str(entity),
                None => body.push(c),
            },
        }
    }
    let rest = match total.checked_sub(limit) {
        Some(left @ 1..) => {
            format!(r#" <span class="rest">… {} more characters</span>"#, count(left))
        }
        _ => String::new(),
    };
    format!(r#"<p class="passage" dir="auto"><bdi>{body}</bdi>{rest}</p>"#)
}

/// `x` with `digits` decimals, a true minus sign, and no minus before a zero.
pub fn number(x: f64, digits: usize) -> String {
    if !x.is_finite() {
        return "–".to_string();
    }
    let plain = format!("{:.digits$}", x.abs());
    let zero = plain.bytes().all(|b| matches!(b, b'0' | b'.'));
    if x < 0.0 && !zero { format!("−{plain}") } else { plain }
}

/// [`number`] with a plus sign before what is above zero.
pub fn signed(x: f64, digits: usize) -> String {
    let plain = number(x, digits);
    let zero = plain.bytes().all(|b| matches!(b, b'0' | b'.'));
    if x > 0.0 && !zero { format!("+{plain}") } else { plain }
}

/// A whole number with a comma between groups of three digits.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A share in [0, 1] as a whole percentage.
pub fn percent(share: f64) -> String {
    format!("{}\u{a0}%", number(100.0 * share, 0))
}

/// Seconds as people say them, without line breaks: `0.4 s`, `48 s`, `3 min 20 s`, `24 min`,
/// `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_string();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}\u{a0}s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}\u{a0}s"),
        60..600 => format!("{}\u{a0}min\u{a0}{:02}\u{a0}s", whole / 60, whole % 60),
        _ => match (seconds / 60.0).round() as u64 {
            minutes @ 0..60 => format!("{minutes}\u{a0}min"),
            minutes => format!("{}\u{a0}h\u{a0}{:02}\u{a0}min", minutes / 60, minutes % 60),
        },
    }
}

/// `one` for 1, `many` for any other number, after the number itself.
pub fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{}\u{a0}{}", count(n), if n == 1 { one } else { many })
}

/// A name (of an arm, a stage) within running text: escaped, and not broken at its hyphens.
pub fn name(text: &str) -> String {
    format!(r#"<span class="name">{}</span>"#, escape(text))
}

/// Names as a person lists them: `a`, `a and b`, `a, b and c`.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_quotes_become_entities() {
        assert_eq!(
            escape(r#"<script>alert("x&y")</script> 'q'"#),
            "&lt;script&gt;alert(&quot;x&amp;y&quot;)&lt;/script&gt; &#39;q&#39;"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        assert_eq!(escape("a\u{0}b\u{202e}c\u{7f}\u{e0041}"), "a[U+0000]b[U+202E]c[U+007F][U+E0041]");
        assert_eq!(escape("line\nnext\ttab é 😀 שלום"), "line\nnext\ttab é 😀 שלום");
    }

    #[test]
    fn a_passage_says_what_it_left_out() {
        let html = passage(&"x".repeat(1250), 200);
        assert!(html.contains(&format!("<bdi>{}</bdi>", "x".repeat(200))));
        assert!(html.contains("… 1,050 more characters"));
        assert!(passage(" \n", 10).contains("(empty)"));
        assert!(!passage("short", 5).contains("more characters"));
    }

    #[test]
    fn numbers_keep_their_sign_honest() {
        assert_eq!(number(-0.004, 2), "0.00");
        assert_eq!(number(-1.25, 1), "−1.2");
        assert_eq!(signed(0.004, 2), "0.00");
        assert_eq!(signed(0.5, 2), "+0.50");
        assert_eq!(signed(-0.5, 2), "−0.50");
        assert_eq!(number(f64::NAN, 2), "–");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn durations_read_as_spoken() {
        let spoken = |seconds| duration(seconds).replace('\u{a0}', " ");
        assert_eq!(spoken(0.44), "0.4 s");
        assert_eq!(spoken(48.2), "48 s");
        assert_eq!(spoken(59.7), "1 min 00 s");
        assert_eq!(spoken(200.0), "3 min 20 s");
        assert_eq!(spoken(1_411.0), "24 min");
        assert_eq!(spoken(7_500.0), "2 h 05 min");
    }

    #[test]
    fn names_are_listed_in_words() {
        let names = |n: &[&str]| list(&n.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["a"]), "a");
        assert_eq!(names(&["a", "b", "c"]), "a, b and c");
    }
}

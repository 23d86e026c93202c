//! Finds the NaN or infinity that made a line invalid JSON.

const LITERALS: [&str; 8] = ["-Infinity", "Infinity", "NaN", "-NaN", "nan", "-nan", "inf", "-inf"];

/// Where the scanner stands inside an object or an array.
enum Level {
    Object { key: String },
    Array { index: usize },
}

/// Path (`completions[1].logp`) and spelling of the first bare NaN or infinity in a line of JSON,
/// as Python's `json.dumps` writes them. Only called on lines that the parser refused.
pub(crate) fn find(line: &[u8]) -> Option<(String, &'static str)> {
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    let mut last_string = String::new();
    while at < line.len() {
        match line[at] {
            b'"' => {
                let end = string_end(line, at);
                last_string = String::from_utf8_lossy(&line[at + 1..end]).into_owned();
                at = end;
            }
            b':' => {
                if let Some(Level::Object { key }) = levels.last_mut() {
                    *key = std::mem::take(&mut last_string);
                }
            }
            b'{' => levels.push(Level::Object { key: String::new() }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => {
                levels.pop();
            }
            b',' => {
                if let Some(Level::Array { index }) = levels.last_mut() {
                    *index += 1;
                }
            }
            _ => {
                if let Some(literal) = LITERALS.iter().find(|l| line[at..].starts_with(l.as_bytes())) {
                    return Some((path(&levels), literal));
                }
            }
        }
        at += 1;
    }
    None
}

/// Index of the quote that closes the string opened at `start`, or the line's end.
fn string_end(line: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < line.len() && line[at] != b'"' {
        at += if line[at] == b'\\' { 2 } else { 1 };
    }
    at.min(line.len())
}

fn path(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object { key } if path.is_empty() => path.push_str(key),
            Level::Object { key } => {
                path.push('.');
                path.push_str(key);
            }
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
    }
    if path.is_empty() { "the value".into() } else { path }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn names_the_field() {
        let line = br#"{"id":"NaN","completions":[{"logp":-1.0},{"logp": NaN}]}"#;
        assert_eq!(find(line), Some(("completions[1].logp".into(), "NaN")));
        let line = br#"{"a\"b":"\\","token_logps":[-0.5,-Infinity]}"#;
        assert_eq!(find(line), Some(("token_logps[1]".into(), "-Infinity")));
        assert_eq!(find(b"Infinity"), Some(("the value".into(), "Infinity")));
    }

    #[test]
    fn leaves_strings_and_cut_lines_alone() {
        assert_eq!(find(br#"{"text":"NaN and Infinity"}"#), None);
        assert_eq!(find(br#"{"text":"NaN and \"#), None);
        assert_eq!(find(br#"{"text":tru"#), None);
    }
}

//! Whether the tokens that a server names are the completion's own. Pure functions.

use crate::client::Found;

/// What a piece holds of a character whose bytes are spread over tokens.
const HALF: char = '\u{fffd}';

/// A completion as its tokens are read here.
pub(super) struct Own {
    /// Its text without special tokens.
    pub text: String,
    /// Each token's text; empty for a special token.
    pub tokens: Vec<String>,
    /// How its special tokens are spelled.
    pub special: Vec<String>,
}

impl Own {
    /// Whether the server's pieces spell the completion, and from its first token on. Servers spell
    /// special tokens or leave them empty, and leave out characters that no single token holds.
    pub fn spelled_by(&self, pieces: &[&str]) -> bool {
        let half = self.tokens.iter().filter(|token| token.contains(HALF)).count();
        let mut got = String::new();
        for piece in pieces.iter().filter(|piece| !piece.starts_with("bytes:\\x")) {
            let piece = self.special.iter().fold((*piece).to_owned(), |piece, name| piece.replace(name.as_str(), ""));
            got.extend(piece.chars().filter(|c| *c != HALF));
        }
        // SentencePiece's mark of a word's beginning: a space within the first token.
        let marked = pieces.first().is_some_and(|piece| piece.len() > 1 && piece.starts_with(' '));
        let bare = got.strip_prefix(' ').filter(|_| marked);
        let spelled = std::iter::once(got.as_str()).chain(bare).any(|got| is_text(got, &self.text, half));
        spelled && self.begins_with(pieces)
    }

    /// An empty piece in front may be the prompt's last token, special as in `[/INST]`.
    fn begins_with(&self, pieces: &[&str]) -> bool {
        let whole = self.tokens.first().is_some_and(|token| !token.is_empty() && !token.contains(HALF));
        let shown = pieces.first().is_some_and(|piece| !piece.is_empty() && !piece.contains(HALF));
        !whole || shown
    }
}

/// Whether `got` is the text, at most `missing` of its characters beyond ASCII left out.
fn is_text(got: &str, text: &str, mut missing: usize) -> bool {
    let mut got = got.chars().peekable();
    for wanted in text.chars().filter(|c| *c != HALF) {
        if got.next_if_eq(&wanted).is_some() {
            continue;
        }
        if wanted.is_ascii() || missing == 0 {
            return false;
        }
        missing -= 1;
    }
    got.next().is_none()
}

/// Refuses log-probs of tokens that are not the completion's: those from `start` on must spell it,
/// or begin where the prompt ends.
pub(super) fn check(own: &Own, pieces: Option<&[&str]>, offset: Option<u64>, prompt_chars: usize) -> Found<()> {
    if offset == Some(prompt_chars as u64) || pieces.is_some_and(|pieces| own.spelled_by(pieces)) {
        return Ok(());
    }
    Err(match pieces {
        Some(pieces) => format!(
            "the last {} tokens that it names are {:?}, which is not the completion: it tokenizes otherwise than \
             #tokenizer=, and its log-probs would be those of other tokens",
            pieces.len(),
            shown(&pieces.concat())
        ),
        None => "it names neither its tokens nor where they begin, so its log-probs may be those of other tokens; use \
                 vLLM, SGLang or llama-cpp-python"
            .into(),
    })
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str, tokens: &[&str]) -> Own {
        Own {
            text: text.into(),
            tokens: tokens.iter().map(|t| (*t).to_owned()).collect(),
            special: vec!["</s>".into()],
        }
    }

    #[test]
    fn the_completions_own_tokens_are_taken() {
        let hello = own("hello you", &["hello", " you", ""]);
        assert!(hello.spelled_by(&["hello", " you", ""]), "special tokens left empty");
        assert!(hello.spelled_by(&["hello", " you", "</s>"]), "special tokens spelled");
        assert!(hello.spelled_by(&[" hello", " you", ""]), "SentencePiece's space");
        let smile = own("a🙂b", &["a", "\u{fffd}", "\u{fffd}", "b", ""]);
        assert!(smile.spelled_by(&["a", "", "", "b", ""]), "halves left out, as llama-cpp-python does");
        assert!(smile.spelled_by(&["a", "", "🙂", "b", ""]), "the whole with its last half, as vLLM does");
        assert!(smile.spelled_by(&["a", "bytes:\\xf0\\x9f", "bytes:\\x99\\x82", "b", ""]), "as OpenAI does");
    }

    #[test]
    fn other_tokens_are_refused() {
        let hello = own("hello you", &["hello", " you", ""]);
        // One token more there, and one less with the prompt's last before it: new line, special, space.
        for pieces in [["lo", " you", ""], ["\n", "hello you", ""], ["", "hello you", ""], [" ", "hello you", ""]] {
            assert!(!hello.spelled_by(&pieces), "{pieces:?}");
        }
        let sky = own("天空", &["天", "空", ""]);
        assert!(sky.spelled_by(&["天", "空", ""]) && !sky.spelled_by(&["空", "", ""]));
        assert!(!sky.spelled_by(&["", "天空", ""]));
    }

    #[test]
    fn an_offset_at_the_prompts_end_is_as_good() {
        let own = own("ab", &["a", "b"]);
        assert_eq!(check(&own, None, Some(7), 7), Ok(()));
        assert!(check(&own, None, Some(6), 7).unwrap_err().contains("neither"));
        assert!(check(&own, Some(&["x", "b"]), Some(6), 7).unwrap_err().contains("\"xb\""));
        assert_eq!(check(&own, Some(&["a", "b"]), None, 7), Ok(()));
    }
}

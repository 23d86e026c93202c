//! Chat templates: the jinja source that a model ships with, rendered as transformers does.

use std::collections::BTreeMap;

use gainsay_core::record::Message;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::python_json::tojson;
use crate::error::LmError;

/// A chat template with the special tokens that it may name.
#[derive(Clone, Debug)]
pub(super) struct ChatTemplate {
    source: String,
    /// The source without transformers' own `generation` tags, which only mark positions.
    jinja: String,
    special: BTreeMap<String, String>,
}

impl ChatTemplate {
    pub fn new(source: &str, special: &BTreeMap<String, String>) -> Self {
        Self { source: source.to_owned(), jinja: neutralize_generation_tags(source), special: special.clone() }
    }

    /// The template as the model ships it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; `open` starts the assistant's next turn.
    pub fn render(&self, messages: &[Message], open: bool) -> Result<String, LmError> {
        let env = environment();
        let special = Value::from_serialize(&self.special);
        let values = context! {
            messages => messages,
            add_generation_prompt => open,
            tools => (),
            documents => (),
            ..special
        };
        env.render_named_str("chat template", &self.jinja, values)
            .map_err(|e| LmError::Prompt(format!("the model's chat template cannot render the prompt: {e}")))
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |format: String| strftime(&format));
    env.add_filter("tojson", tojson);
    env
}

/// The date of a prompt that names one. It is always 26 July 2024, the date that Llama 3.1's
/// template falls back to: a prompt must not depend on the day it is rendered.
fn strftime(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let text = match chars.next() {
            Some('d' | 'e') => "26",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('H' | 'M' | 'S') => "00",
            Some('F') => "2024-07-26",
            Some('%') => "%",
            _ => "",
        };
        out.push_str(text);
    }
    out
}

/// `{% generation %}` ... `{% endgeneration %}` to `{% if true %}` ... `{% endif %}`.
fn neutralize_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let (tag, end) = (&rest[start..start + length], start + length);
        out.push_str(&rest[..start]);
        let word = tag.trim_start_matches("{%").trim_matches(['-', '+', ' ', '\t', '\n']);
        out.push_str(&match word {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(content: &str) -> Vec<Message> {
        vec![Message { role: "user".into(), content: content.into() }]
    }

    fn render(source: &str, messages: &[Message], open: bool) -> Result<String, LmError> {
        let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        ChatTemplate::new(source, &special).render(messages, open)
    }

    #[test]
    fn blocks_are_trimmed_and_special_tokens_known() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n  {% if true %}\n{{ m['role'] }}:{{ m.content }}\n  {% endif %}\n\
                      {% endfor %}{% if add_generation_prompt %}>{% endif %}";
        assert_eq!(render(source, &user("<b>"), true).unwrap(), "<s>\nuser:<b>\n>");
        assert_eq!(render(source, &user("x"), false).unwrap(), "<s>\nuser:x\n");
    }

    #[test]
    fn python_methods_and_slices_work() {
        let source = "{% for m in messages[::-1] %}{{ m.content.strip().split('|')[-1] }}{% endfor %}\
                      {{ tools is none }}{{ 'x'.startswith('x') }}{{ messages | length }}";
        assert_eq!(render(source, &user(" a|b "), false).unwrap(), "bTrueTrue1");
    }

    #[test]
    fn a_template_can_refuse() {
        let error = render("{{ raise_exception('roles must alternate') }}", &user("x"), true).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(error.is_user_error());
    }

    #[test]
    fn the_date_is_fixed() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &user("x"), true).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn generation_marks_are_ignored() {
        let source = "{%- for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration %}{% endfor %}";
        assert_eq!(render(source, &user("x"), false).unwrap(), "x");
    }
}

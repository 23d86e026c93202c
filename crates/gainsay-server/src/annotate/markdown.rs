//! Untrusted text as HTML. Completions are what a model wrote: nothing in them may run, load or
//! link anywhere.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// Markdown as HTML: headings, lists, emphasis, tables and code. HTML in the text is shown as
/// text; links and images become their text and address, since a click or a load would tell an
/// outside host about the annotator.
pub fn render(text: &str) -> Markup {
    let mut options = Options::empty();
    options.insert(Options::ENABLE_TABLES);
    options.insert(Options::ENABLE_STRIKETHROUGH);
    let mut addresses: Vec<CowStr<'_>> = Vec::new();
    let events = Parser::new_ext(text, options).filter_map(|event| match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Some(Event::Text(raw)),
        // Fences name a language, which would become an attribute.
        Event::Start(Tag::CodeBlock(_)) => Some(Event::Start(Tag::CodeBlock(pulldown_cmark::CodeBlockKind::Indented))),
        Event::Start(Tag::Heading { level, .. }) => {
            Some(Event::Start(Tag::Heading { level: below(level), id: None, classes: vec![], attrs: vec![] }))
        }
        Event::End(TagEnd::Heading(level)) => Some(Event::End(TagEnd::Heading(below(level)))),
        Event::Start(Tag::HtmlBlock) => Some(Event::Start(Tag::Paragraph)),
        Event::End(TagEnd::HtmlBlock) => Some(Event::End(TagEnd::Paragraph)),
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            addresses.push(dest_url);
            None
        }
        Event::End(TagEnd::Link | TagEnd::Image) => {
            addresses.pop().map(|address| Event::Text(format!(" ({address})").into()))
        }
        // People see the line breaks that the model wrote.
        Event::SoftBreak => Some(Event::HardBreak),
        other => Some(other),
    });
    let mut out = String::with_capacity(text.len() * 2);
    html::push_html(&mut out, events);
    PreEscaped(out)
}

/// Headings of the text stand below those of the page, which end at the second level.
fn below(level: HeadingLevel) -> HeadingLevel {
    HeadingLevel::try_from(level as usize + 2).unwrap_or(HeadingLevel::H6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_shows() {
        assert_eq!(render("##### five").0, "<h6>five</h6>\n");
        let html = render("# T\n\n1. *a*\n2. `b < c`\n\n```rust\nlet x = \"<b>\";\n```\n").0;
        assert!(html.contains("<h3>T</h3>") && html.contains("<em>a</em>"), "{html}");
        assert!(html.contains("b &lt; c") && html.contains("&lt;b&gt;") && !html.contains("<b>"), "{html}");
    }

    #[test]
    fn nothing_runs_loads_or_links() {
        let attacks = [
            "<script>alert(1)</script>",
            "a <img src=x onerror=alert(1)> b",
            "<a href=\"javascript:alert(1)\">x</a>",
            "[x](javascript:alert(1))",
            "[x](https://evil.example \"t\\\" onmouseover=alert(1)\")",
            "![x](https://evil.example/pixel.png)",
            "<https://evil.example>",
            "```\"><script>alert(1)</script>\nx\n```",
            "# h {#id onclick=alert(1)}",
            "<div\nonclick=alert(1)>\n\n<style>*{display:none}</style>",
            "[a]: javascript:alert(1)\n[a]",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "<!-- --><svg/onload=alert(1)>",
            "|a|\n|-|\n|<script>x</script>|",
        ];
        for attack in attacks {
            let html = render(attack).0;
            for tag in ["<script", "<img", "<a ", "<svg", "<style", "<div", "<iframe", "href=", "src="] {
                // Escaped text may name attributes; a tag may not be there.
                let found = html.to_lowercase().contains(tag);
                let harmless = !tag.starts_with('<') && !html.contains(&format!("<a {tag}"));
                assert!(!found || harmless, "{attack} -> {html}");
            }
        }
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    /// The tags that may appear, without attributes except what tables and lists carry.
    const KNOWN: [&str; 24] = [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
        "em",
        "strong",
        "del",
        "code",
        "pre",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "br",
        "hr",
    ];

    proptest! {
        #[test]
        fn only_known_tags_come_out(text in "[a-z<>/\"'=!&#`*_\\[\\]() \n|-]{0,120}") {
            let html = render(&text).0;
            for piece in html.split('<').skip(1) {
                let tag = piece.split('>').next().unwrap_or_default();
                let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
                prop_assert!(KNOWN.contains(&name), "{tag} in {html}");
                let attributes = tag.trim_start_matches('/').trim_end_matches('/').trim().strip_prefix(name).unwrap_or("").trim();
                prop_assert!(attributes.is_empty() || attributes.starts_with("start=\"") || attributes.starts_with("style=\"text-align"), "{tag}");
            }
        }
    }
}

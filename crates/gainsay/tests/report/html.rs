//! Reads a page as a reader or a browser would, as far as the tests need.

use std::fs;
use std::path::Path;

use gainsay::report;

/// Elements without an end tag.
const VOID: [&str; 3] = ["meta", "hr", "br"];

/// A written page.
pub struct Page {
    /// As written.
    pub html: String,
    /// Its tags, in order.
    pub tags: Vec<String>,
    /// What a reader sees: no tags, entities resolved, white space folded.
    pub text: String,
}

/// Text with every kind of white space folded into single spaces.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// HTML without its tags.
fn visible(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            c if !inside => out.push(c),
            _ => {}
        }
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    words(&entities.iter().fold(out, |text, (entity, c)| text.replace(entity, c)))
}

impl Page {
    /// Writes the page of a run directory and reads it. `REPORT_TEST_PAGE` names a file that
    /// gets a copy, to look at in a browser.
    pub fn read(dir: &Path) -> Self {
        let path = report::write(dir).unwrap();
        let html = fs::read_to_string(path).unwrap();
        if let Ok(copy) = std::env::var("REPORT_TEST_PAGE") {
            fs::write(copy, &html).unwrap();
        }
        let tags = html.split('<').skip(1).map(|part| format!("<{}>", part.split('>').next().unwrap())).collect();
        let text = visible(&html);
        Self { html, tags, text }
    }

    /// The HTML between the first `start` and the next `end`.
    pub fn raw(&self, start: &str, end: &str) -> &str {
        let from = self.html.find(start).unwrap_or_else(|| panic!("no {start}")) + start.len();
        let to = from + self.html[from..].find(end).unwrap();
        &self.html[from..to]
    }

    /// The text between the first `start` and the next `end`, without spaces before punctuation.
    pub fn element(&self, start: &str, end: &str) -> String {
        let text = visible(self.raw(start, end));
        [" ,", " .", " )", " ;"].iter().fold(text, |t, p| t.replace(p, &p[1..])).replace("( ", "(")
    }

    /// Texts of all headings of a level.
    pub fn headings(&self, level: &str) -> Vec<String> {
        let (start, end) = (format!("<{level}"), format!("</{level}>"));
        let starts = self.html.match_indices(&start).map(|(at, _)| at);
        starts.map(|at| visible(self.html[at..].split(&end).next().unwrap())).collect()
    }

    /// Values of an attribute, wherever it stands.
    pub fn attributes(&self, name: &str) -> Vec<String> {
        let start = format!(" {name}=\"");
        let values = self.tags.iter().filter_map(|tag| tag.split(&start).nth(1));
        values.map(|rest| rest.split('"').next().unwrap().to_string()).collect()
    }

    /// The body rows of the table with this caption, as texts of their cells.
    pub fn rows(&self, caption: &str) -> Vec<Vec<String>> {
        let start = self.html.find(&format!("<caption><b>{caption}</b>")).unwrap();
        let table = self.html[start..].split("</table>").next().unwrap();
        let body = table.split("<tbody").nth(1).unwrap();
        body.split("<tr ")
            .skip(1)
            .map(|row| {
                let cells = row.split("</th>").flat_map(|part| part.split("</td>"));
                let texts = cells.map(|cell| visible(&format!("<{cell}>")));
                texts.filter(|text| !text.is_empty()).collect()
            })
            .collect()
    }

    /// Every element is closed, in the right order.
    pub fn assert_balanced(&self) {
        let mut open: Vec<&str> = Vec::new();
        for tag in &self.tags {
            let name = tag.trim_matches(['<', '>', '/']).split_whitespace().next().unwrap();
            if tag.starts_with("<!") || tag.ends_with("/>") || VOID.contains(&name) {
                continue;
            }
            if tag.starts_with("</") {
                assert_eq!(open.pop(), Some(name), "closed by {tag}");
            } else {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }
}

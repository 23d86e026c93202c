//! The `tojson` filter as Python's `json.dumps(..., ensure_ascii=False)` writes it.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Compact JSON with Python's spaces after `,` and `:`.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The filter; `indent` as in Python.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
        Some(width) => {
            let spaces = vec![b' '; width];
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(&spaces)))
        }
    };
    let fail = |e: String| Error::new(ErrorKind::BadSerialization, e);
    written.map_err(|e| fail(e.to_string()))?;
    String::from_utf8(out).map(Value::from_safe_string).map_err(|e| fail(e.to_string()))
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    #[test]
    fn json_is_spelled_as_python_does() {
        let mut env = Environment::new();
        env.add_filter("tojson", super::tojson);
        let x = context! { x => vec!["<a>", "é"], n => 1 };
        let render = |source: &str| env.render_str(source, context! { v => x.clone() }).unwrap();
        assert_eq!(render("{{ v.x | tojson }}"), r#"["<a>", "é"]"#);
        assert_eq!(render("{{ {'a': v.n} | tojson }}"), r#"{"a": 1}"#);
        assert_eq!(render("{{ {'a': 1} | tojson(indent=2) }}"), "{\n  \"a\": 1\n}");
    }
}

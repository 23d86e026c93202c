//! The columns of each kind of record.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

use super::{EXTRA, MESSAGES};
use crate::files::Kind;

/// A value's type.
pub(super) enum Node {
    Text,
    U32,
    I64,
    F32,
    F64,
    Bool,
    /// A JSON object as text.
    Json,
    List(Box<Node>),
    Struct(Vec<Field>),
}

/// A named value; not required: null where absent.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) node: Node,
}

fn must(name: &'static str, node: Node) -> Field {
    Field { name, required: true, node }
}

fn may(name: &'static str, node: Node) -> Field {
    Field { name, required: false, node }
}

fn list(node: Node) -> Node {
    Node::List(Box::new(node))
}

/// The columns of a kind of record, in the table's order.
pub(super) fn of(kind: Kind) -> Vec<Field> {
    match kind {
        Kind::Prompt => prompts(),
        Kind::Selection => selections(),
        Kind::Preference => preferences(),
        Kind::Ranking => rankings(),
    }
}

/// A text prompt or a list of turns: one of the two columns is null.
fn prompt() -> [Field; 2] {
    let turn = Node::Struct(vec![must("role", Node::Text), must("content", Node::Text)]);
    [may("prompt", Node::Text), may(MESSAGES, list(turn))]
}

fn completions() -> Field {
    let completion = Node::Struct(vec![
        must("text", Node::Text),
        may("token_ids", list(Node::U32)),
        may("logp", Node::F64),
        may("n_tokens", Node::U32),
        may("token_logps", list(Node::F32)),
        may("finish", Node::Text),
        may("reward", Node::F64),
        may("gold", Node::F64),
        may("pacs", Node::F64),
        may("z_reward", Node::F64),
        may("z_logp", Node::F64),
        may(EXTRA, Node::Json),
    ]);
    must("completions", list(completion))
}

fn prompts() -> Vec<Field> {
    let [text, turns] = prompt();
    vec![
        must("id", Node::Text),
        text,
        turns,
        completions(),
        may("kendall_tau_distance", Node::F64),
        may("tau_b", Node::F64),
        may("meta", Node::Json),
        may(EXTRA, Node::Json),
    ]
}

fn selections() -> Vec<Field> {
    let candidate = || {
        Node::Struct(vec![
            must("index", Node::I64),
            must("text", Node::Text),
            may("token_ids", list(Node::U32)),
            may("gold", Node::F64),
        ])
    };
    let why = Node::Struct(vec![may("k", Node::F64), may("pacs_first", Node::F64), may("pacs_second", Node::F64)]);
    let [text, turns] = prompt();
    vec![
        must("id", Node::Text),
        must("prompt_id", Node::Text),
        text,
        turns,
        must("first", candidate()),
        must("second", candidate()),
        must("strategy", Node::Text),
        must("rank", Node::I64),
        must("why", why),
        must("flags", list(Node::Text)),
        may("meta", Node::Json),
        may(EXTRA, Node::Json),
    ]
}

fn preferences() -> Vec<Field> {
    let side =
        || Node::Struct(vec![must("text", Node::Text), may("token_ids", list(Node::U32)), may(EXTRA, Node::Json)]);
    let vote = Node::Struct(vec![
        must("annotator", Node::Text),
        must("answer", Node::Text),
        may("strength", Node::U32),
        may("seconds", Node::F64),
        may(EXTRA, Node::Json),
    ]);
    let [text, turns] = prompt();
    vec![
        must("id", Node::Text),
        text,
        turns,
        must("first", side()),
        must("second", side()),
        may("p_first", Node::F64),
        must("answer", Node::Text),
        may("margin", Node::F64),
        must("votes", list(vote)),
        may("source", Node::Text),
        may("safe_first", Node::Bool),
        may("safe_second", Node::Bool),
        may("meta", Node::Json),
        may(EXTRA, Node::Json),
    ]
}

fn rankings() -> Vec<Field> {
    let [text, turns] = prompt();
    vec![
        must("id", Node::Text),
        text,
        turns,
        completions(),
        must("ranking", list(list(Node::I64))),
        may("source", Node::Text),
        may("meta", Node::Json),
        may(EXTRA, Node::Json),
    ]
}

/// The table's schema as Parquet stores it.
pub(super) fn message(kind: Kind, fields: &[Field]) -> Result<TypePtr, ParquetError> {
    let fields = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder(kind.name()).with_fields(fields).build()?))
}

fn column(field: &Field) -> Result<TypePtr, ParquetError> {
    let repetition = if field.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
    shape(field.name, repetition, &field.node)
}

fn shape(name: &str, repetition: Repetition, node: &Node) -> Result<TypePtr, ParquetError> {
    let unsigned = LogicalType::integer(32, false);
    let (physical, logical) = match node {
        Node::Text | Node::Json => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Node::U32 => (Physical::INT32, Some(unsigned)),
        Node::I64 => (Physical::INT64, None),
        Node::F32 => (Physical::FLOAT, None),
        Node::F64 => (Physical::DOUBLE, None),
        Node::Bool => (Physical::BOOLEAN, None),
        Node::List(item) => return list_shape(name, repetition, item),
        Node::Struct(fields) => {
            let fields = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
            let group = Type::group_type_builder(name).with_repetition(repetition);
            return Ok(Arc::new(group.with_fields(fields).build()?));
        }
    };
    let leaf = Type::primitive_type_builder(name, physical).with_repetition(repetition);
    Ok(Arc::new(leaf.with_logical_type(logical).build()?))
}

/// The three levels that the format's specification asks of a list: list, `list`, `element`.
fn list_shape(name: &str, repetition: Repetition, item: &Node) -> Result<TypePtr, ParquetError> {
    let element = shape("element", Repetition::REQUIRED, item)?;
    let repeated =
        Type::group_type_builder("list").with_repetition(Repetition::REPEATED).with_fields(vec![element]).build()?;
    let list = Type::group_type_builder(name)
        .with_repetition(repetition)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(repeated)])
        .build()?;
    Ok(Arc::new(list))
}

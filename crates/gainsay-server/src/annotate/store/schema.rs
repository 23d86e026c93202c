//! The tables, the same on SQLite and PostgreSQL: whole numbers are BIGINT, yes and no are 0 and
//! 1, times are milliseconds since 1970, documents are JSON text.

/// Version of the tables.
pub(super) const VERSION: &str = "1";

/// Statements that make the tables where they are missing.
///
/// `items.taken` counts the rows of `work` that hold one of the item's places: leased or answered.
/// It changes only in transactions that hold the item's row.
pub(super) const TABLES: [&str; 11] = [
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS items (
        id BIGINT PRIMARY KEY, ext_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, body TEXT NOT NULL,
        priority DOUBLE PRECISION NOT NULL, overlap BIGINT NOT NULL, taken BIGINT NOT NULL DEFAULT 0,
        expected TEXT)",
    "CREATE INDEX IF NOT EXISTS items_open ON items (priority, id) WHERE taken < overlap AND expected IS NULL",
    "CREATE TABLE IF NOT EXISTS annotators (
        id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created BIGINT NOT NULL, active BIGINT NOT NULL,
        briefed BIGINT NOT NULL DEFAULT 0, answered BIGINT NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS invites (
        hash TEXT PRIMARY KEY, annotator_id BIGINT NOT NULL, expires BIGINT NOT NULL, used BIGINT)",
    "CREATE TABLE IF NOT EXISTS sessions (
        hash TEXT PRIMARY KEY, annotator_id BIGINT, csrf TEXT NOT NULL, expires BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS work (
        item_id BIGINT NOT NULL, annotator_id BIGINT NOT NULL, state TEXT NOT NULL, ticket TEXT NOT NULL,
        swapped BIGINT NOT NULL, opened BIGINT NOT NULL, lease_until BIGINT NOT NULL,
        body TEXT, draft TEXT, seconds DOUBLE PRECISION, answered BIGINT,
        PRIMARY KEY (item_id, annotator_id))",
    "CREATE INDEX IF NOT EXISTS work_of ON work (annotator_id, state, answered)",
    "CREATE INDEX IF NOT EXISTS work_leases ON work (lease_until) WHERE state = 'leased'",
    "CREATE TABLE IF NOT EXISTS resolutions (
        item_id BIGINT PRIMARY KEY, body TEXT NOT NULL, reason TEXT NOT NULL, at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS events (
        id TEXT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        item TEXT, detail TEXT NOT NULL)",
];

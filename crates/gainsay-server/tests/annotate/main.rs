//! The annotation app: store and pages, on SQLite, and on PostgreSQL where
//! `GAINSAY_TEST_POSTGRES` names a server (`scripts/with-postgres` starts one).

mod attacks;
mod contrast;
mod crowd;
mod live;
mod pages;
mod queue;
mod support;
mod support_web;

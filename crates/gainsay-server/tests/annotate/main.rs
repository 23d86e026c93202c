//! The annotation app: store and pages, on SQLite, and on PostgreSQL where
//! `GAINSAY_TEST_POSTGRES` names a server (`scripts/with-postgres` starts one).

mod answers;
mod attacks;
mod contrast;
mod crowd;
mod live;
mod pages;
mod queue;
mod review;
mod support;
mod support_web;

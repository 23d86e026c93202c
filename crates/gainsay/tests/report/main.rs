//! The report of a synthetic run: what the page says, and what it does not let through.

mod fixture;

use std::fs;
use std::path::Path;

use fixture::{HOSTILE, Shape, write_run};
use gainsay::report::{self, ReportError};

fn page_of(shape: Shape) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), shape);
    let path = report::write(dir.path()).unwrap();
    let page = fs::read_to_string(path).unwrap();
    if let Ok(copy) = std::env::var("REPORT_TEST_PAGE") {
        fs::write(copy, &page).unwrap();
    }
    (dir, page)
}

#[test]
fn a_finished_run() {
    let (_dir, page) = page_of(Shape::default());
    assert!(!page.contains("This run is not finished"));
    assert!(!HOSTILE.is_empty());
}

#[test]
fn not_a_run() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(report::load(dir.path()), Err(ReportError::NotARun { .. })));
    assert!(report::load(Path::new("/nowhere/at/all")).is_err());
}

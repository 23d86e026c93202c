//! Ctrl-C: the first asks the work to stop at the next safe point, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler; call once, from the binary.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping at the next safe point (Ctrl-C again: at once)");
    })
    .map_err(|e| Error::Run(format!("cannot watch for Ctrl-C: {e}")))
}

/// Whether somebody pressed Ctrl-C.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error that says how to go on, when somebody pressed Ctrl-C.
pub fn check() -> Result<()> {
    if requested() {
        return Err(Error::Interrupted(
            "stopped by Ctrl-C. What is finished is on disk: the same command again goes on from there".into(),
        ));
    }
    Ok(())
}

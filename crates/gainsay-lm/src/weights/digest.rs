//! SHA-256 of what a model was loaded from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::LmError;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file's bytes, in lower-case hexadecimal.
pub fn file(path: &Path) -> Result<String, LmError> {
    let mut reader = File::open(path).map_err(LmError::read(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).map_err(LmError::read(path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// SHA-256 over several digests, in the order given: the digest of a model in several files.
pub fn combine<'a>(digests: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for digest in digests {
        hasher.update(digest.as_bytes());
        hasher.update(b"\n");
    }
    hex(&hasher.finalize())
}

/// The first 12 hexadecimal digits: how a digest is shown.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

//! The run directory: which stages are done, what they read, how long they took.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gainsay_core::files;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cli::Device;
use crate::error::{Error, Result};
use crate::progress::Figures;
use crate::run::recipe::Recipe;

/// A run directory that this process works in.
pub struct RunDirectory {
    root: PathBuf,
}

/// Versions, seeds and digests: what a run can be repeated from.
#[derive(Serialize)]
struct Manifest<'a> {
    schema: u32,
    gainsay: Version<'a>,
    seed: u64,
    threads: usize,
    dtype: &'a str,
    device: &'a str,
    models: BTreeMap<&'a str, &'a str>,
    inputs: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
    git: &'a str,
}

impl RunDirectory {
    /// Opens or makes a run directory for a recipe. An existing one must hold the same recipe.
    ///
    /// # Errors
    /// The directory cannot be made, holds other files, or another recipe's run.
    pub fn open(root: &Path, recipe: &Recipe) -> Result<Self> {
        let resolved = recipe.to_toml()?;
        let recipe_path = root.join("recipe.toml");
        match fs::read_to_string(&recipe_path) {
            // Not by its text: a build that knows more keys writes more of them.
            Ok(found) if toml::from_str::<Recipe>(&found).is_ok_and(|found| found == *recipe) => {}
            Ok(_) => {
                return Err(Error::Input(format!(
                    "{}: holds the run of another recipe (see its recipe.toml); \
                     name another directory with --out, or remove this one",
                    root.display()
                )));
            }
            Err(_) => {
                let occupied = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
                if occupied {
                    return Err(Error::Input(format!(
                        "{}: is not empty and holds no run; name another directory with --out",
                        root.display()
                    )));
                }
                files::write_atomic(&recipe_path, resolved.as_bytes())?;
            }
        }
        sweep(root)?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Runs a stage unless its last file is there, and notes how long it took. Ctrl-C is heeded
    /// before it.
    pub fn stage(&self, name: &str, last_file: &Path, work: impl FnOnce() -> Result<Figures>) -> Result<()> {
        crate::interrupt::check()?;
        if last_file.exists() {
            return Ok(());
        }
        let mut figures = work()?;
        figures.stage = name.to_string();
        self.note_time(&figures)
    }

    /// Appends a line to `timings.jsonl`: the only file besides the report with wall-clock values.
    fn note_time(&self, figures: &Figures) -> Result<()> {
        let path = self.path("timings.jsonl");
        let line = serde_json::to_string(figures).map_err(|e| Error::Run(e.to_string()))?;
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|e| Error::Input(format!("{}: cannot be written: {e}", path.display())))
    }

    /// Writes `manifest.json`; `threads` and `device` are what the run began with.
    pub fn write_manifest(
        &self,
        recipe: &Recipe,
        (threads, device): (usize, Device),
        models: &[(String, String)],
        inputs: &[(String, String)],
    ) -> Result<()> {
        let manifest = Manifest {
            schema: 1,
            gainsay: Version {
                version: env!("CARGO_PKG_VERSION"),
                git: option_env!("GAINSAY_GIT").unwrap_or("unknown"),
            },
            seed: recipe.seed,
            threads,
            dtype: &recipe.dtype.to_string(),
            device: &device.to_string(),
            models: by_name(models),
            inputs: by_name(inputs),
        };
        write_json(&self.path("manifest.json"), &manifest)
    }
}

fn by_name(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Removes what a kill left between two steps: journals whose output is there, and partial files.
fn sweep(folder: &Path) -> Result<()> {
    let fault = |e: std::io::Error| Error::Input(format!("{}: cannot be tidied: {e}", folder.display()));
    for entry in fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let kept = path.extension().is_some_and(|e| e == "journal" || e == "answers");
        let published = kept && path.with_extension("").exists();
        if path.is_dir() {
            sweep(&path)?;
        } else if published || path.extension().is_some_and(|e| e == "partial") {
            fs::remove_file(&path).map_err(fault)?;
        }
    }
    Ok(())
}

/// Removes a folder with all that is in it; one that is not there is no error.
///
/// # Errors
/// What the system refuses to remove.
pub fn remove_folder(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Run(format!("{}: cannot be removed: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// [`write_json`] of an object that does not say its schema itself.
pub fn write_report<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_json(path, &Report { schema: 1, value })
}

#[derive(Serialize)]
struct Report<'a, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Writes a value as pretty JSON, whole or not at all.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::Run(format!("{}: cannot be put into JSON: {e}", path.display())))?;
    bytes.push(b'\n');
    files::write_atomic(path, &bytes)?;
    Ok(())
}

/// SHA-256 of a file, in hex.
pub fn file_digest(path: &Path) -> Result<String> {
    let mut file =
        fs::File::open(path).map_err(|e| Error::Input(format!("{}: cannot be read: {e}", path.display())))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)
        .map_err(|e| Error::Input(format!("{}: cannot be read: {e}", path.display())))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

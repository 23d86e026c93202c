//! What two runs of an experiment have in common is made once: the files of stages that depend on
//! nothing in which their recipes differ are copied.

use std::fs;
use std::path::{Path, PathBuf};

use gainsay_core::files;

use crate::error::{Error, Result};
use crate::run::directory::RunDirectory;
use crate::run::recipe::Recipe;

/// How much of a finished run another recipe's run would make again, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Common {
    /// Nothing.
    Nothing,
    /// The first pool, the proxy and the base policy's figures.
    Pool,
    /// Also the arms' labels and reward models of the first round: only `tune` differs.
    Rewards,
}

fn common(a: &Recipe, b: &Recipe) -> Common {
    let pool = |r: &Recipe| Recipe {
        rounds: 1,
        select: Default::default(),
        feedback: Default::default(),
        tune: Default::default(),
        ..r.clone()
    };
    // Strategies that read features want them in the pool.
    if pool(a) != pool(b) || a.reads_features() != b.reads_features() {
        return Common::Nothing;
    }
    if a.select == b.select && a.feedback == b.feedback { Common::Rewards } else { Common::Pool }
}

/// Begins the run of `recipe` in `root`, which is empty or not there, with what it has in common
/// with a finished one: of `done`, (recipe, directory), the one that gives most.
///
/// # Errors
/// Files that cannot be read or written.
pub fn begin(recipe: &Recipe, root: &Path, done: &[(Recipe, PathBuf)]) -> Result<()> {
    let best = done.iter().map(|(other, dir)| (common(recipe, other), dir)).max_by_key(|(common, _)| *common);
    let Some((common, from)) = best.filter(|(common, _)| *common > Common::Nothing) else { return Ok(()) };
    RunDirectory::open(root, recipe)?;
    // A stage is done when its last file is there: that one comes last.
    let mut all: Vec<PathBuf> = ["prompts.jsonl", "heldout.jsonl"].map(PathBuf::from).into();
    all.extend(below(from, "gold")?);
    all.push("manifest.json".into());
    all.extend(["rollouts.jsonl"].map(|name| Path::new("round-1/pool").join(name)));
    all.extend(below(from, "proxy/preferences.jsonl")?);
    all.extend(below(from, "proxy/model")?);
    all.extend(below(from, "proxy/train.json")?);
    let pool = ["scored.jsonl", "conflicts.jsonl", "conflicts.json", "validate.json"];
    all.extend(pool.map(|name| Path::new("round-1/pool").join(name)));
    let base = below(from, "base")?;
    let last = |path: &PathBuf| path.ends_with("evaluation.json");
    all.extend(base.iter().filter(|path| !last(path)).cloned());
    all.extend(base.into_iter().filter(last));
    if common == Common::Rewards {
        for arm in &recipe.select.strategies {
            for name in ["selection.jsonl", "preferences.jsonl", "reward", "reward-train.json"] {
                all.extend(below(from, &format!("round-1/{arm}/{name}"))?);
            }
        }
    }
    for path in all {
        let source = from.join(&path);
        let bytes = fs::read(&source).map_err(|e| Error::Run(format!("{}: cannot be read: {e}", source.display())))?;
        files::write_atomic(root.join(&path), &bytes)?;
    }
    Ok(())
}

/// The files at or below a place in a run directory, sorted; none where nothing is there.
fn below(root: &Path, place: &str) -> Result<Vec<PathBuf>> {
    let path = root.join(place);
    if path.is_file() {
        return Ok(vec![place.into()]);
    }
    let Ok(entries) = fs::read_dir(&path) else { return Ok(vec![]) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::Run(format!("{}: cannot be read: {e}", path.display())))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    let inner: Vec<Vec<PathBuf>> =
        names.iter().map(|name| below(root, &format!("{place}/{name}"))).collect::<Result<_>>()?;
    Ok(inner.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_common_follows_from_where_recipes_differ() {
        let a = Recipe::default();
        let with = |change: fn(&mut Recipe)| {
            let mut b = a.clone();
            change(&mut b);
            common(&a, &b)
        };
        assert_eq!(with(|_| ()), Common::Rewards);
        assert_eq!(with(|r| r.tune.method = "dpo".into()), Common::Rewards);
        assert_eq!(with(|r| r.rounds = 2), Common::Rewards);
        assert_eq!(with(|r| r.select.budget = 7), Common::Pool);
        assert_eq!(with(|r| r.feedback.noise = Some("bt".into())), Common::Pool);
        for change in [
            |r: &mut Recipe| r.seed = 1,
            |r: &mut Recipe| r.select.strategies = vec!["k-center".into()],
            |r: &mut Recipe| r.sample.n = 4,
            |r: &mut Recipe| r.reward.lr = 1.0,
            |r: &mut Recipe| r.evaluate.n = 3,
            |r: &mut Recipe| r.proxy.flip = 0.4,
        ] {
            assert_eq!(with(change), Common::Nothing);
        }
    }
}

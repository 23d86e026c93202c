//! What `experiment.toml` may say: one recipe, variants of it, seeds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::run::recipe::Recipe;

/// The variant of a plan that names none.
pub const ONLY: &str = "recipe";

/// Runs to make: every variant with every seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Seeds, each once.
    pub seeds: Vec<u64>,
    /// Variants by name, in the order of their names; their seed is the first one.
    pub variants: BTreeMap<String, Recipe>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "one")]
    schema: u32,
    seeds: Vec<u64>,
    #[serde(default)]
    recipe: Given,
    #[serde(default)]
    variants: BTreeMap<String, Table>,
}

fn one() -> u32 {
    1
}

/// A recipe in the file, or the path of one beside it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Path(String),
    Table(Table),
}

impl Default for Given {
    fn default() -> Self {
        Self::Table(Table::new())
    }
}

impl Plan {
    /// Reads and checks a plan; the recipe's path counts from the plan's folder.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, has unknown keys or values out of range.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, "experiment")?;
        let wrong = |what: String| Error::Input(format!("{}: {what}", path.display()));
        let written: Written =
            toml::from_str(&text).map_err(|e| wrong(format!("not an experiment: {}", e.to_string().trim_end())))?;
        let base = match &written.recipe {
            Given::Table(table) => table.clone(),
            Given::Path(file) => {
                let file = path.parent().unwrap_or(Path::new(".")).join(file);
                let text = read_text(&file, "recipe")?;
                text.parse().map_err(|e| Error::Input(format!("{}: not a recipe: {e}", file.display())))?
            }
        };
        Self::new(&written, &base).map_err(wrong)
    }

    fn new(written: &Written, base: &Table) -> std::result::Result<Self, String> {
        if written.schema != 1 {
            return Err(format!("schema is {}; this build reads 1", written.schema));
        }
        let seeds = &written.seeds;
        let Some(first) = seeds.first() else { return Err("seeds is empty; name at least one".into()) };
        if let Some(twice) = seeds.iter().enumerate().find(|(i, s)| seeds[..*i].contains(s)) {
            return Err(format!("seeds names {} twice", twice.1));
        }
        let mut given = written.variants.clone();
        if given.is_empty() {
            given.insert(ONLY.into(), Table::new());
        }
        let mut variants = BTreeMap::new();
        for (name, changes) in given {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                return Err(format!("variants.{name}: a variant's name is a folder's: letters, digits, - and _"));
            }
            if base.contains_key("seed") || changes.contains_key("seed") {
                return Err(format!("variants.{name}: the recipe has a seed; leave it to `seeds`"));
            }
            let recipe = Recipe::of_table(merged(base, &changes)).map_err(|e| format!("variants.{name}: {e}"))?;
            if recipe.feedback.oracle == "web" {
                return Err(format!("variants.{name}: feedback is web; an experiment asks nobody"));
            }
            variants.insert(name, Recipe { seed: *first, ..recipe });
        }
        Ok(Self { seeds: seeds.clone(), variants })
    }

    /// Each variant's recipe with each seed, seed by seed: (variant, recipe).
    pub fn runs(&self) -> impl Iterator<Item = (&str, Recipe)> {
        self.seeds.iter().flat_map(|seed| {
            self.variants.iter().map(|(name, recipe)| (name.as_str(), Recipe { seed: *seed, ..recipe.clone() }))
        })
    }
}

fn read_text(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| Error::Input(format!("{}: the {what} cannot be read: {e}", path.display())))
}

/// `base` with the values of `changes` in their place, table by table.
fn merged(base: &Table, changes: &Table) -> Table {
    let mut out = base.clone();
    for (key, value) in changes {
        let value = match (out.get(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => Value::Table(merged(old, new)),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> std::result::Result<Plan, String> {
        let written: Written = toml::from_str(text).map_err(|e| e.to_string())?;
        let Given::Table(base) = &written.recipe else { panic!("a table") };
        Plan::new(&written, &base.clone())
    }

    #[test]
    fn variants_change_what_they_name_and_leave_the_rest() {
        let plan = plan(
            "seeds = [3, 4]\n[recipe.tune]\nsteps = 5\nk = 3\n[variants.ppo.tune]\nmethod = \"ppo\"\n[variants.long.tune]\nsteps = 9",
        )
        .unwrap();
        let tune = |name: &str| plan.variants[name].tune.clone();
        assert_eq!((tune("ppo").method.as_str(), tune("ppo").steps, tune("ppo").k), ("ppo", 5, 3));
        assert_eq!((tune("long").method.as_str(), tune("long").steps, tune("long").k), ("rloo", 9, 3));
        let runs: Vec<(String, u64)> = plan.runs().map(|(name, recipe)| (name.into(), recipe.seed)).collect();
        let wanted = [("long", 3), ("ppo", 3), ("long", 4), ("ppo", 4)].map(|(n, s)| (n.to_string(), s));
        assert_eq!(runs, wanted);
    }

    #[test]
    fn a_plan_without_variants_has_one() {
        assert_eq!(plan("seeds = [0]").unwrap().variants.keys().collect::<Vec<_>>(), [ONLY]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("", "missing field `seeds`"),
            ("seeds = []", "seeds is empty"),
            ("seeds = [1, 2, 1]", "seeds names 1 twice"),
            ("seeds = [-1]", "invalid"),
            ("seeds = [0]\nother = 1", "unknown field `other`"),
            ("schema = 2\nseeds = [0]", "this build reads 1"),
            ("seeds = [0]\n[recipe]\nseed = 4", "leave it to `seeds`"),
            ("seeds = [0]\n[variants.a.tune]\nmethod = \"magic\"", "variants.a: tune.method is `magic`"),
            ("seeds = [0]\n[variants.a]\ntypo = 1", "unknown field `typo`"),
            ("seeds = [0]\n[variants.\"a/b\"]", "variants.a/b: a variant's name"),
            ("seeds = [0]\n[recipe]\nfeedback = \"web\"", "an experiment asks nobody"),
        ] {
            let said = plan(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}

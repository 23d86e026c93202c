//! conflicts -> selection: the comparisons that are worth asking.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_core::select::{self, SelectOptions, SelectionStats};

use crate::cli::{CompatArg, SelectArgs};
use crate::error::{Error, Result};
use crate::progress::Figures;

/// The options of a command line.
///
/// # Errors
/// A strategy or rule that is not known.
pub fn options(args: &SelectArgs) -> Result<SelectOptions> {
    let strategy = args.strategy.parse().map_err(Error::Input)?;
    Ok(SelectOptions {
        tau_k: args.tau_k,
        delta: args.delta,
        pairs: args.pairs.parse().map_err(Error::Input)?,
        compat: CompatArg::or_standard(args.compat),
        seed: args.seed,
        rso_beta: args.beta,
        ..SelectOptions::new(strategy, args.budget)
    })
}

/// Selects comparisons from a file; pairs that the `answered` preference files hold already are
/// not asked again.
///
/// # Errors
/// Bad records, options out of range, a file without what the strategy needs.
pub fn select(
    input: &Path,
    out: &Path,
    options: &SelectOptions,
    answered: &[PathBuf],
) -> Result<(SelectionStats, Figures)> {
    let started = Instant::now();
    let records: Vec<PromptRecord> = files::read_all(input)?;
    let mut asked = HashSet::new();
    for path in answered {
        asked.extend(files::read_preferences(path)?.into_iter().map(|preference| preference.id));
    }
    let selection = select::select_unasked(&records, options, &asked)
        .map_err(|e| Error::Input(format!("{}: {e}", input.display())))?;
    files::write_all(out, &selection.records)?;
    Ok((selection.stats, Figures::of("select", 0, started.elapsed().as_secs_f64())))
}

/// The figures as lines of text for people.
pub fn render(stats: &SelectionStats) -> String {
    let mut out = format!(
        "strategy             {}\nselected             {} of a budget of {}\nprompts              {} of {} ({} cannot be used)\n",
        stats.strategy, stats.selected, stats.budget, stats.selected_prompts, stats.prompts, stats.unusable_prompts
    );
    if stats.below_threshold > 0 {
        out.push_str(&format!("below threshold      {} (flagged)\n", stats.below_threshold));
    }
    if stats.identical_pairs + stats.repeated_pairs + stats.asked_before > 0 {
        out.push_str(&format!(
            "left out             {} pairs of equal texts, {} repeated, {} asked before\n",
            stats.identical_pairs, stats.repeated_pairs, stats.asked_before
        ));
    }
    if stats.thinned > 0 {
        out.push_str(&format!("thinned              {} pairs, to compare the rest with each other\n", stats.thinned));
    }
    if let Some(rso) = &stats.rso {
        out.push_str(&format!(
            "accepted             {} of {} completions at beta {}\n",
            rso.accepted, rso.candidates, rso.beta
        ));
    }
    if stats.selected < stats.budget {
        out.push_str(&format!(
            "note                 the pool holds no more than {} pairs for this strategy\n",
            stats.selected
        ));
    }
    out
}

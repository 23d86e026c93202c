//! Data of other projects, hand-over to their trainers, benchmarks, and what packages need.

use std::path::Path;

use clap::CommandFactory;
use gainsay_core::files::{self, Kind};
use gainsay_core::import::DataFormat;
use gainsay_core::known::KnownReward;
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{PreferenceRecord, PromptRecord};

use super::{print, print_json, to_json};
use crate::cli::{self, Cli, ConvertTo, DataCommand};
use crate::error::{Error, Result};
use crate::inputs;
use crate::models::{self, ModelOptions};
use crate::recipes::{data_inspect, export as hand_over, rewardbench};

/// `gainsay data …`.
pub fn data(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::Inspect(args) => {
            let found = data_inspect::inspect(&inputs::local(&args.file)?, args.map.as_ref())?;
            if args.json { print_json(&to_json(&found)?) } else { print(&found.render()) }
        }
        DataCommand::Convert(args) => convert(args),
    }
}

fn convert(args: &cli::ConvertArgs) -> Result<()> {
    let (file, map) = (inputs::local(&args.file)?, args.map.as_ref());
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if same(&file, &args.out) {
        return Err(Error::Input(format!("{}: is the file that is read; name another with --out", args.out.display())));
    }
    let natural = || -> Result<ConvertTo> {
        let row = if map.is_some() { None } else { files::first_row(&file)? };
        let kind = row.and_then(|row| DataFormat::of(&row)).map(|(format, _)| format.kind());
        Ok(match kind {
            Some(Kind::Preference) => ConvertTo::Preferences,
            Some(Kind::Ranking) => ConvertTo::Rankings,
            _ => ConvertTo::Prompts,
        })
    };
    let (count, what) = match args.to.map_or_else(natural, Ok)? {
        ConvertTo::Prompts => (data_inspect::convert::<PromptRecord>(&file, map, &args.out)?, "prompts"),
        ConvertTo::Preferences => (data_inspect::convert::<PreferenceRecord>(&file, map, &args.out)?, "preferences"),
        ConvertTo::Rankings => (data_inspect::convert::<RankingRecord>(&file, map, &args.out)?, "rankings"),
    };
    eprintln!("{count} {what} in {}", args.out.display());
    Ok(())
}

/// `gainsay export`.
pub fn export(args: &cli::ExportArgs) -> Result<()> {
    let done = hand_over::export(args)?;
    eprint!("{}", done.render());
    print(&format!("{}\n", args.out.display()))
}

/// `gainsay evaluate --rewardbench`.
pub fn rewardbench(args: &cli::EvaluateArgs, file: &Path) -> Result<()> {
    let spec = args.reward.as_deref().unwrap_or_default();
    let file = inputs::local(file)?;
    let is_server = gainsay_remote::is_address(spec);
    let is_local = KnownReward::parse(spec).is_none() && !is_server;
    // Benchmarks hold long prompts: what does not fit is cut from the left, and counted. A server has its own limit.
    let options = ModelOptions { truncate: !is_server, dtype: args.model.dtype, ..ModelOptions::default() };
    let score = if is_local {
        let model = models::reward(spec, &options)?;
        let score = rewardbench::rewardbench(&file, &model)?;
        match model.counters().truncated() {
            0 => {}
            n => eprintln!("{n} sequences were cut from the prompt's left"),
        }
        score
    } else {
        rewardbench::rewardbench(&file, models::reward_fn(spec, &options)?.as_ref())?
    };
    let value = to_json(&score)?;
    if let Some(out) = &args.out {
        crate::run::directory::write_json(out, &value)?;
    }
    if args.json { print_json(&value) } else { print(&score.render()) }
}

/// `gainsay completions`.
pub fn completions(args: &cli::CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gainsay", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// `gainsay man`: the first page, or all of them as files.
pub fn man(args: &cli::ManArgs) -> Result<()> {
    let Some(out) = &args.out else { return print(&page(Cli::command())?) };
    let mut pages = Vec::new();
    gather(Cli::command(), "gainsay", &mut pages);
    for (name, command) in pages {
        files::write_atomic(out.join(format!("{name}.1")), page(command)?.as_bytes())?;
    }
    print(&format!("{}\n", out.display()))
}

/// A command and those below it, each under its full name: `gainsay-train-reward`.
fn gather(command: clap::Command, name: &str, pages: &mut Vec<(String, clap::Command)>) {
    for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
        gather(below.clone(), &format!("{name}-{}", below.get_name()), pages);
    }
    pages.push((name.to_owned(), command.name(name.to_owned()).display_name(name.to_owned())));
}

fn page(command: clap::Command) -> Result<String> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut bytes)
        .map_err(|e| Error::Run(format!("the manual page cannot be made: {e}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

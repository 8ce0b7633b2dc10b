//! Changes inputs and runs targets on all of them: `cargo run --release -p fuzz -- all --inputs 100000000`.

mod run;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use fuzz::files::{self, Folder};
use fuzz::targets::{self, ALL, Target};
use fuzz::{guard, seeds};

/// In-process mutation fuzzing of everything that reads bytes of the network.
#[derive(Debug, Parser)]
struct Arguments {
    /// A target, or `all`: packets, connect, websocket, telemetry, event, telemetry_json, event_json,
    /// statistics, statistics_json, profile_json, profile_toml, topics.
    #[arg(default_value = "all")]
    target: String,
    /// Inputs over all targets.
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// The same seed and jobs give the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Resident memory, in MiB, beyond which the run ends with a finding.
    #[arg(long, default_value_t = 1_024)]
    memory_mib: u64,
    /// Run one file instead, without catching its panic.
    #[arg(long)]
    file: Option<std::path::PathBuf>,
    /// Write the seed corpus instead.
    #[arg(long)]
    write_corpus: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.write_corpus {
        write_corpus()?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&'static Target> = match arguments.target.as_str() {
        "all" => ALL.iter().collect(),
        name => vec![targets::by_name(name).with_context(|| format!("there is no target {name}"))?],
    };
    if let Some(path) = &arguments.file {
        let input = std::fs::read(path).with_context(|| path.display().to_string())?;
        for target in chosen {
            (target.run)(&input);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let plan = run::Plan {
        inputs: arguments.inputs,
        seed: arguments.seed,
        jobs: arguments.jobs.max(1),
        memory_bytes_max: arguments.memory_mib << 20,
    };
    let weights: u64 = chosen.iter().map(|target| target.weight).sum();
    let mut reports = Vec::new();
    for target in chosen {
        let share = u64::try_from(u128::from(plan.inputs) * u128::from(target.weight) / u128::from(weights))?;
        let report = run::target(target, share, &plan)?;
        let over = report.stuck;
        reports.push(report);
        if over {
            break;
        }
    }
    println!("{:<16} {:>14} {:>9} {:>12} {:>9}", "target", "inputs", "seconds", "inputs/s", "findings");
    for report in &reports {
        let seconds = report.took.as_secs_f64();
        let per_s = report.inputs as f64 / seconds.max(1e-9);
        let name = report.target.name;
        println!(
            "{name:<16} {:>14} {seconds:>9.1} {per_s:>12.0} {:>9}",
            report.inputs,
            report.findings.len()
        );
    }
    println!(
        "{} inputs, seed {}, {} jobs",
        reports.iter().map(|r| r.inputs).sum::<u64>(),
        plan.seed,
        plan.jobs
    );
    let found = reports.iter().any(|report| !report.findings.is_empty());
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_corpus() -> anyhow::Result<()> {
    for target in &ALL {
        let folder = files::folder(Folder::Corpus, target);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
    }
    let seeds = seeds::all();
    for seed in &seeds {
        let target = targets::by_name(seed.target).with_context(|| seed.target.to_owned())?;
        files::write(Folder::Corpus, target, &seed.name, &seed.bytes)?;
    }
    println!("{} files", seeds.len());
    Ok(())
}

/// Saves a broken promise as a regression and shows it.
fn report(target: &Target, broken: &guard::Broken, input: &[u8]) -> anyhow::Result<()> {
    let small = guard::shrink(target, input, broken);
    let place: String =
        broken.place.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let place = place.trim_matches('_').rsplit("_src_").next().unwrap_or_default();
    let path = files::write(Folder::Regressions, target, &format!("{place}_{}", small.len()), &small)?;
    eprintln!("\n{}: {} at {}", target.name, broken.message, broken.place);
    eprintln!("  {}\n  {}", files::hex(&small), path.display());
    Ok(())
}

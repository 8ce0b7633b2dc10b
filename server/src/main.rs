//! `liftwatch`: the one binary. Reads the command line, runs the command, says what went wrong.

mod account;
mod app;
mod audit;
mod auth;
mod cli;
mod commands;
mod config;
mod database;
mod db_status;
mod demo;
mod dispatch;
mod downlink;
mod logging;
mod pki;
mod profile;
mod quarantine;
mod schema;
mod terminal;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

/// A message is allocated by the task that reads it and freed by the one that writes its row: glibc's allocator
/// spends a sixth of all CPU on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::run(cli::Cli::parse())
}

//! placeholder
use std::process::ExitCode;
use dispatch::Registry;
#[derive(Debug, clap::Args)]
pub(crate) struct Args { /// x
 #[arg(long)] once: bool }
pub(crate) fn run(_a: Args, _r: &Registry) -> ExitCode { ExitCode::SUCCESS }

//! The command `verify`: the key that signed a webhook, or the reason why none did.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use event_model::{Clock, Headers, Inbound, SystemClock};
use operator::diagnose_webhook;

use crate::cli::CommonArgs;
use crate::json::VerifiedWebhook;
use crate::{open, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The webhook's body, byte for byte; `-` for standard input
    #[arg(long)]
    body: PathBuf,
    /// Its signature header, as `fluent-signature: ...`; may be given more than once
    #[arg(long = "header", required = true)]
    headers: Vec<String>,
}

pub(crate) fn run(common: &CommonArgs, args: &Args) -> ExitCode {
    match verify(common, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(process::FAILED),
        Err(error) => process::code(Err(error)),
    }
}

fn verify(common: &CommonArgs, args: &Args) -> anyhow::Result<bool> {
    let gateway = open::tree(&common.config)?.gateway()?;
    let headers: Headers = args
        .headers
        .iter()
        .map(|line| header(line))
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter()
        .collect();
    let inbound = Inbound {
        body: open::body(&args.body)?.into(),
        headers,
        received_at: SystemClock.now(),
    };
    let diagnosis = diagnose_webhook(&gateway, inbound);
    if common.json {
        output::json(&VerifiedWebhook::from(&diagnosis))?;
    } else {
        let verdict = match (diagnosis.genuine, diagnosis.admitted) {
            (true, true) => "genuine",
            (true, false) => "genuine, but it would be refused",
            (false, _) => "NOT genuine",
        };
        output::line(format!("{verdict}: {}", diagnosis.says));
        if let Some(advice) = diagnosis.advice {
            output::line(format!("  {advice}"));
        }
    }
    Ok(diagnosis.admitted)
}

fn header(line: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .context("expected --header 'fluent-signature: <base64>'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

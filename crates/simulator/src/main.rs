//! The simulator's commands.
#![expect(clippy::print_stdout, reason = "a command's output")]

mod serve;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use simulator::{Events, KeyPair, Retry, Schedule, Sender, presign};

/// A Fluent that makes keys, signs and sends.
#[derive(Debug, Parser)]
#[command(name = "fluent-simulator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair: NAME.key and NAME.pub
    Keys {
        /// Where, without extension
        name: PathBuf,
        /// Size of the modulus; Fluent's real keys have 1024
        #[arg(long, default_value_t = 1024)]
        bits: usize,
    },
    /// Sign a body and print the two headers
    Sign {
        /// The private key
        #[arg(long)]
        key: PathBuf,
        /// The body's file, `-` for standard input; signed byte for byte
        body: PathBuf,
    },
    /// Send signed events as Fluent does
    Send {
        #[command(flatten)]
        source: SourceArgs,
        /// The endpoint
        #[arg(long)]
        url: String,
        /// Which failures to follow with another attempt
        #[arg(long, default_value = "connection")]
        retry: RetryArg,
        /// Again as a workflow may opt into: after a minute, an hour and a day
        #[arg(long)]
        workflow: bool,
    },
    /// Answer Fluent's API over a little world of orders; user, password, client and secret are `simulator`
    Serve(serve::Args),
    /// Write signed requests to a file, for load tests
    Presign {
        #[command(flatten)]
        source: SourceArgs,
        /// The requests' host header
        #[arg(long, default_value = "localhost")]
        host: String,
        /// The requests' path
        #[arg(long, default_value = "/api/v1/fluent-connect/webhook")]
        path: String,
        /// The file: requests one after another, each behind its length as 4 bytes, big-endian
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// The private key
    #[arg(long)]
    key: PathBuf,
    /// Fluent's accountId; several take turns
    #[arg(long, default_value = "ACME")]
    account: Vec<String>,
    /// The retailer within the account
    #[arg(long, default_value_t = 34)]
    retailer: u32,
    /// How many events
    #[arg(long, short, default_value_t = 1)]
    count: usize,
    /// The same seed makes the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RetryArg {
    Never,
    Connection,
    Any,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Keys { name, bits } => keys(&name, bits),
        Command::Sign { key, body } => sign(&key, &body),
        Command::Send {
            source,
            url,
            retry,
            workflow,
        } => {
            let schedule = if workflow {
                Schedule::Workflow
            } else {
                Schedule::Usual
            };
            send(&source, &url, retry, schedule)
        }
        Command::Serve(args) => serve::run(&args),
        Command::Presign {
            source,
            host,
            path,
            out,
        } => write_presigned(&source, &host, &path, &out),
    }
}

fn keys(name: &std::path::Path, bits: usize) -> anyhow::Result<()> {
    let pair = KeyPair::generate(bits)?;
    pair.save(name)?;
    println!("private key  {}", name.with_extension("key").display());
    println!("public key   {}", name.with_extension("pub").display());
    Ok(())
}

fn sign(key: &std::path::Path, body: &std::path::Path) -> anyhow::Result<()> {
    let bytes = if body.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes)?;
        bytes
    } else {
        std::fs::read(body).with_context(|| format!("reading body {}", body.display()))?
    };
    let signed = KeyPair::load(key)?.sign(bytes)?;
    println!("fluent-signature: {}", signed.sha512);
    println!("flex.signature: {}", signed.md5);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn send(
    source: &SourceArgs,
    url: &str,
    retry: RetryArg,
    schedule: Schedule,
) -> anyhow::Result<()> {
    let retry = match retry {
        RetryArg::Never => Retry::Never,
        RetryArg::Connection => Retry::Connection,
        RetryArg::Any => Retry::Any,
    };
    let key = KeyPair::load(&source.key)?;
    let sender = Sender::new(url, retry)?.on(schedule);
    let mut events: Vec<Events> = source
        .account
        .iter()
        .map(|account| Events::new(account, source.retailer, source.seed))
        .collect();
    let mut refused = 0;
    for number in 0..source.count {
        let turn = number % events.len();
        let event = events[turn].any();
        let attempted = sender.send(&key.sign(event.body)?).await;
        let status = attempted.answer.as_ref().map_or(0, |answer| answer.status);
        refused += u32::from(!(200..300).contains(&status));
        let answer = attempted.answer.map_or("no answer".to_owned(), |answer| {
            format!("{} {}", answer.status, answer.body)
        });
        println!(
            "{:<40} {:<14} sent {} time(s): {answer}",
            event.name, event.entity_ref, attempted.attempts
        );
    }
    anyhow::ensure!(
        refused == 0,
        "{refused} of {} were not accepted",
        source.count
    );
    Ok(())
}

fn write_presigned(
    source: &SourceArgs,
    host: &str,
    path: &str,
    out: &std::path::Path,
) -> anyhow::Result<()> {
    let requests = presign(
        &KeyPair::load(&source.key)?,
        source.account.first().map_or("ACME", String::as_str),
        host,
        path,
        source.count,
        source.seed,
    )?;
    let file = std::fs::File::create(out).with_context(|| format!("making {}", out.display()))?;
    let mut file = std::io::BufWriter::new(file);
    for request in &requests {
        file.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
        file.write_all(request)?;
    }
    file.flush()?;
    println!("{} requests in {}", requests.len(), out.display());
    Ok(())
}

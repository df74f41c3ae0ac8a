//! The simulator's commands.
#![expect(clippy::print_stdout, reason = "a command's output")]

mod send_command;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use fluent_simulator::{KeyPair, presign};

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
    /// Send signed events as Fluent does, new ones each time
    Send(send_command::Args),
    /// Answer Fluent's API over a little world of orders; user, password, client and secret are `simulator`
    Serve(serve::Args),
    /// Write signed requests to a file, for load tests
    Presign {
        #[command(flatten)]
        source: PresignArgs,
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
struct PresignArgs {
    /// The private key
    #[arg(long)]
    key: PathBuf,
    /// Fluent's accountId
    #[arg(long, default_value = "ACME")]
    account: String,
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

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Keys { name, bits } => keys(&name, bits),
        Command::Sign { key, body } => sign(&key, &body),
        Command::Send(args) => send_command::run(&args),
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
    let bytes = send_command::read(body)?;
    let signed = KeyPair::load(key)?.sign(bytes)?;
    println!("fluent-signature: {}", signed.sha512);
    println!("flex.signature: {}", signed.md5);
    Ok(())
}

fn write_presigned(
    source: &PresignArgs,
    host: &str,
    path: &str,
    out: &std::path::Path,
) -> anyhow::Result<()> {
    let requests = presign(
        &KeyPair::load(&source.key)?,
        &source.account,
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

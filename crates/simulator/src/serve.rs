//! `fluent-simulator serve`: Fluent's API, with orders that are placed from time to time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fluent_simulator::api::{Fluent, LOGIN, Sending, World};
use fluent_simulator::{KeyPair, Retry, Sender};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to answer
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Fluent's accountId
    #[arg(long, default_value = "ACME")]
    account: String,
    /// The retailer within the account
    #[arg(long, default_value_t = 34)]
    retailer: u32,
    /// How long each answer takes, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// At most so many requests a minute; more are told to wait
    #[arg(long)]
    rate_limit: Option<usize>,
    /// How long a token lasts, in seconds
    #[arg(long, default_value_t = 86_400)]
    token_lasts: u64,
    /// Give out tokens that are good for one renewal, as the newer clients of Fluent get
    #[arg(long)]
    refresh: bool,
    /// An order's entity can't be read before so many milliseconds
    #[arg(long, default_value_t = 0)]
    invisible_for: u64,
    /// Place an order so often, in seconds, and send its webhook to --url
    #[arg(long, requires_all = ["url", "key"])]
    order_every: Option<u64>,
    /// Log every so many-th order's webhook as one that could not be sent, and do not send it
    #[arg(long, requires = "order_every", value_parser = clap::value_parser!(u64).range(1..))]
    lose_every: Option<u64>,
    /// Log every so many-th order as one whose rule has no Setting, and send nothing
    #[arg(long, requires = "order_every", value_parser = clap::value_parser!(u64).range(1..))]
    no_setting_every: Option<u64>,
    /// The endpoint of webhooks
    #[arg(long)]
    url: Option<String>,
    /// The private key that signs them
    #[arg(long)]
    key: Option<PathBuf>,
    /// Their name
    #[arg(long, default_value = "OrderAwaitingCollection")]
    event: String,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let world = World::new(&args.account, args.retailer);
    let fluent = Fluent::open(args.listen, world).await;
    let fluent = fluent.with_context(|| format!("listening on {}", args.listen))?;
    fluent.behave(|behaviour| {
        behaviour.latency = Duration::from_millis(args.latency);
        behaviour.rate_limit = args.rate_limit.map(|most| (most, Duration::from_secs(60)));
        behaviour.token_lasts = Duration::from_secs(args.token_lasts);
        behaviour.has_refresh = args.refresh;
        behaviour.invisible_for = Duration::from_millis(args.invisible_for);
    });
    println!(
        "Fluent's API of account {} at {}",
        args.account,
        fluent.url()
    );
    println!("username, password, client-id and client-secret are `{LOGIN}`. Ctrl-C ends it.");
    tokio::select! {
        sent = orders(args, &fluent) => sent,
        ended = tokio::signal::ctrl_c() => ended.context("waiting for Ctrl-C"),
    }
}

async fn orders(args: &Args, fluent: &Fluent) -> anyhow::Result<()> {
    let (Some(every), Some(url), Some(key)) = (args.order_every, &args.url, &args.key) else {
        return std::future::pending().await;
    };
    let key = KeyPair::load(key)?;
    let sender = Sender::new(url, Retry::Connection)?;
    for number in 1_u64.. {
        tokio::time::sleep(Duration::from_secs(every)).await;
        let order = fluent.world().place_order();
        let is_every =
            |so_many: Option<u64>| so_many.is_some_and(|so_many| number.is_multiple_of(so_many));
        let unsent = match () {
            () if is_every(args.lose_every) => Some((Sending::Failed, "lost on the way")),
            () if is_every(args.no_setting_every) => {
                Some((Sending::NoSetting, "no Setting: not sent"))
            }
            () => None,
        };
        if let Some((sending, said)) = unsent {
            fluent
                .world()
                .webhook_of(&args.event, &order, Duration::ZERO, sending);
            println!("{:<24} {:<12} {said}", args.event, order.entity.reference);
            continue;
        }
        let sent = sender
            .send(&key.sign(fluent.world().webhook(&args.event, &order))?)
            .await;
        let answer = match &sent.answer {
            Some(answer) => answer.status.to_string(),
            None => sent.outcome(),
        };
        println!("{:<24} {:<12} {answer}", args.event, order.entity.reference);
    }
    Ok(())
}

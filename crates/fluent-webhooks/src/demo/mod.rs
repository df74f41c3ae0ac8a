//! The whole pipeline at work, on real signed webhooks.
//!
//! The service is a process of its own, so that it can be killed. This process plays Fluent and
//! the endpoints.
//!
//! ```text
//! script ─▶ Sender ─▶ fluent-webhooks serve ─▶ endpoints ─▶ story ─▶ verdict
//! ```
//!
//! Start reading at [`show`].

mod endpoints;
mod integrations;
mod pipeline;
mod script;
mod story;
mod verdict;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use process::Shutdown;
use simulator::api::Fluent;
use simulator::{Retry, Sender};
use tokio::time::{sleep, timeout};

use crate::output::line;
use endpoints::Endpoints;
use pipeline::Pipeline;
use story::Story;
use world::World;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End by itself; exit 0 only if everything came out as it should
    #[arg(long)]
    once: bool,
    /// Where keys, settings and the queue file go
    #[arg(long, default_value = "target/demo")]
    folder: PathBuf,
}

/// Longest time until everything is delivered: the endpoint that is down is back after 16 s.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn run(args: Args) -> ExitCode {
    process::run(|shutdown| show(args, shutdown))
}

async fn show(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let world = World::make(&args.folder)?;
    introduce(&world);
    let story = Story::begin(Instant::now());
    Endpoints::open(&world, story.clone(), &shutdown).await?;
    let api = Fluent::open(world.api, world.orders.clone()).await;
    let _api = api.with_context(|| format!("listening on {} as Fluent's API", world.api))?;
    let mut pipeline = Pipeline::start(&world).await?;
    let play = play(&world, &story, &mut pipeline);
    let sent = tokio::select! {
        sent = play => sent?,
        () = cancelled(&shutdown) => return pipeline.stop().await,
    };
    let settled = timeout(PATIENCE, until_delivered(&world, &story, &sent));
    tokio::select! {
        settled = settled => if settled.is_err() { line("not everything was delivered in time") },
        () = cancelled(&shutdown) => return pipeline.stop().await,
    }
    let verdict = verdict::reach(&world, &story, &sent).await?;
    if !args.once {
        invite(&world, &pipeline)?;
        cancelled(&shutdown).await;
    }
    pipeline.stop().await?;
    verdict.close()
}

async fn cancelled(shutdown: &Shutdown) {
    shutdown.draining().cancelled().await;
}

fn introduce(world: &World) {
    line(format!(
        "Look at it in a browser: http://{}\n",
        world.console
    ));
    line(
        "fluent-webhooks demo: signed webhooks in, deliveries out, and nothing lost on the way.\n",
    );
    line(format!(
        "  keys, settings, queue   {}",
        world.folder.display()
    ));
    line(format!("  webhooks are sent to    {}", world.webhook_url()));
    line(format!("  Fluent's API is at      http://{}", world.api));
    line(format!(
        "  endpoints listen at     http://{}",
        world.endpoints
    ));
    line(format!(
        "  the warehouse at        http://{} is down for the first {} s: longer than Fluent would try",
        world.warehouse,
        world::DOWN.as_secs()
    ));
    line("");
}

/// Sends the script; kills the service in the middle and starts it again.
async fn play(
    world: &World,
    story: &Story,
    pipeline: &mut Pipeline,
) -> anyhow::Result<Vec<script::Sent>> {
    let lost = script::lose(world);
    story.tell(
        "lost",
        &format!("OrderAwaitingCollection  {lost}: Fluent did not get through, and gave up"),
    );
    let scenes = script::write(world)?;
    let sender = Sender::new(world.webhook_url(), Retry::Connection)?;
    let middle = scenes.len() / 2;
    let mut sent = Vec::new();
    for (number, scene) in scenes.into_iter().enumerate() {
        if number == middle {
            story.tell(
                "killed",
                "the service, with kill -9, while events wait in it",
            );
            pipeline.kill().await?;
            pipeline.restart(story);
        }
        let attempted = sender.send_with(&scene.signed.body, &scene.headers()).await;
        story.sent(&scene, &attempted);
        sent.push(script::Sent::new(scene, attempted));
        sleep(Duration::from_millis(60)).await;
    }
    pipeline
        .ready()
        .await
        .context("the service did not come back after it was killed")?;
    Ok(sent)
}

async fn until_delivered(world: &World, story: &Story, sent: &[script::Sent]) {
    let is_told =
        || verdict::posted(world) > verdict::enriched(sent) && !story.recovered().is_empty();
    while !(sent.iter().all(|sent| verdict::is_delivered(story, sent)) && is_told()) {
        sleep(Duration::from_millis(100)).await;
    }
}

fn invite(world: &World, pipeline: &Pipeline) -> anyhow::Result<()> {
    let (body, header) = world.one_more()?;
    line("\nIt stays up. Send one more yourself:\n");
    line(format!(
        "  curl -i -X POST -H 'fluent-signature: {header}' --data-binary @{} {}",
        body.display(),
        world.webhook_url()
    ));
    line("\nand look around in another terminal:\n");
    for command in [
        "events show MORE_1",
        "routes list",
        "dead-letters list",
        "unrouted list",
        "quarantine list",
        "check",
    ] {
        line(format!(
            "  {} {command} --config {}",
            pipeline.program().display(),
            world.config().display()
        ));
    }
    line(format!(
        "\nIts log is {}. Ctrl-C ends the demo.",
        world.log().display()
    ));
    Ok(())
}

//! A power cut: what the disk had at that moment is all there is.
//!
//! The queue file lies on a file system of its own, in a file. kill -9 the
//! service, copy that file without unmounting or syncing, mount the copy, start
//! on it. Needs root and loop devices; without them it says so and passes.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use simulator::{Events, Retry};

use super::disk::make_shim;
use crate::ledger::Load;
use crate::pipeline::{Pipeline, SANDBOX, until};
use crate::sink::Sink;

/// Cuts in a run of the tests; `CUTS` in the environment asks for more.
const CUTS: usize = 4;

/// An empty disk in a file, if the means are here.
pub(crate) fn make_disk(image: &Path) -> Option<()> {
    fs::File::create(image).unwrap().set_len(256 << 20).unwrap();
    succeeds("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]).then_some(())
}

/// A mounted file system, unmounted at the end.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        succeeds(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()],
        )
        .then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        succeeds("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let run = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_200_survives_a_power_cut() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::prepare(&sink.route("all", "match: {}"));
    let image = pipeline.folder.path().join("disk.img");
    let copy = pipeline.folder.path().join("copy.img");
    if make_disk(&image).is_none() {
        return e2e::say_not_run("mkfs.ext4 is not here");
    }
    let Some(disk) = Mounted::mount(&image, &pipeline.data.clone()) else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    pipeline.run();
    let mut accepted = Vec::new();
    let mut events = Events::new("ACME", 34, 77);
    let sender = pipeline.sender(Retry::Never);
    for _ in 0..300 {
        let signed = SANDBOX.sign(events.any().body).unwrap();
        let answer = sender.send(&signed).await.answer.unwrap();
        assert_eq!(answer.status, 200);
        accepted.push((answer.body["eventId"].as_str().unwrap().to_owned(), signed));
    }
    pipeline.kill();
    fs::copy(&image, &copy).unwrap();
    drop(disk);

    let _disk = Mounted::mount(&copy, &pipeline.data.clone()).unwrap();
    pipeline.run();
    until("every accepted one arrived", || {
        accepted
            .iter()
            .all(|(id, _)| sink.counts().contains_key(id))
    })
    .await;
    for (_, signed) in &accepted {
        let answer = sender.send(signed).await.answer.unwrap();
        assert_eq!(
            (answer.status, &answer.body["duplicate"]),
            (200, &true.into()),
            "forgotten by the disk"
        );
    }
    pipeline.kill();
}

/// What became of what was answered 200 under load while power was cut again and again.
struct Cut {
    cuts: usize,
    accepted: HashSet<String>,
    /// Delivered by a route that was paused until the last cut was over: all that it delivers
    /// was in the file at every cut since it was accepted.
    delivered: HashSet<String>,
}

/// `None` where this machine can't.
async fn cut_under_load(cuts: usize, is_lazy: bool) -> Option<Cut> {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::prepare(&sink.route("late", "match: {}"));
    let images = ["one.img", "two.img"].map(|name| pipeline.folder.path().join(name));
    if make_disk(&images[0]).is_none() {
        e2e::say_not_run("mkfs.ext4 is not here");
        return None;
    }
    let Some(disk) = Mounted::mount(&images[0], &pipeline.data.clone()) else {
        e2e::say_not_run("mounting needs root and loop devices");
        return None;
    };
    if is_lazy {
        let folder = pipeline.folder.path().join("shim");
        pipeline.set_environment("LD_PRELOAD", &make_shim(&folder));
        pipeline.set_environment("SHIM", &folder);
        fs::write(folder.join("lazy"), "").unwrap();
    }
    pipeline.run();
    let paused = pipeline.command(&["routes", "pause", "late", "--reason", "power"]);
    assert!(paused.status.success(), "{paused:?}");
    // What the file knows before the first cut is in it for good, also where fsync does nothing.
    drop(Command::new("sync").status());
    let load = Load::paced(&[pipeline.url()], 8, Duration::from_millis(5));
    let mut disk = Some(disk);
    for cut in 0..cuts {
        let before = load.accepted();
        until("many are accepted", || load.accepted() >= before + 100).await;
        // At any moment between two groups, or within one.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
        pipeline.kill();
        let now = &images[cut % 2];
        let next = &images[(cut + 1) % 2];
        fs::copy(now, next).unwrap();
        drop(disk.take());
        disk = Some(Mounted::mount(next, &pipeline.data.clone()).unwrap());
        pipeline.run();
    }
    let (_, accepted) = load.stop().await;
    let resumed = pipeline.command(&["routes", "resume", "late"]);
    assert!(resumed.status.success(), "{resumed:?}");
    let is_over = || {
        let routes = pipeline.json(&["routes", "list"]);
        routes
            .as_array()
            .unwrap()
            .iter()
            .any(|route| route["route"] == "late" && route["behind"] == 0)
    };
    until("all is delivered that is there", is_over).await;
    pipeline.kill();
    let delivered = sink.counts().into_keys().collect();
    Some(Cut {
        cuts,
        accepted,
        delivered,
    })
}

#[expect(clippy::disallowed_methods, reason = "no setting of the product")]
fn cuts() -> usize {
    std::env::var("CUTS").map_or(CUTS, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_under_load_lose_nothing_that_was_answered() {
    let cuts = cuts();
    let Some(Cut {
        cuts,
        accepted,
        delivered,
    }) = cut_under_load(cuts, false).await
    else {
        return;
    };
    let lost = accepted.difference(&delivered).count();
    println!(
        "{cuts} power cuts: {} accepted, {lost} lost",
        accepted.len()
    );
    assert!(accepted.len() >= 100 * cuts);
    assert_eq!(lost, 0, "of {}", accepted.len());
}

/// The test above can fail: where fsync does nothing, a cut does lose what was answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_only_says_that_it_has_written_does_lose() {
    let Some(Cut {
        accepted,
        delivered,
        ..
    }) = cut_under_load(1, true).await
    else {
        return;
    };
    assert_ne!(
        accepted.difference(&delivered).count(),
        0,
        "of {}",
        accepted.len()
    );
}

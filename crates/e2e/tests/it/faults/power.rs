//! A power cut: what the disk had at that moment is all there is.
//!
//! The queue file lies on a file system of its own, in a file. kill -9 the
//! service, copy that file without unmounting or syncing, mount the copy, start
//! on it. Needs root and loop devices; without them it says so and passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use simulator::{Events, Retry};

use crate::pipeline::{Pipeline, SANDBOX, until};
use crate::sink::Sink;

/// An empty disk in a file, if the means are here.
pub(crate) fn make_disk(image: &Path) -> Option<()> {
    std::fs::File::create(image).unwrap().set_len(256 << 20).unwrap();
    succeeds("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]).then_some(())
}

/// A mounted file system, unmounted at the end.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn mount(image: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        succeeds("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        succeeds("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let run = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_200_survives_a_power_cut() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::prepare(&sink.route("all", "match: {}"));
    let (image, copy) = (pipeline.folder.path().join("disk.img"), pipeline.folder.path().join("copy.img"));
    if make_disk(&image).is_none() {
        return e2e::say_not_run("mkfs.ext4 is not here");
    }
    let Some(disk) = Mounted::mount(&image, &pipeline.data.clone()) else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    pipeline.run();
    let mut accepted = Vec::new();
    let (mut events, sender) = (Events::new("ACME", 34, 77), pipeline.sender(Retry::Never));
    for _ in 0..300 {
        let signed = SANDBOX.sign(events.any().body).unwrap();
        let answer = sender.send(&signed).await.answer.unwrap();
        assert_eq!(answer.status, 200);
        accepted.push((answer.body["eventId"].as_str().unwrap().to_owned(), signed));
    }
    pipeline.kill();
    std::fs::copy(&image, &copy).unwrap();
    drop(disk);

    let _disk = Mounted::mount(&copy, &pipeline.data.clone()).unwrap();
    pipeline.run();
    until("every accepted one arrived", || accepted.iter().all(|(id, _)| sink.counts().contains_key(id)))
        .await;
    for (_, signed) in &accepted {
        let answer = sender.send(signed).await.answer.unwrap();
        assert_eq!((answer.status, &answer.body["duplicate"]), (200, &true.into()), "forgotten by the disk");
    }
    pipeline.kill();
}

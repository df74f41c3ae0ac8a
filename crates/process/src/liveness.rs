//! Whether another process of this machine lives, without waiting for its next report.

use queue::processes::{ProcessReport, ProcessSeen};
use rustix::process::{Pid, test_kill_process};

/// The place where process ids of this process count: the running system, and in it the namespace.
pub(crate) fn pid_space() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// The start of a process by the system's count since it was booted; `None` if it can't be read.
pub(crate) fn pid_started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, with anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(FIELDS_BEFORE_START)?
        .parse()
        .ok()
}

/// Fields of `/proc/PID/stat` between the name and the start.
const FIELDS_BEFORE_START: usize = 19;

/// True if the process of this report ran where this process runs, and is not there any more.
/// Nothing is known of processes elsewhere.
pub fn has_died(report: &ProcessReport) -> bool {
    let is_here = report.pid_space.is_some() && report.pid_space == pid_space();
    if report.is_closed || !is_here {
        return false;
    }
    let Some(pid) = i32::try_from(report.pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // Whoever may not be signalled is there.
    let is_nobody = test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    let is_another = || match (pid_started(report.pid), report.pid_started) {
        (Some(now), Some(then)) => now != then,
        _ => false,
    };
    is_nobody || is_another()
}

/// The processes, with those that have died here and could not say so.
pub fn with_deaths(mut found: Vec<ProcessSeen>) -> Vec<ProcessSeen> {
    for seen in &mut found {
        seen.has_died = has_died(&seen.report);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pid: u32) -> ProcessReport {
        ProcessReport {
            pid,
            pid_space: pid_space(),
            pid_started: pid_started(pid),
            ..ProcessReport::default()
        }
    }

    #[test]
    fn a_process_of_this_machine_is_known_to_live_or_to_have_died() {
        let own = report(std::process::id());
        assert!(own.pid_space.is_some() && own.pid_started.is_some());
        assert!(!has_died(&own));
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let of_child = report(child.id());
        assert!(!has_died(&of_child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_died(&of_child));
        let closed = ProcessReport {
            is_closed: true,
            ..of_child.clone()
        };
        assert!(!has_died(&closed), "it said that it ends");
        let elsewhere = ProcessReport {
            pid_space: Some("elsewhere".to_owned()),
            ..of_child
        };
        assert!(!has_died(&elsewhere), "nothing is known of it");
        let another = ProcessReport {
            pid_started: Some(1),
            ..own
        };
        assert!(has_died(&another), "its id belongs to another now");
    }
}

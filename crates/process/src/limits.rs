//! The system's limits for this process: memory, and descriptors.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// The folder in which the kernel shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A limit of a control group above this means none: version 1 writes "no limit" as the largest
/// number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

/// Fewest descriptors that connections for webhooks leave for everything else.
const FEWEST_OTHER_DESCRIPTORS: u64 = 64;

/// The most that a process can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of memory: of the control group, or of the machine. `None` where neither is known.
    pub memory: Option<u64>,
    /// Descriptors, `RLIMIT_NOFILE`. `None` where there is no limit.
    pub descriptors: Option<u64>,
}

impl ProcessLimits {
    /// Reads the limits of this process.
    pub fn read() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = memory_limit(Path::new(CGROUPS), &own);
        let machine = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| total_memory(&text));
        Self {
            memory: [group, machine].into_iter().flatten().min(),
            descriptors: getrlimit(Resource::Nofile).current,
        }
    }

    /// The most connections of a listener that is not for webhooks: `usual`, or so many eighths of
    /// the quarter of descriptors that webhooks leave to others. All such listeners together take
    /// half of it: the other half is for files, and for connections that this process opens.
    pub fn connections_beside(self, usual: usize, eighths: u64) -> usize {
        let Some(descriptors) = self.descriptors else {
            return usual;
        };
        let others = (descriptors / 4).max(FEWEST_OTHER_DESCRIPTORS);
        usize::try_from(others * eighths / 8).map_or(usual, |places| places.min(usual))
    }
}

/// The lowest limit of this process's group and the groups above it, in either version of control
/// groups.
fn memory_limit(root: &Path, own: &str) -> Option<u64> {
    let groups = own.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if controllers.split(',').any(|it| it == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    groups
        .filter_map(|(root, path, file)| lowest(&root, path, file))
        .min()
}

/// The lowest limit in `file` from group `path` up to `root`. A container often sees its own
/// group at the root, wherever it is outside.
fn lowest(root: &Path, path: &str, file: &str) -> Option<u64> {
    let own = root.join(path);
    let groups = own
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .map(PathBuf::from);
    groups
        .filter_map(|group| {
            std::fs::read_to_string(group.join(file))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .filter(|limit| *limit < NO_LIMIT)
        .min()
}

fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("limits-{}", std::process::id()));
        let v1 = root.join("memory/outer/inner");
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        fs::write(
            root.join("memory/outer/memory.limit_in_bytes"),
            "268435456\n",
        )
        .unwrap();
        assert_eq!(
            memory_limit(&root, "3:cpu:/\n4:memory:/outer/inner\n0::/\n"),
            Some(256 << 20)
        );
        let v2 = root.join("slice/service");
        fs::create_dir_all(&v2).unwrap();
        fs::write(v2.join("memory.max"), "max\n").unwrap();
        assert_eq!(memory_limit(&root, "0::/slice/service\n"), None);
        fs::write(root.join("memory.max"), "134217728\n").unwrap();
        assert_eq!(memory_limit(&root, "0::/slice/service\n"), Some(128 << 20));
        assert_eq!(
            memory_limit(&root, "0::/seen/only/outside\n"),
            Some(128 << 20)
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(
            total_memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert!(ProcessLimits::read().memory.is_some());
    }

    #[test]
    fn listeners_beside_webhooks_leave_half_of_the_other_descriptors() {
        let with = |descriptors| ProcessLimits {
            memory: None,
            descriptors,
        };
        // Health, metrics and gRPC, where webhooks may have three quarters.
        for (descriptors, health, grpc) in [
            (128, 8, 16),
            (256, 8, 16),
            (1024, 32, 64),
            (4096, 128, 256),
            (20_000, 256, 512),
        ] {
            let limits = with(Some(descriptors));
            let places = [(256, 1), (512, 2)];
            let places = places.map(|(usual, eighths)| limits.connections_beside(usual, eighths));
            assert_eq!(places, [health, grpc], "{descriptors}");
        }
        assert_eq!(with(None).connections_beside(256, 1), 256);
    }
}

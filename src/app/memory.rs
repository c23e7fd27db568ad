//! How much memory a process has: the host's, or what a control group (version 1 or 2) or a limit on its address space leaves it. Linux
//! alone. Refuses to know what it is used for.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::base::memory::PROCESS;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Lets what waits for readers take half of the process's memory: the rest is the program's own, TLS's, and what allocating them costs.
pub(super) fn limit_buffers() {
    let Some(memory) = available() else { return };
    PROCESS.limit_to(memory / 2);
    tracing::debug!(memory_mib = memory >> 20, buffers_mib = memory >> 21, "the limit on bytes that wait for readers");
}

/// The smallest of all limits, in bytes; `None` if none is known.
fn available() -> Option<usize> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let host = read(Path::new("/proc/meminfo")).and_then(|text| total_of(&text));
    let group = read(Path::new("/proc/self/cgroup")).and_then(|text| limit_of_group(&text, Path::new(GROUPS), read));
    let space = getrlimit(Resource::As).current.and_then(|bytes| usize::try_from(bytes).ok());
    [host, group, space].into_iter().flatten().min()
}

/// `MemTotal:  16314848 kB`.
fn total_of(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The limits of a process's groups and of those above them. Lines are `0::/PATH` of version 2 and `4:memory:/PATH` of version 1.
fn limit_of_group(groups: &str, mounted: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let group = Path::new(path.trim_start_matches('/'));
        // In a container the path may be the host's; what is mounted is then the container's own.
        group.ancestors().map(|group| root.join(group).join(file)).collect()
    });
    // Without a limit it says `max`, or a number beyond any memory.
    limits.filter_map(|file| read(&file)?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn group(groups: &str, files: &[(&str, &str)]) -> Option<usize> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        limit_of_group(groups, Path::new("/g"), |path| files.get(path.to_str().unwrap()).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_hosts_memory_is_read() {
        assert_eq!(total_of("MemTotal:       16314848 kB\nMemFree: 1 kB\n"), Some(16_314_848 * 1024));
        assert_eq!(total_of("nothing"), None);
    }

    #[test]
    fn f31_the_tightest_limit_of_any_group_counts() {
        let files = [("/g/a/b/memory.max", "max\n"), ("/g/a/memory.max", "1000\n"), ("/g/memory.max", "5000\n")];
        assert_eq!(group("0::/a/b\n", &files), Some(1000));
        assert_eq!(group("0::/\n", &files), Some(5000));
        let first =
            [("/g/memory/x/memory.limit_in_bytes", "77\n"), ("/g/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(group("5:cpu:/x\n4:memory:/x\n0::/\n", &first), Some(77));
        assert_eq!(group("4:memory:/host/path\n", &first), Some(9_223_372_036_854_771_712));
        assert_eq!(group("", &first), None);
    }
}

//! How much memory the machine has for this process: what it was built with, or what its control group allows.

use std::fs;

/// Bytes of memory; `None` where the system does not say.
pub(crate) fn of_the_machine() -> Option<u64> {
    let total = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    // The group's own folder: in a container it is the root of the mounted hierarchy.
    let allowed = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Some(allowed.map_or(total, |allowed: u64| allowed.min(total)))
}

/// `percent` of `total`, rounded down.
pub(crate) fn share(total: u64, percent: u8) -> u64 {
    total / 100 * u64::from(percent) + total % 100 * u64::from(percent) / 100
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_the_kernels_table() {
        assert_eq!(
            total("MemTotal:       24576000 kB\nMemFree: 5 kB\n"),
            Some(24_576_000 * 1024)
        );
        for text in ["", "MemFree: 5 kB", "MemTotal: many kB", "MemTotal: 5"] {
            assert_eq!(total(text), None, "{text}");
        }
        assert!(of_the_machine().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_share_is_exact_and_does_not_overflow() {
        assert_eq!(share(1_000, 50), 500);
        assert_eq!(share(999, 10), 99);
        assert_eq!(share(u64::MAX, 100), u64::MAX);
    }
}

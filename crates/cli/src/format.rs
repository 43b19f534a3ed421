//! Numbers as people read them, in pm2's forms.

/// A duration in its largest unit: `90m`, `2D`. A unit begins at two of it, as in pm2.
pub(crate) fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    for (size, unit) in [(31_536_000, "Y"), (2_592_000, "M"), (86_400, "D"), (3600, "h"), (60, "m")] {
        if seconds / size > 1 {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

/// Bytes as `41.8mb`.
pub(crate) fn memory(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["b", "kb", "mb"] {
        if value < 1024.0 {
            return if unit == "b" { format!("{bytes}b") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}gb")
}

/// Milliseconds since 1970, now.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        for (seconds, text) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (5400, "90m"), (7200, "2h"), (172_800, "2D")]
        {
            assert_eq!(uptime(seconds * 1000), text);
        }
    }

    #[test]
    fn memories() {
        for (bytes, text) in
            [(0, "0b"), (1023, "1023b"), (1536, "1.5kb"), (43_830_477, "41.8mb"), (3 << 30, "3.0gb")]
        {
            assert_eq!(memory(bytes), text);
        }
    }
}

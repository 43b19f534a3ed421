//! How a process ended, in words.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::LastExit;

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What is remembered of an end.
pub(crate) fn last_exit(status: ExitStatus, uptime: Duration) -> LastExit {
    let code = status.code();
    let signal = status.signal().map(signal_name);
    let after = shown(uptime);
    let text = match (&signal, code) {
        (Some(signal), _) => {
            let core = if status.core_dumped() { ", with a core dump" } else { "" };
            let hint =
                if signal == "SIGKILL" { " (by hand, or by the kernel for lack of memory)" } else { "" };
            format!("ended by {signal} after {after}{core}{hint}")
        }
        (None, Some(code)) => format!("exited with code {code} after {after}"),
        (None, None) => format!("ended after {after}"),
    };
    LastExit {
        code,
        signal,
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        at: millis(SystemTime::now()),
        text,
    }
}

/// The same for a process that could not be started.
pub(crate) fn not_started(text: String) -> LastExit {
    LastExit { code: None, signal: None, uptime_ms: 0, at: millis(SystemTime::now()), text }
}

/// A duration as people say it.
pub(crate) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened() {
        let text = |raw, millis| last_exit(ExitStatus::from_raw(raw), Duration::from_millis(millis)).text;
        assert_eq!(text(101 << 8, 20), "exited with code 101 after 20 ms");
        assert!(text(9, 65_300).starts_with("ended by SIGKILL after 65.3 s (by hand"));
        assert_eq!(text(11 | 0x80, 7_200_000), "ended by SIGSEGV after 2 h, with a core dump");
    }
}

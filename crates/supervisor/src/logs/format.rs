//! Log dates: dayjs tokens, as pm2's `log_date_format` takes them. A pattern is read once and written many times.

use std::fmt::Write as _;

use jiff::Zoned;

/// A pattern of dayjs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DateFormat {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Token(&'static str),
}

/// Longest first, so that `MMMM` is not read as two `MM`.
const TOKENS: &[&str] = &[
    "YYYY", "MMMM", "dddd", "SSS", "MMM", "ddd", "YY", "MM", "DD", "HH", "hh", "mm", "ss", "ZZ", "dd", "M",
    "D", "H", "h", "m", "s", "Z", "A", "a", "d", "X", "x",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl DateFormat {
    /// Reads a pattern. What is no token stands for itself; `[text]` always does.
    pub(crate) fn new(pattern: &str) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let text = |parts: &mut Vec<Part>, text: &str| match parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ => parts.push(Part::Text(text.to_owned())),
        };
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if let Some((quoted, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                text(&mut parts, quoted);
                rest = after;
            } else if let Some(token) = TOKENS.iter().find(|token| rest.starts_with(**token)) {
                parts.push(Part::Token(token));
                rest = &rest[token.len()..];
            } else {
                let (char, after) = rest.split_at(first.len_utf8());
                text(&mut parts, char);
                rest = after;
            }
        }
        Self { parts }
    }

    /// Appends `time` to `out`.
    pub(crate) fn write(&self, time: &Zoned, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Token(token) => write_token(token, time, out),
            }
        }
    }
}

fn write_token(token: &str, time: &Zoned, out: &mut String) {
    let hour = time.hour();
    let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
    let month = MONTHS[usize::from(time.month().unsigned_abs() - 1) % 12];
    let weekday = time.weekday().to_sunday_zero_offset();
    let day = DAYS[usize::from(weekday.unsigned_abs()) % 7];
    // Writing to a string cannot fail.
    let _ = match token {
        "YYYY" => write!(out, "{:04}", time.year()),
        "YY" => write!(out, "{:02}", time.year().rem_euclid(100)),
        "MMMM" => out.write_str(month),
        "MMM" => out.write_str(&month[..3]),
        "MM" => write!(out, "{:02}", time.month()),
        "M" => write!(out, "{}", time.month()),
        "DD" => write!(out, "{:02}", time.day()),
        "D" => write!(out, "{}", time.day()),
        "dddd" => out.write_str(day),
        "ddd" => out.write_str(&day[..3]),
        "dd" => out.write_str(&day[..2]),
        "d" => write!(out, "{weekday}"),
        "HH" => write!(out, "{hour:02}"),
        "H" => write!(out, "{hour}"),
        "hh" => write!(out, "{hour12:02}"),
        "h" => write!(out, "{hour12}"),
        "mm" => write!(out, "{:02}", time.minute()),
        "m" => write!(out, "{}", time.minute()),
        "ss" => write!(out, "{:02}", time.second()),
        "s" => write!(out, "{}", time.second()),
        "SSS" => write!(out, "{:03}", time.millisecond()),
        "A" => out.write_str(if hour < 12 { "AM" } else { "PM" }),
        "a" => out.write_str(if hour < 12 { "am" } else { "pm" }),
        "X" => write!(out, "{}", time.timestamp().as_second()),
        "x" => write!(out, "{}", time.timestamp().as_millisecond()),
        _ => {
            let seconds = time.offset().seconds();
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            let colon = if token == "Z" { ":" } else { "" };
            write!(out, "{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(pattern: &str, time: &str) -> String {
        let mut out = String::new();
        DateFormat::new(pattern).write(&time.parse().unwrap(), &mut out);
        out
    }

    #[test]
    fn as_dayjs_writes_it() {
        let time = "2024-03-09T07:05:02.045+05:30[+05:30]";
        for (pattern, expected) in [
            ("YYYY-MM-DD HH:mm Z", "2024-03-09 07:05 +05:30"),
            ("YYYY-MM-DDTHH:mm:ss", "2024-03-09T07:05:02"),
            ("YY/M/D H:m:s.SSS ZZ", "24/3/9 7:5:2.045 +0530"),
            ("dddd ddd dd d, MMMM MMM", "Saturday Sat Sa 6, March Mar"),
            ("hh:mm A a", "07:05 AM am"),
            ("[at YYYY] X", "at YYYY 1709948102"),
            ("日 DD", "日 09"),
            ("", ""),
        ] {
            assert_eq!(show(pattern, time), expected, "{pattern}");
        }
        assert_eq!(show("h A Z", "2024-03-09T00:05:02-03:00[-03:00]"), "12 AM -03:00");
        assert_eq!(show("h A", "2024-03-09T12:05:02Z[UTC]"), "12 PM");
    }
}

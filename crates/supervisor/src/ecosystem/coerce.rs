//! From a value as written to the type its key wants, with pm2's conversions: numbers in quotes, times, sizes, one string
//! for a list. What does not fit is reported and counts as absent. No key has a meaning here.

use super::diagnostic::{Diagnostic, Report, Source, Span};
use super::keys;
use super::node::{Node, Value};

/// A value and where it was given, for what is found out about it later.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    pub(super) value: T,
    /// The key as written, or the flag.
    pub(super) key: String,
    pub(super) at: Option<Span>,
}

/// `instances`, before it is known how many CPUs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instances {
    /// `"max"` or 0.
    Max,
    /// As many; all CPUs but so many if negative.
    Count(i64),
}

/// Reads the values of one place: a file, or the command line.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) source: Option<&'a Source>,
    pub(super) report: &'a mut Report,
}

impl Reader<'_> {
    /// A finding about a value.
    pub(super) fn about(&self, key: &str, at: Option<Span>, message: impl Into<String>) -> Diagnostic {
        let diagnostic = Diagnostic::new(message).key(key);
        match (self.source, at) {
            // What a flag says is in no file.
            _ if key.starts_with('-') => diagnostic,
            (Some(source), Some(span)) => diagnostic.at(source, span),
            (Some(source), None) => diagnostic.in_file(&source.file),
            (None, _) => diagnostic,
        }
    }

    fn wrong<T>(&mut self, key: &str, node: &Node, wanted: &str) -> Option<T> {
        let message = format!("`{key}` must be {wanted}, not {}", node.shown());
        let diagnostic = self.about(key, node.at, message);
        self.report.error(diagnostic);
        None
    }

    pub(super) fn text(&mut self, key: &str, node: &Node) -> Option<Given<String>> {
        let value = match &node.value {
            Value::Text(text) if text.contains('\0') => {
                return self.wrong(key, node, "text without zero bytes");
            }
            Value::Text(text) if text.trim().is_empty() => {
                return self.wrong(key, node, "text that is not empty");
            }
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.clone(),
            _ => return self.wrong(key, node, "text"),
        };
        Some(Given { value, key: key.to_owned(), at: node.at })
    }

    pub(super) fn boolean(&mut self, key: &str, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) if text == "true" => Some(true),
            Value::Text(text) if text == "false" => Some(false),
            _ => self.wrong(key, node, "true or false"),
        }
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, key: &str, node: &Node, least: u64, most: u64) -> Option<u64> {
        match scalar(node).and_then(whole).and_then(|count| u64::try_from(count).ok()) {
            Some(count) if (least..=most).contains(&count) => Some(count),
            _ if most == u64::MAX => self.wrong(key, node, &format!("a whole number of at least {least}")),
            _ => self.wrong(key, node, &format!("a whole number from {least} to {most}")),
        }
    }

    /// Milliseconds.
    pub(super) fn time(&mut self, key: &str, node: &Node, least: u64) -> Option<u64> {
        const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        match scalar(node).and_then(|text| measure(text, UNITS)) {
            Some(time) if time >= least && time <= MAX_TIME => Some(time),
            Some(time) if time > MAX_TIME => self.wrong(key, node, "at most 30 days"),
            Some(_) => self.wrong(key, node, &format!("at least {least} (milliseconds)")),
            None => {
                self.wrong(key, node, "a time: milliseconds, or a number with ms, s, m or h such as \"5s\"")
            }
        }
    }

    /// Bytes, in units of 1024.
    pub(super) fn size(&mut self, key: &str, node: &Node, least: u64, most: u64) -> Option<u64> {
        const UNITS: &[(&str, u64)] = &[("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
        match scalar(node).and_then(|text| measure(text, UNITS)) {
            Some(size) if (least..=most).contains(&size) => Some(size),
            Some(_) => self.wrong(key, node, &format!("from {least} to {most} (bytes)")),
            None => self.wrong(key, node, "a size: bytes, or a number with K, M or G such as \"16K\""),
        }
    }

    /// A list of texts; one text is split at its spaces, quotes respected.
    pub(super) fn list(&mut self, key: &str, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::Text(text) => match split(text) {
                Some(words) => Some(words),
                None => self.wrong(key, node, "text whose quotes are closed"),
            },
            Value::Number(number) => Some(vec![number.clone()]),
            Value::List(items) => {
                let mut words = Vec::with_capacity(items.len());
                for item in items {
                    match &item.value {
                        Value::Text(text) if !text.contains('\0') => words.push(text.clone()),
                        Value::Number(text) => words.push(text.clone()),
                        Value::Bool(value) => words.push(value.to_string()),
                        _ => return self.wrong(key, item, "a list of texts and numbers only"),
                    }
                }
                Some(words)
            }
            _ => self.wrong(key, node, "a list of texts, or one text that is split at its spaces"),
        }
    }

    /// Exit codes: one or a list.
    pub(super) fn exit_codes(&mut self, key: &str, node: &Node) -> Option<Vec<i32>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut codes = Vec::with_capacity(items.len());
        for item in items {
            // A flag can hold several: --stop-exit-codes 0,2
            for text in scalar(item).unwrap_or_default().split(',') {
                match whole(text.trim()).and_then(|code| u8::try_from(code).ok()) {
                    Some(code) => codes.push(i32::from(code)),
                    None => return self.wrong(key, item, "an exit code from 0 to 255 or a list of them"),
                }
            }
        }
        Some(codes)
    }

    /// One of a few words. `not_yet` are those that will be one.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        node: &Node,
        words: &[(&str, T)],
        not_yet: &[&str],
    ) -> Option<T> {
        let text = scalar(node).unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let known = known.join(", ");
        let diagnostic = if not_yet.contains(&text) {
            let message = format!("`{key}` cannot be \"{text}\" yet: this is not built");
            self.about(key, node.at, message).hint(format!("it can be {known}"))
        } else {
            let message = format!("`{key}` must be one of {known}, not {}", node.shown());
            let diagnostic = self.about(key, node.at, message);
            match keys::nearest(text, words.iter().map(|(word, _)| *word)) {
                Some(near) => diagnostic.hint(format!("did you mean \"{near}\"?")),
                None => diagnostic,
            }
        };
        self.report.error(diagnostic);
        None
    }

    pub(super) fn instances(&mut self, key: &str, node: &Node) -> Option<Given<Instances>> {
        let text = scalar(node).unwrap_or_default();
        let value = match (text, whole(text)) {
            ("max", _) | (_, Some(0)) => Instances::Max,
            (_, Some(count)) => Instances::Count(count),
            _ => {
                let wanted = "a whole number, or \"max\" for one per CPU";
                return self.wrong(key, node, wanted);
            }
        };
        Some(Given { value, key: key.to_owned(), at: node.at })
    }

    /// The variables of an `env` object.
    pub(super) fn variables(&mut self, key: &str, node: &Node) -> Option<Vec<(String, String)>> {
        let Value::Object(properties) = &node.value else {
            return self.wrong(key, node, "an object of variables such as { \"PORT\": 8080 }");
        };
        let mut variables = Vec::with_capacity(properties.len());
        for property in properties {
            if property.name.is_empty() || property.name.contains(['=', '\0']) {
                let message = format!("{:?} in `{key}` cannot be the name of a variable", property.name);
                let diagnostic = self.about(key, property.name_at, message);
                self.report.error(diagnostic);
                continue;
            }
            let value = match &property.node.value {
                Value::Text(text) if text.contains('\0') => {
                    self.wrong::<()>(&property.name, &property.node, "text without zero bytes");
                    continue;
                }
                Value::Text(text) => text.clone(),
                _ => property.node.json(),
            };
            variables.push((property.name.clone(), value));
        }
        Some(variables)
    }
}

/// The longest time that can be set, in milliseconds: beyond it a unit is mistaken.
const MAX_TIME: u64 = 30 * 24 * 3_600_000;

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Number(text) | Value::Text(text) => Some(text.trim()),
        _ => None,
    }
}

/// `5`, `+5`, `-5`, `5.0`, `0x5`.
fn whole(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i64::try_from(u64::from_str_radix(hex, 16).ok()?).ok()?
    } else {
        let digits = digits.strip_suffix(".0").unwrap_or(digits);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()?
    };
    Some(if negative { -value } else { value })
}

/// A number and perhaps a unit. `1.5s` is 1500.
fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = match unit.trim() {
        "" => 1,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    let value = number * unit as f64;
    // Beyond 2^53 a float is no exact number, and nothing here is meant to be so large.
    (value.fract() == 0.0 && value < 9e15).then_some(value as u64)
}

/// Splits at spaces, respecting quotes. `None` if a quote is not closed.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell_would() {
        assert_eq!(split("a  'b c' d\"e f\"g ''").unwrap(), ["a", "b c", "de fg", ""]);
        assert_eq!(split("").unwrap(), [""; 0]);
        assert_eq!(split("a 'b"), None);
    }

    #[test]
    fn measures() {
        let units = &[("s", 1000), ("ms", 1)];
        assert_eq!(measure("5", units), Some(5));
        assert_eq!(measure("5s", units), Some(5000));
        assert_eq!(measure("1.5 s", units), Some(1500));
        for wrong in ["", "s", "5x", "-5", "1e400s", "0.3", "5 5"] {
            assert_eq!(measure(wrong, units), None, "{wrong}");
        }
    }

    #[test]
    fn whole_numbers() {
        for (text, value) in [("4", 4), ("+4", 4), ("-2", -2), ("4.0", 4), ("0x10", 16)] {
            assert_eq!(whole(text), Some(value), "{text}");
        }
        for wrong in ["", "-", "1.5", "4x", "--1", "1e3", "99999999999999999999", "0x-5"] {
            assert_ne!(whole(wrong), Some(5), "{wrong}");
        }
        assert_eq!(whole("1.5"), None);
    }
}

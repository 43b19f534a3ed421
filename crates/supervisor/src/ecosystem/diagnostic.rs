//! What is said about an ecosystem file: where, what is wrong, what to do. Text only; colours are the command line's.

use std::fmt;
use std::path::{Path, PathBuf};

use super::node;

/// The longest piece of a source line that is shown, in characters.
const LINE_LIMIT: usize = 100;

/// A range of bytes in a file's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A file's text and its name.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) text: String,
    /// What was read is not the file, but what came of it: places in it are paths of keys.
    pub(super) evaluated: bool,
}

/// A place in a file, with the line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The whole line.
    text: String,
    /// How many characters are meant.
    width: usize,
}

/// One finding. Its `Display` has several lines: the message, the place with the source line, notes and the hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// The file, if it is about one.
    pub file: Option<PathBuf>,
    /// Where in it.
    pub place: Option<Place>,
    /// Where in what it exports, if it was evaluated: `apps[0].instances`.
    pub path: Option<String>,
    /// The key it is about, as written.
    pub key: Option<String>,
    /// What else is known.
    pub notes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(super) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, file: None, place: None, path: None, key: None, notes: Vec::new(), hint: None }
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    pub(super) fn at(mut self, source: &Source, span: Span) -> Self {
        if source.evaluated {
            self.path = Some(node::path(&source.text, span)).filter(|path| !path.is_empty());
        } else {
            self.place = Some(source.place(span));
        }
        self.in_file(&source.file)
    }

    pub(super) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Source {
    pub(super) fn new(file: PathBuf, text: String) -> Self {
        Self { file, text, evaluated: false }
    }

    /// What a place is called in a sentence.
    pub(super) fn called(&self, span: Span) -> String {
        match self.evaluated {
            true => node::path(&self.text, span),
            false => format!("in line {}", self.place(span).line),
        }
    }

    /// The byte at a line and a column, both from 1; the column in UTF-16 units, as JavaScript counts.
    pub(super) fn offset(&self, line: usize, column: usize) -> usize {
        let start: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let mut units = 1;
        let before = self.text[start..].chars().take_while(|c| {
            let here = units;
            units += c.len_utf16();
            here < column && *c != '\n'
        });
        start + before.map(char::len_utf8).sum::<usize>()
    }

    /// The place of a range. A range over several lines is shown as far as its first line goes.
    pub(super) fn place(&self, span: Span) -> Place {
        let start = floor(&self.text, span.start);
        let end = floor(&self.text, span.end.max(span.start));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        Place {
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: self.text[start..end.clamp(start, line_end)].trim_end().chars().count().max(1),
        }
    }
}

/// The nearest character boundary at or before a byte.
fn floor(text: &str, byte: usize) -> usize {
    let byte = byte.min(text.len());
    (0..=byte).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut gutter = 1;
        if let Some(file) = &self.file {
            match &self.place {
                Some(place) => {
                    gutter = place.line.to_string().len();
                    write!(f, "\n{:gutter$}--> {}:{}:{}", "", file.display(), place.line, place.column)?;
                    place.show(f, gutter)?;
                }
                None => {
                    write!(f, "\n --> {}", file.display())?;
                    self.path.iter().try_for_each(|path| write!(f, ": {path}"))?;
                }
            }
        }
        for note in &self.notes {
            write!(f, "\n{:gutter$} = {note}", "")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:gutter$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

impl Place {
    fn show(&self, f: &mut fmt::Formatter<'_>, gutter: usize) -> fmt::Result {
        // A file without line breaks is one long line: show what is around the place.
        let skip = if self.column > LINE_LIMIT - 20 { self.column - LINE_LIMIT / 2 } else { 0 };
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = self.text.chars().skip(skip).take(LINE_LIMIT).map(clean).collect();
        let before: String = self.text.chars().skip(skip).take(self.column - 1 - skip).map(blank).collect();
        let width = self.width.min(shown.chars().count().saturating_sub(before.chars().count())).max(1);
        let mark: String = self.text.chars().skip(self.column - 1).take(width).map(underline).collect();
        let mark = if mark.is_empty() { "^" } else { &mark };
        write!(f, "\n{:gutter$} |\n{} | {shown}\n{:gutter$} | {before}{mark}", "", self.line, "")
    }
}

/// Whether a terminal gives this character two columns.
fn wide(c: char) -> bool {
    matches!(c as u32, 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0x1f300..=0x1faff | 0x20000..=0x3fffd)
}

fn blank(c: char) -> &'static str {
    if wide(c) { "  " } else { " " }
}

fn underline(c: char) -> &'static str {
    if wide(c) { "^^" } else { "^" }
}

/// Findings as they are made.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.errors.push(diagnostic);
    }

    pub(super) fn warn(&mut self, diagnostic: Diagnostic) {
        self.warnings.push(diagnostic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, start: usize, end: usize) -> String {
        let source = Source::new(PathBuf::from("a.json"), text.to_owned());
        Diagnostic::new("bad").at(&source, Span { start, end }).hint("do it well").to_string()
    }

    #[test]
    fn shows_the_line_and_marks_the_place() {
        assert_eq!(
            show("{\n  \"a\": bcd,\r\n}", 9, 12),
            "bad\n --> a.json:2:8\n  |\n2 |   \"a\": bcd,\n  |        ^^^\n  = help: do it well"
        );
    }

    #[test]
    fn marks_under_wide_characters() {
        let text = "{\"名\": x}";
        let at = text.find('x').unwrap();
        let shown = show(text, at, at + 1);
        assert!(shown.contains("a.json:1:7"), "{shown}");
        assert!(shown.contains("\n  |        ^\n"), "{shown}");
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let text = format!("{}x{}", "a".repeat(5000), "b".repeat(5000));
        let shown = show(&text, 5000, 5001);
        assert!(shown.lines().all(|line| line.chars().count() < 110), "{shown}");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[3].find('x'), lines[4].find('^'));
    }

    #[test]
    fn a_place_behind_the_end_is_shown() {
        assert!(show("{", 1, 1).contains("a.json:1:2"));
        assert!(show("", 0, 0).contains("a.json:1:1"));
    }

    #[test]
    fn lines_and_columns_become_bytes() {
        let source = Source::new(PathBuf::new(), "ab\nc\u{1f600}de\n".to_owned());
        assert_eq!(source.offset(1, 2), 1);
        assert_eq!(source.offset(2, 1), 3);
        assert_eq!(source.offset(2, 4), 8, "one character of two units");
        assert_eq!(source.offset(2, 99), 10);
        assert_eq!(source.offset(99, 1), 11);
    }
}

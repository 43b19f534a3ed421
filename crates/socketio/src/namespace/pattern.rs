//! Names of namespaces with gaps: `/org-{id}`. Reading patterns, matching names, and nothing else.

use std::sync::Arc;

/// What a name had in the places of a pattern's parameters, in their order.
pub(crate) type Params = Box<[(Arc<str>, Box<str>)]>;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Names of namespaces begin with a slash, and commas end them on the wire.
    #[error("the pattern {0:?} matches nothing: a namespace begins with `/` and contains no `,` or `?`")]
    Name(String),
    /// Braces that do not pair up, or with something else than a name in them.
    #[error("the pattern {0:?} has a brace that belongs to no `{{name}}` (letters, digits and `_`)")]
    Brace(String),
    /// Nothing tells where the first of two parameters ends.
    #[error("the pattern {0:?} has two parameters with nothing between them")]
    Adjacent(String),
    /// The same parameter twice.
    #[error("the pattern {pattern:?} has the parameter {name:?} twice")]
    Twice {
        /// The pattern.
        pattern: String,
        /// The parameter.
        name: String,
    },
    /// There is nothing to fill in: `of` makes such a namespace.
    #[error("the pattern {0:?} has no parameter: use `of`")]
    NoParameter(String),
}

/// A pattern, read: text, then parameters each followed by text (empty only at the end).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    start: Box<str>,
    parts: Vec<(Arc<str>, Box<str>)>,
}

impl Pattern {
    pub(crate) fn parse(pattern: &str) -> Result<Pattern, PatternError> {
        if !pattern.starts_with('/') || pattern.contains([',', '?']) {
            return Err(PatternError::Name(pattern.into()));
        }
        let brace = || PatternError::Brace(pattern.into());
        let mut pieces = pattern.split('{');
        let start = pieces.next().unwrap_or_default();
        let mut parts: Vec<(Arc<str>, Box<str>)> = Vec::new();
        for piece in pieces {
            let (name, text) = piece.split_once('}').ok_or_else(brace)?;
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(brace());
            }
            if parts.last().is_some_and(|(_, before)| before.is_empty()) {
                return Err(PatternError::Adjacent(pattern.into()));
            }
            if parts.iter().any(|(known, _)| &**known == name) {
                return Err(PatternError::Twice { pattern: pattern.into(), name: name.into() });
            }
            parts.push((name.into(), text.into()));
        }
        if start.contains('}') || parts.iter().any(|(_, text)| text.contains('}')) {
            return Err(brace());
        }
        if parts.is_empty() {
            return Err(PatternError::NoParameter(pattern.into()));
        }
        Ok(Pattern { start: start.into(), parts })
    }

    /// A parameter is one or more characters other than `/`, as few as will do; the last takes what is left. That finds a
    /// match wherever there is one: text found further left only leaves more to the parameter after it.
    pub(crate) fn matches(&self, name: &str) -> Option<Params> {
        let mut rest = name.strip_prefix(&*self.start)?;
        let mut params = Vec::with_capacity(self.parts.len());
        for (index, (param, text)) in self.parts.iter().enumerate() {
            let value = if index + 1 == self.parts.len() {
                std::mem::take(&mut rest).strip_suffix(&**text)?
            } else {
                // At least one character, whatever its length in bytes.
                let first = rest.chars().next()?.len_utf8();
                let end = first + rest[first..].find(&**text)?;
                let value = &rest[..end];
                rest = &rest[end + text.len()..];
                value
            };
            if value.is_empty() || value.contains('/') {
                return None;
            }
            params.push((param.clone(), value.into()));
        }
        Some(params.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, name: &str) -> Option<String> {
        let params = Pattern::parse(pattern).unwrap().matches(name)?;
        Some(params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_a_pattern_matches() {
        for (pattern, name, params) in [
            ("/org-{id}", "/org-7", "id=7"),
            ("/org-{id}", "/org-\u{e9}-x", "id=\u{e9}-x"),
            ("/{org}/room/{room}", "/a/room/b", "org=a room=b"),
            ("/{a}-{b}", "/1-2-3", "a=1 b=2-3"),
            ("/{a}-{b}x", "/--xx", "a=- b=x"),
            ("/{a}x", "/xx", "a=x"),
            ("/{a}\u{e9}{b}", "/\u{e9}\u{e9}\u{e9}", "a=\u{e9} b=\u{e9}"),
        ] {
            assert_eq!(matched(pattern, name).as_deref(), Some(params), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("/org-{id}", "/org-"),
            ("/org-{id}", "/org-7/x"),
            ("/org-{id}", "/orb-7"),
            ("/{a}-{b}", "/-b"),
            ("/{a}-{b}", "/a-"),
            ("/{a}x", "/x"),
            ("/{org}/x", "/a/b/x"),
            ("/{org}/x", ""),
        ] {
            assert_eq!(matched(pattern, name), None, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let bad = |pattern: &str| Pattern::parse(pattern).unwrap_err();
        for text in ["", "org-{id}", "/a,{id}", "/a?{id}"] {
            assert_eq!(bad(text), PatternError::Name(text.into()));
        }
        for text in ["/{", "/{id", "/id}", "/{}", "/{a-b}", "/{a}}", "/{{a}}", "/}{a}"] {
            assert_eq!(bad(text), PatternError::Brace(text.into()), "{text}");
        }
        assert_eq!(bad("/{a}{b}"), PatternError::Adjacent("/{a}{b}".into()));
        assert_eq!(bad("/{a}-{a}"), PatternError::Twice { pattern: "/{a}-{a}".into(), name: "a".into() });
        assert_eq!(bad("/plain"), PatternError::NoParameter("/plain".into()));
    }
}

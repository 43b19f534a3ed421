//! The tree of a parsed file, with the place of every value. The syntax lives here, no key does.

use jsonc_parser::ast;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions};

use super::diagnostic::{Diagnostic, Source, Span};

/// A value and where it stands; values from the command line stand nowhere.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Option<Span>,
}

/// pm2 evaluates a `.json` file as a JavaScript expression; this is the part of that language that is data.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Property>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) name_at: Option<Span>,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { value: Value::Text(text.into()), at: None }
    }

    /// The value as it would stand in a file, cut to a readable length.
    pub(super) fn shown(&self) -> String {
        let full = self.json();
        if full.chars().count() <= 60 {
            return full;
        }
        format!("{}...", full.chars().take(57).collect::<String>())
    }

    /// The value as JSON: what pm2 makes of an object in `env`.
    pub(super) fn json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => text.clone(),
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                format!("[{}]", items.iter().map(Self::json).collect::<Vec<_>>().join(","))
            }
            Value::Object(properties) => {
                let each =
                    properties.iter().map(|each| format!("{}:{}", quoted(&each.name), each.node.json()));
                format!("{{{}}}", each.collect::<Vec<_>>().join(","))
            }
        }
    }
}

fn span(range: Range) -> Span {
    Span { start: range.start, end: range.end }
}

/// Parses a file's text.
pub(super) fn parse(source: &Source) -> Result<Node, Box<Diagnostic>> {
    // A missing comma is an error in JavaScript too, and most often a sign of something else that is missing.
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let parsed = jsonc_parser::parse_to_ast(&source.text, &CollectOptions::default(), &options);
    match parsed {
        Ok(result) => match result.value {
            Some(value) => Ok(convert(&value)),
            None => {
                let diagnostic = Diagnostic::new("the file is empty").in_file(&source.file);
                Err(Box::new(diagnostic.hint(EXAMPLE)))
            }
        },
        Err(error) => {
            let what = error.kind().to_string();
            let mut what = what.chars();
            let what: String =
                what.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(what).collect();
            let diagnostic = Diagnostic::new(format!("this is not valid JSON: {what}"));
            let diagnostic = diagnostic.at(source, span(error.range()));
            Err(Box::new(diagnostic.hint(
                "comments, trailing commas, single quotes and unquoted keys are allowed; JavaScript expressions are not",
            )))
        }
    }
}

/// The way to a place in a text that can be parsed: `apps[0].env.PORT`. Empty for the whole of it.
pub(super) fn path(text: &str, span: Span) -> String {
    let parsed = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default());
    let Some(value) = parsed.ok().and_then(|result| result.value) else { return String::new() };
    let mut node = &convert(&value);
    let mut path = String::new();
    let within = |at: Option<Span>| at.is_some_and(|at| at.start <= span.start && span.end <= at.end);
    loop {
        node = match &node.value {
            Value::List(items) => match items.iter().position(|item| within(item.at)) {
                Some(at) => {
                    path.push_str(&format!("[{at}]"));
                    &items[at]
                }
                None => return path,
            },
            Value::Object(properties) => {
                let here = |property: &&Property| within(property.name_at) || within(property.node.at);
                match properties.iter().find(here) {
                    Some(property) => {
                        let dot = if path.is_empty() { "" } else { "." };
                        path.push_str(&format!("{dot}{}", property.name));
                        if within(property.name_at) {
                            return path;
                        }
                        &property.node
                    }
                    None => return path,
                }
            }
            _ => return path,
        };
    }
}

/// The smallest file that works, for hints.
pub(super) const EXAMPLE: &str =
    r#"the smallest file is { "apps": [ { "name": "web", "script": "./server", "instances": 4 } ] }"#;

fn convert(value: &ast::Value<'_>) -> Node {
    let at = Some(span(value.range()));
    let value = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.clone().into_owned()),
        ast::Value::NumberLit(number) => Value::Number(number.value.to_owned()),
        ast::Value::BooleanLit(boolean) => Value::Bool(boolean.value),
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::Array(array) => Value::List(array.elements.iter().map(convert).collect()),
        ast::Value::Object(object) => Value::Object(
            object
                .properties
                .iter()
                .map(|property| Property {
                    name: property.name.as_str().to_owned(),
                    name_at: Some(span(property.name.range())),
                    node: convert(&property.value),
                })
                .collect(),
        ),
    };
    Node { value, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_place() {
        let text = r#"{"apps":[{"name":"a"},{"env":{"PORT":80}}]}"#;
        let way = |part: &str| {
            let start = text.find(part).unwrap();
            path(text, Span { start, end: start + part.len() })
        };
        assert_eq!(way("80"), "apps[1].env.PORT");
        assert_eq!(way("\"PORT\""), "apps[1].env.PORT");
        assert_eq!(way(r#"{"name":"a"}"#), "apps[0]");
        assert_eq!(way("\"apps\""), "apps");
        assert_eq!(way(text), "");
    }
}

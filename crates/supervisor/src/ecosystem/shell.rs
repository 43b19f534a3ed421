//! The part of a shell's language that a line in `package.json` most often is: words, quotes and operators. What needs a
//! shell to be worked out is marked, not worked out.

/// A piece of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, quotes removed.
    Word(Word),
    /// What stands between commands or leads output elsewhere.
    Operator(String),
}

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// What in it only a shell can work out: `$PORT`, `*.js`.
    pub(super) dynamic: Option<char>,
}

/// Splits a line. `None` if a quote is not closed.
pub(super) fn tokens(line: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut word: Option<Word> = None;
    let mut letters = line.chars().peekable();
    let empty = || Word { text: String::new(), dynamic: None };
    while let Some(c) = letters.next() {
        match c {
            ' ' | '\t' => tokens.extend(word.take().map(Token::Word)),
            '&' | '|' | ';' | '<' | '>' | '(' | ')' | '\n' => {
                tokens.extend(word.take().map(Token::Word));
                let mut operator = c.to_string();
                operator.extend(letters.next_if(|next| *next == c && matches!(c, '&' | '|' | '>' | ';')));
                tokens.push(Token::Operator(operator));
            }
            // A comment reaches to the end.
            '#' if word.is_none() => break,
            '\'' => {
                let word = word.get_or_insert_with(empty);
                loop {
                    match letters.next()? {
                        '\'' => break,
                        c => word.text.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_with(empty);
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => {
                            let escaped = letters.next_if(|next| matches!(next, '"' | '\\' | '$' | '`'));
                            word.text.push(escaped.unwrap_or('\\'));
                        }
                        c => {
                            if matches!(c, '$' | '`') {
                                word.dynamic.get_or_insert(c);
                            }
                            word.text.push(c);
                        }
                    }
                }
            }
            '\\' => word.get_or_insert_with(empty).text.extend(letters.next()),
            c => {
                let begins = word.is_none();
                let word = word.get_or_insert_with(empty);
                if matches!(c, '$' | '`' | '*' | '?' | '[') || (c == '~' && begins) {
                    word.dynamic.get_or_insert(c);
                }
                word.text.push(c);
            }
        }
    }
    tokens.extend(word.map(Token::Word));
    Some(tokens)
}

/// `A=b` as a name and a value.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let first = name.bytes().next()?;
    let fits = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    (name.bytes().all(fits) && !first.is_ascii_digit()).then_some((name, value))
}

/// Words as a line that a shell, and a list in an ecosystem file, splits into the same words.
pub(super) fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted = words.into_iter().map(|word| match word {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word if !word.contains('\'') => format!("'{word}'"),
        word => format!("\"{word}\""),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let word = |token| match token {
            Token::Word(word) => word.text,
            Token::Operator(operator) => format!("<{operator}>"),
        };
        tokens(line).unwrap().into_iter().map(word).collect()
    }

    #[test]
    fn splits_as_a_shell_does() {
        assert_eq!(
            words("A=b  node --x='y z' \"a \\\" b\" c\\ d ''"),
            ["A=b", "node", "--x=y z", "a \" b", "c d", ""]
        );
        assert_eq!(
            words("a&&b || c; d > e 2>&1 # not"),
            ["a", "<&&>", "b", "<||>", "c", "<;>", "d", "<>>", "e", "2", "<>>", "<&>", "1"]
        );
        assert_eq!(words("a#b"), ["a#b"]);
        assert_eq!(tokens("a 'b"), None);
        assert_eq!(tokens("a \"b"), None);
    }

    #[test]
    fn knows_what_needs_a_shell() {
        let dynamic = |line: &str| match &tokens(line).unwrap()[0] {
            Token::Word(word) => word.dynamic,
            Token::Operator(_) => None,
        };
        assert_eq!(dynamic("$PORT"), Some('$'));
        assert_eq!(dynamic("\"a$PORT\""), Some('$'));
        assert_eq!(dynamic("src/*.js"), Some('*'));
        assert_eq!(dynamic("~/x"), Some('~'));
        for plain in ["'$PORT'", "\\$PORT", "a~b", "\"*\"", "\"\\$\""] {
            assert_eq!(dynamic(plain), None, "{plain}");
        }
    }

    #[test]
    fn assignments() {
        assert_eq!(assignment("NODE_ENV=production"), Some(("NODE_ENV", "production")));
        assert_eq!(assignment("A="), Some(("A", "")));
        for other in ["--a=b", "=b", "1A=b", "a/b=c", "node"] {
            assert_eq!(assignment(other), None, "{other}");
        }
    }

    #[test]
    fn joined_words_split_into_themselves() {
        let all = ["node", "--x=y", "a b", "it's", "", "$x"];
        assert_eq!(words(&join(all)), all);
    }
}

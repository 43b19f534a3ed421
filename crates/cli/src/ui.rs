//! How the command speaks: colours only where a terminal shows them, errors of one form. No command's logic.

use std::fmt::{self, Display};
use std::io::IsTerminal;

use sundew_supervisor::client::ClientError;
use sundew_supervisor::ecosystem::{Diagnostic, Invalid};

/// Where text goes, and what it may look like there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) terminal: bool,
    colour: bool,
}

impl Look {
    pub(crate) fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    pub(crate) fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { terminal, colour: terminal && !dumb && !set("NO_COLOR") }
    }

    #[cfg(test)]
    pub(crate) fn plain(terminal: bool) -> Self {
        Self { terminal, colour: false }
    }

    pub(crate) fn coloured(self) -> bool {
        self.colour
    }

    fn paint<T: Display>(self, code: &'static str, text: T) -> Painted<T> {
        Painted { code: self.colour.then_some(code), text }
    }

    pub(crate) fn red<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1;31", text)
    }

    pub(crate) fn yellow<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1;33", text)
    }

    pub(crate) fn cyan<T: Display>(self, text: T) -> Painted<T> {
        self.paint("1;36", text)
    }

    pub(crate) fn green<T: Display>(self, text: T) -> Painted<T> {
        self.paint("32", text)
    }
}

/// Text in a colour, or not.
#[derive(Debug)]
pub(crate) struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}

/// Why a command failed: what is printed before it exits with 1.
#[derive(Debug)]
pub(crate) enum Error {
    /// One thing, and perhaps what to do about it.
    Plain { message: String, help: Option<String> },
    /// An ecosystem file or its flags.
    Ecosystem(Invalid),
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Plain { message: message.into(), help: None }
    }

    pub(crate) fn help(self, text: impl Into<String>) -> Self {
        match self {
            Self::Plain { message, .. } => Self::Plain { message, help: Some(text.into()) },
            other @ Self::Ecosystem(_) => other,
        }
    }

    pub(crate) fn print(&self) {
        let look = Look::stderr();
        match self {
            Self::Plain { message, help } => {
                eprintln!("{}: {}", look.red("error"), message.trim_end());
                if let Some(help) = help {
                    eprintln!("  {}: {help}", look.cyan("help"));
                }
            }
            Self::Ecosystem(invalid) => {
                warn(&invalid.warnings);
                for error in &invalid.errors {
                    eprintln!("{}: {error}", look.red("error"));
                }
            }
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Ecosystem(invalid)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::new(error.to_string())
    }
}

/// Prints what is no error.
pub(crate) fn warn(warnings: &[Diagnostic]) {
    for warning in warnings {
        warn_text(warning);
    }
}

pub(crate) fn warn_text(text: impl Display) {
    eprintln!("{}: {text}", Look::stderr().yellow("warning"));
}

/// Prints to standard output. A reader that has seen enough (`sundew logs | head`) is no error.
pub(crate) fn print(text: impl Display) -> Result {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::new(format!("cannot write to standard output: {error}"))),
    }
}

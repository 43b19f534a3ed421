//! One run of a command: the daemon it talks to, and what it is about.

use std::path::Path;

use sundew_supervisor::Home;
use sundew_supervisor::api::{ProcessInfo, Target};
use sundew_supervisor::client::{Client, ClientError};
use sundew_supervisor::ecosystem::{self, Context, Ecosystem, Flags};

use crate::args::Choice;
use crate::table;
use crate::ui::{self, Error, Look, Result};

/// What most commands need.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) client: Client,
}

impl Session {
    pub(crate) fn open() -> Result<Self> {
        let home = Home::from_env().map_err(|error| Error::new(error.to_string()))?;
        let client = Client::new(home.clone());
        Ok(Self { home, client })
    }

    /// All processes; none where there is no daemon.
    pub(crate) async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        match self.client.list().await {
            Err(ClientError::NoDaemon { .. }) => Ok(Vec::new()),
            other => Ok(other?),
        }
    }

    /// Prints the list, as pm2 does after everything it did.
    pub(crate) async fn show_list(&self) -> Result {
        let processes = self.processes().await?;
        show(&processes)
    }
}

/// Prints processes as a table.
pub(crate) fn show(processes: &[ProcessInfo]) -> Result {
    let look = Look::stdout();
    // comfy-table knows how wide the terminal is.
    let width = look.terminal.then(|| comfy_table::Table::new().width()).flatten();
    if processes.is_empty() && look.terminal {
        return ui::print("no processes: sundew start FILE|PROGRAM starts some\n");
    }
    ui::print(table::list(processes, look, width, crate::format::now()))
}

/// The surroundings of the command.
pub(crate) fn context(env_name: Option<String>) -> Result<Context> {
    Context::from_process(env_name).map_err(|error| {
        Error::new(format!("cannot tell the working folder: {error}")).help("cd to a folder that exists")
    })
}

/// What is in a file, with the warnings printed.
pub(crate) fn apps(file: &str, choice: &Choice, flags: &Flags) -> Result<Ecosystem> {
    let context = context(choice.env.clone())?;
    let flags = Flags { only: choice.only.clone(), ..flags.clone() };
    let ecosystem = ecosystem::load(Path::new(file), &context, &flags)?;
    ui::warn(&ecosystem.warnings);
    Ok(ecosystem)
}

/// What words mean for a command on processes: a file stands for the names of its apps.
pub(crate) fn target(words: &[String]) -> Result<Target> {
    let mut names = Vec::new();
    for word in words {
        if ecosystem::is_file(word) {
            let choice = Choice { env: None, only: Vec::new() };
            names.extend(apps(word, &choice, &Flags::default())?.apps.into_iter().map(|app| app.name));
        } else {
            names.push(word.clone());
        }
    }
    Ok(Target::parse(names))
}

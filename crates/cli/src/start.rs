//! `start`: an ecosystem file, a program, or what is in the list already.

use sundew_supervisor::api::{IfPresent, ProcessInfo, StartRequest, Target};
use sundew_supervisor::ecosystem::{self, Ecosystem};

use crate::args::Start;
use crate::progress::Progress;
use crate::session::{Session, apps, context};
use crate::ui::{Error, Result};
use crate::{daemon, ui};

/// What is looked for when nothing is named: pm2's own first, so that the same words start the same apps.
const DEFAULT_FILES: &[&str] = &[
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.config.json",
    "ecosystem.json",
    "pm2.json",
];

/// What the words of a `start` mean.
enum Meaning {
    Apps(Box<Ecosystem>, IfPresent),
    Listed(Target),
}

pub(crate) async fn start(session: &Session, start: &Start) -> Result {
    // Bad input is answered before a daemon is started for it.
    let meaning = meaning(session, start).await?;
    daemon::ensure(session).await?;
    match meaning {
        Meaning::Apps(ecosystem, if_present) => {
            let Ecosystem { apps, cluster, .. } = *ecosystem;
            let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
            let progress = Progress::new(format!("starting {}", names.join(", ")));
            let request = StartRequest { apps, if_present, cluster };
            progress.follow(session.client.start(&request).await?).await?;
        }
        Meaning::Listed(target) => {
            let progress = Progress::new(format!("starting {target}"));
            progress.follow(session.client.restart(target).await?).await?;
        }
    }
    session.show_list().await
}

async fn meaning(session: &Session, start: &Start) -> Result<Meaning> {
    let flags = start.flags();
    let force = |otherwise| if start.force { IfPresent::Add } else { otherwise };
    let words = match start.what.as_slice() {
        [] => vec![default_file()?],
        words => words.to_vec(),
    };
    let files = words.iter().filter(|word| ecosystem::is_file(word)).count();
    if files == words.len() {
        let mut all = Ecosystem { apps: Vec::new(), cluster: None, warnings: Vec::new() };
        for file in &words {
            let Ecosystem { apps, cluster, .. } = apps(file, &start.choice, &flags)?;
            if all.cluster.is_some() && cluster.is_some() && all.cluster != cluster {
                return Err(Error::new(
                    "these files put the daemon into different clusters: it can be in one",
                ));
            }
            all.cluster = all.cluster.or(cluster);
            for app in apps {
                if all.apps.iter().any(|other| other.name == app.name) {
                    let message = format!("two of these apps have the name `{}`", app.name);
                    let help = if flags.set.iter().any(|flag| flag.key == "name") {
                        "--name fits one app: choose it with --only"
                    } else {
                        "start one of the files alone"
                    };
                    return Err(Error::new(message).help(help));
                }
                all.apps.push(app);
            }
        }
        return Ok(Meaning::Apps(Box::new(all), force(IfPresent::Restart)));
    }
    if files > 0 {
        return Err(
            Error::new("files and programs cannot be started by one command").help("start them one by one")
        );
    }
    if !start.choice.only.is_empty() {
        return Err(Error::new("--only chooses apps of an ecosystem file, and none is given"));
    }
    // As in pm2, a word that names what is in the list means that.
    let listed = session.processes().await?;
    let unknown: Vec<&String> = words.iter().filter(|word| !known(word, &listed)).collect();
    match (unknown.as_slice(), words.as_slice()) {
        ([], _) if !start.force => match start.keys.first() {
            Some(flag) => {
                let message = format!("{} is in the list already: {flag} cannot change it", words.join(", "));
                Err(Error::new(message).help("start its file again, or delete it first"))
            }
            None => Ok(Meaning::Listed(Target::parse(&words))),
        },
        (_, [program]) => {
            let context = context(start.choice.env.clone())?;
            let ecosystem = ecosystem::program(program, &context, &flags)?;
            ui::warn(&ecosystem.warnings);
            Ok(Meaning::Apps(Box::new(ecosystem), force(IfPresent::Refuse)))
        }
        ([unknown, ..], _) => {
            let message = format!("there is no process `{unknown}`");
            Err(Error::new(message)
                .help("several programs are started one by one, or from an ecosystem file"))
        }
        ([], _) => Err(Error::new("--force starts one program at a time")),
    }
}

fn default_file() -> Result<String> {
    let mut found = DEFAULT_FILES.iter().filter(|file| std::path::Path::new(file).is_file());
    let Some(file) = found.next() else {
        return Err(Error::new("nothing to start: there is no ecosystem.config.js and no pm2.json here")
            .help("name an ecosystem file or a program: sundew start FILE|PROGRAM"));
    };
    let others: Vec<_> = found.copied().collect();
    if !others.is_empty() {
        ui::warn_text(format!("{file} is taken, and not {}", others.join(" or ")));
    }
    Ok((*file).to_owned())
}

fn known(word: &str, listed: &[ProcessInfo]) -> bool {
    let all = word == "all" && !listed.is_empty();
    all || listed.iter().any(|process| {
        process.name == word || process.pm2_env.namespace == word || process.pm_id.to_string() == word
    })
}

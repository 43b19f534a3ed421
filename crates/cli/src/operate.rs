//! Commands on processes that are in the list: stop, restart, reload, scale, delete, kill, ping, describe's data.

use std::time::Duration;

use sundew_supervisor::api::{IfPresent, ScaleRequest, StartRequest};
use sundew_supervisor::client::ClientError;
use sundew_supervisor::ecosystem::{self, Ecosystem, Flags};

use crate::args::{Choice, Reload, Restart, ScaleArgs, Targets};
use crate::daemon;
use crate::progress::Progress;
use crate::session::{Session, apps, target};
use crate::ui::{self, Error, Result};

/// How long a daemon that has stopped everything may take to end.
const GONE_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const GONE_POLL: Duration = Duration::from_millis(10);

pub(crate) async fn stop(session: &Session, targets: &Targets) -> Result {
    let target = target(&targets.targets)?;
    let progress = Progress::new(format!("stopping {target}"));
    progress.follow(session.client.stop(target).await?).await?;
    session.show_list().await
}

pub(crate) async fn delete(session: &Session, targets: &Targets) -> Result {
    let target = target(&targets.targets)?;
    let progress = Progress::new(format!("deleting {target}"));
    progress.follow(session.client.delete(target).await?).await?;
    session.show_list().await
}

/// Names keep their configuration; a file is read anew.
pub(crate) async fn restart(session: &Session, restart: &Restart) -> Result {
    match file(&restart.targets, &restart.choice)? {
        Some(file) => from_file(session, file, &restart.choice, IfPresent::Restart, "restarting").await?,
        None => {
            let target = target(&restart.targets.targets)?;
            let progress = Progress::new(format!("restarting {target}"));
            progress.follow(session.client.restart(target).await?).await?;
        }
    }
    session.show_list().await
}

pub(crate) async fn reload(session: &Session, reload: &Reload) -> Result {
    match file(&reload.targets, &reload.choice)? {
        Some(_) if reload.wait => {
            return Err(Error::new("--wait works with ids and names, not with a file yet")
                .help("reload the file, then wait: sundew reload NAME --wait"));
        }
        Some(file) => from_file(session, file, &reload.choice, IfPresent::Reload, "reloading").await?,
        None => {
            let target = target(&reload.targets.targets)?;
            let progress = Progress::new(format!("reloading {target}"));
            progress.follow(session.client.reload(target, reload.wait).await?).await?;
        }
    }
    session.show_list().await
}

/// The file a command is about, if it is about one.
fn file<'a>(targets: &'a Targets, choice: &Choice) -> Result<Option<&'a str>> {
    match targets.targets.as_slice() {
        [file] if ecosystem::is_file(file) => Ok(Some(file)),
        words if words.iter().any(|word| ecosystem::is_file(word)) => {
            Err(Error::new("a file stands alone: name one file, or ids and names"))
        }
        _ if choice.env.is_some() || !choice.only.is_empty() => {
            Err(Error::new("--env and --only belong to an ecosystem file, and none is given")
                .help("the environment is read again from the file: sundew restart FILE --env NAME"))
        }
        _ => Ok(None),
    }
}

async fn from_file(
    session: &Session,
    file: &str,
    choice: &Choice,
    if_present: IfPresent,
    doing: &str,
) -> Result {
    let Ecosystem { apps, cluster, .. } = apps(file, choice, &Flags::default())?;
    daemon::ensure(session).await?;
    let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
    let progress = Progress::new(format!("{doing} {}", names.join(", ")));
    progress.follow(session.client.start(&StartRequest { apps, if_present, cluster }).await?).await?;
    Ok(())
}

pub(crate) async fn scale(session: &Session, scale: &ScaleArgs) -> Result {
    let progress = Progress::new(format!("scaling {}", scale.app));
    let request = ScaleRequest { app: scale.app.clone(), to: scale.number };
    progress.follow(session.client.scale(&request).await?).await?;
    session.show_list().await
}

pub(crate) async fn kill(session: &Session) -> Result {
    let progress = Progress::new("stopping everything".to_owned());
    let operation = match session.client.kill().await {
        // pm2 is content too when there is nothing to kill.
        Err(ClientError::NoDaemon { home }) => {
            drop(progress);
            return ui::print(format!("no daemon is running in {}\n", home.display()));
        }
        other => other?,
    };
    progress.follow(operation).await?;
    // It answers before it ends; who starts another one right after this must find the place free.
    let gone = async {
        while !matches!(session.client.ping().await, Err(ClientError::NoDaemon { .. })) {
            tokio::time::sleep(GONE_POLL).await;
        }
    };
    match tokio::time::timeout(GONE_DEADLINE, gone).await {
        Ok(()) => ui::print("the daemon is stopped\n"),
        Err(_) => Err(Error::new(format!("the daemon still answers after {} s", GONE_DEADLINE.as_secs()))
            .help(format!("its log is {}", session.home.daemon_log().display()))),
    }
}

/// pm2's answer, word for word.
pub(crate) async fn ping(session: &Session) -> Result {
    session.client.ping().await?;
    ui::print("{ msg: 'pong' }\n")
}

pub(crate) async fn jlist(session: &Session) -> Result {
    let processes = session.processes().await?;
    let text = serde_json::to_string(&processes).map_err(|error| Error::new(error.to_string()))?;
    ui::print(format!("{text}\n"))
}

//! `run` and the daemon itself: the commands that do not talk to a supervisor but are one.

use crate::args::Run;
use crate::session::apps;
use crate::ui::{Error, Result};

pub(crate) async fn run(run: &Run) -> Result {
    let _apps = apps(&run.file, &run.choice, &sundew_supervisor::ecosystem::Flags::default())?;
    Err(Error::new("the supervisor is not built yet"))
}

pub(crate) async fn daemon() -> Result {
    Err(Error::new("the supervisor is not built yet"))
}

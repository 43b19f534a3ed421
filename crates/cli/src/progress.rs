//! Shows an operation while it runs: a spinner on a terminal, a line per step elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sundew_supervisor::api::{Event, ProcessInfo, Step};
use sundew_supervisor::client::Operation;

use crate::ui::{Look, Result};

/// Something that takes a while.
#[derive(Debug)]
pub(crate) struct Progress {
    /// None where nobody watches a spinner.
    spinner: Option<ProgressBar>,
    look: Look,
}

impl Progress {
    /// Shown from now on.
    pub(crate) fn new(what: String) -> Self {
        let look = Look::stderr();
        let spinner = look.terminal.then(|| {
            let template = if look.coloured() { "{spinner:.cyan} {msg}" } else { "{spinner} {msg}" };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            spinner.set_message(what);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner, look }
    }

    /// A step that is over as soon as the next one comes.
    pub(crate) fn now(&self, what: String) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(what),
            None => eprintln!("{what}"),
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn event(&self, event: &Event) {
        let Event::Process { name, pm_id, step, detail } = event else { return };
        let text = words(name, *pm_id, *step, detail.as_deref());
        match step {
            Step::Errored => self.line(&format!("{} {text}", self.look.red("✗"))),
            Step::Online | Step::Stopped | Step::Drained | Step::Deleted => {
                self.line(&format!("{} {text}", self.look.green("✓")));
            }
            Step::Launching | Step::Stopping | Step::Draining => self.now(text),
        }
    }

    /// Shows an operation to its end.
    pub(crate) async fn follow(self, operation: Operation) -> Result<Vec<ProcessInfo>> {
        let result = operation.finish(|event| self.event(event)).await;
        drop(self);
        Ok(result?)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn words(name: &str, pm_id: u32, step: Step, detail: Option<&str>) -> String {
    let step = match step {
        Step::Launching => "starting",
        Step::Online => "online",
        Step::Stopping => "stopping",
        Step::Stopped => "stopped",
        Step::Draining => "the old worker keeps its sessions until they end",
        Step::Drained => "the old worker is gone",
        Step::Errored => "errored",
        Step::Deleted => "deleted",
    };
    match detail {
        Some(detail) => format!("{name} [{pm_id}] {step}: {detail}"),
        None => format!("{name} [{pm_id}] {step}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_in_words() {
        assert_eq!(words("web", 2, Step::Launching, None), "web [2] starting");
        assert_eq!(words("web", 0, Step::Errored, Some("exited with 1")), "web [0] errored: exited with 1");
    }
}

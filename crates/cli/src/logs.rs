//! `logs`: stored lines, then new ones as they come.

use sundew_supervisor::api::{LogLine, LogsRequest, MAX_TAIL_LINES, Stream, Target};

use crate::args::Logs;
use crate::session::Session;
use crate::ui::{self, Look, Result};

pub(crate) async fn logs(session: &Session, logs: &Logs) -> Result {
    let target = if logs.targets.is_empty() { Target::All } else { Target::parse(&logs.targets) };
    if logs.lines > MAX_TAIL_LINES {
        ui::warn_text(format!("--lines is cut to {MAX_TAIL_LINES}"));
    }
    let lines = logs.lines.min(MAX_TAIL_LINES);
    let request = LogsRequest { target, lines, follow: !logs.nostream };
    let mut stream = session.client.logs(&request).await?;
    let look = Look::stdout();
    while let Some(line) = stream.next().await? {
        if line.stream == Stream::Notice {
            ui::warn_text(format!("{}: {}", line.name, line.text));
        } else if wanted(logs, line.stream) {
            ui::print(show(&line, logs.raw, look))?;
        }
    }
    Ok(())
}

fn wanted(logs: &Logs, stream: Stream) -> bool {
    match stream {
        Stream::Out => !logs.err,
        Stream::Err => !logs.out,
        Stream::Notice => true,
    }
}

/// pm2's form: `ID|NAME | TEXT`.
fn show(line: &LogLine, raw: bool, look: Look) -> String {
    if raw {
        return format!("{}\n", line.text);
    }
    let head = match line.pm_id {
        Some(id) => format!("{id}|{} |", line.name),
        None => format!("{} |", line.name),
    };
    match line.stream {
        Stream::Err => format!("{} {}\n", look.red(head), line.text),
        _ => format!("{} {}\n", look.green(head), line.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_pm2s_form() {
        let line =
            LogLine { name: "web".to_owned(), pm_id: Some(3), stream: Stream::Out, text: "hi".to_owned() };
        assert_eq!(show(&line, false, Look::plain(false)), "3|web | hi\n");
        assert_eq!(show(&line, true, Look::plain(false)), "hi\n");
        let shared = LogLine { pm_id: None, ..line };
        assert_eq!(show(&shared, false, Look::plain(false)), "web | hi\n");
    }
}

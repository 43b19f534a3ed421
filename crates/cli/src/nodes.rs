//! `nodes`: the other hosts as this one sees them, and what goes between them.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use sundew_supervisor::NodesInfo;

use crate::args::Nodes;
use crate::session::Session;
use crate::ui::{self, Error, Look, Result};

pub(crate) async fn nodes(session: &Session, args: &Nodes) -> Result {
    let info = session.client.nodes().await?;
    if args.json {
        let text = serde_json::to_string(&info).map_err(|error| Error::new(error.to_string()))?;
        return ui::print(format!("{text}\n"));
    }
    match info {
        Some(info) => ui::print(shown(&info, Look::stdout())),
        None => Err(Error::new("this daemon is in no cluster of several hosts").help(
            "an ecosystem file puts it in one: \"sundew\": { \"cluster\": { ... } } beside its \"apps\"",
        )),
    }
}

fn shown(info: &NodesInfo, look: Look) -> String {
    let right = |number: u64| Cell::new(number).set_alignment(CellAlignment::Right);
    let mut nodes = table(look, &["node", "address", "state", "last heard"]);
    nodes.add_row([right(info.number.into()), Cell::new(&info.addr), Cell::new("this one"), Cell::new("-")]);
    for node in &info.nodes {
        let colour = if node.state == "up" { Color::Green } else { Color::Red };
        nodes.add_row([
            right(node.number.into()),
            Cell::new(&node.addr),
            Cell::new(&node.state).fg(colour),
            Cell::new(ago(node.heard_ms)),
        ]);
    }
    let mut apps =
        table(look, &["app", "forwarded", "relayed", "moved", "taken for others", "asked", "found"]);
    for app in &info.apps {
        let name = format!("{} {}", app.app, place(&app.door));
        apps.add_row([
            Cell::new(name.trim_end()),
            right(app.forwarded),
            right(app.relayed),
            right(app.moved),
            right(app.from_nodes),
            right(app.asked),
            right(app.found),
        ]);
    }
    let registry = match (&info.registry.trouble, info.registry.seen_ms) {
        (None, _) => String::new(),
        (Some(trouble), Some(ms)) => format!(": away, last seen {}: {trouble}", ago(ms)),
        (Some(trouble), None) => format!(": away: {trouble}"),
    };
    let mut text = format!("{}\nregistry {}{registry}\n", nodes.trim_fmt(), info.registry.kind);
    if !info.apps.is_empty() {
        text.push_str(&format!("\n{}\n", apps.trim_fmt()));
    }
    if info.asks_refused > 0 {
        text.push_str(&format!(
            "{} searches were not made: too many at once (asksInFlight)\n",
            info.asks_refused
        ));
    }
    text
}

fn table(look: Look, heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.force_no_tty();
    table.load_style(if look.terminal { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
    if look.coloured() {
        table.enforce_styling();
    }
    table.set_header(heads.iter().map(|head| Cell::new(head).fg(Color::Cyan)).collect::<Vec<_>>());
    table
}

/// Where a server of a Node.js worker listens, from the name Node has for it: address, port, and three more.
fn place(door: &str) -> String {
    let place = door.rsplitn(4, ':').nth(3).unwrap_or(door);
    place.strip_prefix("null:").map_or_else(|| place.to_owned(), |port| format!("port {port}"))
}

fn ago(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1} s ago", ms as f64 / 1000.0) } else { format!("{} s ago", ms / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_are_shown_by_their_place() {
        for (door, shown) in [
            ("null:8080:4:null:0", "port 8080"),
            ("::1:80:6:null:1", "::1:80"),
            ("sticky", "sticky"),
            ("", ""),
        ] {
            assert_eq!(place(door), shown);
        }
    }
}

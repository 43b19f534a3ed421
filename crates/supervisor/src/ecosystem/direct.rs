//! Reads `direct` and `route` of the `sundew` object: ports of single workers, and how clients are told of them.

use sundew_router::Advertise;

use super::coerce::{Given, Reader};
use super::node::{Node, Value};
use super::options::{Direct, Route};
use super::settings::Settings;
use super::sundew::{each, put};

const DIRECT: &[&str] = &["basePort", "host"];
const ROUTE: &[&str] = &["path", "scheme", "host", "basePort", "origins", "waiting", "timeout"];

/// `{ "basePort": 3131 }`, or the number alone.
pub(super) fn direct(written: &str, node: &Node, settings: &mut Settings, reader: &mut Reader<'_>) {
    settings.direct = Some(Given { value: (), key: written.to_owned(), at: node.at });
    let mut direct = Direct::default();
    match &node.value {
        Value::Object(_) => each(written, node, DIRECT, reader, |known, written, node, reader| match known {
            "basePort" => put(&mut direct.base_port, port(written, node, reader)),
            _ => direct.host = ip(written, node, reader),
        }),
        _ => put(&mut direct.base_port, port(written, node, reader)),
    }
    let Value::Object(properties) = &node.value else {
        settings.sundew.direct = Some(direct);
        return;
    };
    if !properties.iter().any(|property| matches!(property.name.as_str(), "basePort" | "base_port")) {
        let message = format!("`{written}` needs a `basePort`");
        let diagnostic = reader.about(written, node.at, message);
        let hint = "\"basePort\": 3131 gives the first worker port 3131, the second one 3132, and so on";
        reader.report.error(diagnostic.hint(hint));
    }
    settings.sundew.direct = Some(direct);
}

/// `true`, or an object with what differs from the defaults.
pub(super) fn route(written: &str, node: &Node, settings: &mut Settings, reader: &mut Reader<'_>) {
    settings.route = Some(Given { value: (), key: written.to_owned(), at: node.at });
    let mut route = Route::default();
    match &node.value {
        Value::Bool(false) => {
            settings.route = None;
            return;
        }
        Value::Bool(true) => {}
        _ => each(written, node, ROUTE, reader, |known, written, node, reader| match known {
            "path" => put(&mut route.path, path(written, node, reader)),
            "scheme" => {
                let words = [("http", "http"), ("https", "https")];
                put(&mut route.scheme, reader.word(written, node, &words, &[]).map(ToOwned::to_owned));
            }
            "host" => route.host = host(written, node, reader),
            "basePort" => route.base_port = port(written, node, reader),
            "waiting" => {
                let count = reader.count(written, node, 1, u64::from(u32::MAX));
                put(&mut route.waiting, count.and_then(|count| u32::try_from(count).ok()));
            }
            "timeout" => put(&mut route.timeout, reader.time(written, node, 1)),
            _ => put(&mut route.origins, origins(written, node, reader)),
        }),
    }
    settings.sundew.route = Some(route);
}

fn port(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<u16> {
    reader.count(written, node, 1, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

fn ip(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<std::net::IpAddr> {
    let given = reader.text(written, node)?;
    let ip = given.value.parse().ok();
    if ip.is_none() {
        let message = format!("`{written}` must be an address of this host, not {:?}", given.value);
        let hint = "\"127.0.0.1\" for a proxy on this host, \"0.0.0.0\" for every interface";
        let diagnostic = reader.about(written, node.at, message).hint(hint);
        reader.report.error(diagnostic);
    }
    ip
}

fn host(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let given = reader.text(written, node)?;
    if Advertise::is_host(&given.value) {
        return Some(given.value);
    }
    let message =
        format!("`{written}` must be a name or an address that clients reach, not {:?}", given.value);
    let diagnostic = reader.about(written, node.at, message).hint("without scheme and port: \"app.example\"");
    reader.report.error(diagnostic);
    None
}

fn path(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let given = reader.text(written, node)?;
    let path = &given.value;
    if path.starts_with('/')
        && path.len() > 1
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.contains(['?', '#'])
    {
        return Some(given.value);
    }
    let message = format!("`{written}` must be a path such as \"/.sundew/route\", not {path:?}");
    let diagnostic = reader.about(written, node.at, message);
    reader.report.error(diagnostic);
    None
}

fn origins(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let origins = reader.list(written, node)?;
    let Some(wrong) = origins.iter().find(|origin| *origin != "*" && !is_origin(origin)) else {
        return Some(origins);
    };
    let message = format!("{wrong:?} in `{written}` is not an origin");
    let hint = "as browsers send it: \"https://app.example\" or \"http://localhost:5173\", without a path; \"*\" is any";
    let diagnostic = reader.about(written, node.at, message).hint(hint);
    reader.report.error(diagnostic);
    None
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    !scheme.is_empty() && scheme.bytes().all(plain) && Advertise::host_of(host.as_bytes()).is_some()
}

/// What can be seen of both only once all is read.
pub(super) fn check(settings: &Settings, reader: &mut Reader<'_>) {
    let Some(route) = &settings.route else { return };
    if settings.direct.is_some() {
        return;
    }
    let message = format!("`{}` needs `direct`: there is no port of a single worker to tell of", route.key);
    let hint =
        "add \"direct\": { \"basePort\": 3131 } beside it: worker 0 gets port 3131, worker 1 port 3132, ...";
    let diagnostic = reader.about(&route.key, route.at, message).hint(hint);
    reader.report.error(diagnostic);
}

/// The ports have to exist, and somebody to be behind them. `false` if not; then there is an error in the report.
pub(super) fn fits(settings: &Settings, routed: bool, instances: u32, reader: &mut Reader<'_>) -> bool {
    let (Some(given), Some(direct)) = (&settings.direct, &settings.sundew.direct) else { return true };
    let last = u32::from(direct.base_port) + instances - 1;
    let (message, hint) = if !routed {
        let message =
            format!("`{}` is for apps in cluster mode: a program in fork mode has its own ports", given.key);
        (message, "leave it out, or set \"exec_mode\": \"cluster\"".to_owned())
    } else if last > u32::from(u16::MAX) {
        let message = format!(
            "`{}`: worker {} would have port {last}, and the last port is 65535",
            given.key,
            instances - 1
        );
        (message, format!("a `basePort` of at most {} fits {instances} instances", 65536 - instances))
    } else {
        return true;
    };
    let diagnostic = reader.about(&given.key, given.at, message).hint(hint);
    reader.report.error(diagnostic);
    false
}

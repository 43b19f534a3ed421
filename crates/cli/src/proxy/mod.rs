//! `nginx` and `haproxy`: a configuration for the proxy in front of an app whose workers have ports of their own. What is
//! in such a file is in `nginx` and `haproxy`; here is what both need to know.

mod haproxy;
mod nginx;

use std::net::IpAddr;

use sundew_supervisor::ecosystem::{AppConfig, Flags};

use crate::args::{Choice, Hash, Proxy};
use crate::session;
use crate::ui::{self, Error, Result};

/// How long a proxy has to wait for an answer, in seconds: a long poll is answered at the latest with a ping. Socket.IO's
/// defaults are a ping every 25 s, and 20 s for its answer.
const PATIENCE: u32 = 120;

/// An app as a proxy sees it.
struct Site {
    app: String,
    /// The app's name as it can stand in a configuration.
    name: String,
    /// Where the workers are, as `host:port`.
    workers: Vec<String>,
    /// The port the proxy listens on.
    listen: u16,
    /// How long the proxy may keep an idle connection to a worker, in seconds: less than Sundew does, or a request could
    /// meet a connection that is just being closed.
    idle: u64,
    /// Sundew takes the client's address from what the proxy says.
    trusted: bool,
}

pub(crate) fn nginx(args: &Proxy, hash: Hash) -> Result {
    ui::print(nginx::config(&args.file, &sites(args, "nginx")?, hash))
}

pub(crate) fn haproxy(args: &Proxy) -> Result {
    ui::print(haproxy::config(&args.file, &sites(args, "haproxy")?))
}

/// The apps to write a configuration for.
fn sites(args: &Proxy, command: &str) -> Result<Vec<Site>> {
    let only = args.app.iter().cloned().collect();
    let choice = Choice { env: args.env.clone(), only };
    let apps = session::apps(&args.file, &choice, &Flags::default())?.apps;
    let mut sites = Vec::new();
    for app in apps.iter().filter(|app| app.sundew.direct.is_some()) {
        let offset = u16::try_from(sites.len()).unwrap_or(u16::MAX);
        let listen = args.listen.checked_add(offset).ok_or_else(|| {
            Error::new("there are not enough ports for all apps")
                .help("a lower --listen, or one app by --app")
        })?;
        sites.push(site(app, args, listen));
    }
    if sites.is_empty() {
        let names: Vec<_> = apps.iter().map(|app| format!("`{}`", app.name)).collect();
        let message = format!(
            "no worker of {} has a port of its own: {command} would have nothing to choose from",
            names.join(", ")
        );
        let help = "add \"sundew\": { \"direct\": { \"basePort\": 3131 } } to the app: worker 0 gets port 3131, worker 1 \
                    port 3132, ... Without it nothing has to be sticky: any proxy may send any request to the app's port";
        return Err(Error::new(message).help(help));
    }
    Ok(sites)
}

fn site(app: &AppConfig, args: &Proxy, listen: u16) -> Site {
    let direct = app.sundew.direct.clone().unwrap_or_default();
    let host = args.to.clone().unwrap_or_else(|| match direct.host.filter(|host| !host.is_unspecified()) {
        Some(IpAddr::V6(host)) => format!("[{host}]"),
        Some(host) => host.to_string(),
        None => "127.0.0.1".to_owned(),
    });
    let slots = u16::try_from(app.instances).unwrap_or(u16::MAX);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    Site {
        app: app.name.clone(),
        name: format!("sundew_{}", app.name.chars().map(plain).collect::<String>()),
        workers: (0..slots).filter_map(|slot| Some(format!("{host}:{}", direct.port(slot)?))).collect(),
        listen,
        idle: (app.sundew.limits.idle_timeout / 1000 * 4 / 5).clamp(1, 60),
        trusted: !app.sundew.trusted_proxies.is_empty(),
    }
}

impl Site {
    /// What to say about clients' addresses.
    fn addresses(&self, indent: &str) -> String {
        if self.trusted {
            return format!("{indent}# Sundew takes the client's address from this (trustedProxies).\n");
        }
        format!(
            "{indent}# The client's address. For Sundew and its workers to use it: \"sundew\": {{ \"trustedProxies\": [\"loopback\"] }}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Vec<Site> {
        vec![Site {
            app: "a chat".to_owned(),
            name: "sundew_a_chat".to_owned(),
            workers: vec!["127.0.0.1:3131".to_owned(), "127.0.0.1:3132".to_owned()],
            listen: 8000,
            idle: 60,
            trusted: false,
        }]
    }

    #[test]
    fn nginx_chooses_as_asked() {
        let by_ip = nginx::config("pm2.json", &sites(), Hash::Ip);
        assert!(
            by_ip.contains("        ip_hash;\n") && !by_ip.contains("        hash $remote_addr"),
            "{by_ip}"
        );
        let consistent = nginx::config("pm2.json", &sites(), Hash::Consistent);
        assert!(consistent.contains("        hash $remote_addr consistent;\n"), "{consistent}");
        for worker in ["server 127.0.0.1:3131;", "server 127.0.0.1:3132;", "upstream sundew_a_chat {"] {
            assert!(by_ip.contains(worker), "{by_ip}");
        }
        assert_eq!(by_ip.matches('{').count(), by_ip.matches('}').count());
    }

    #[test]
    fn haproxy_names_each_worker() {
        let config = haproxy::config("pm2.json", &sites());
        assert!(config.contains("    server worker1 127.0.0.1:3132 check"), "{config}");
        assert!(config.contains("balance source") && config.contains("hash-type consistent"), "{config}");
    }
}

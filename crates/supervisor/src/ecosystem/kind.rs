//! Whether the instances of an app share a front door, and how connections reach them: from what was written and what runs
//! the program. No looking at files here.

use super::coerce::{Given, Instances};
use super::config::{ExecMode, Kind};
use super::diagnostic::Diagnostic;
use super::runtime::Runtime;
use super::settings::Settings;

/// Whether an app is meant to be a cluster, as far as that can be told before its program is known.
pub(super) fn wants_cluster(settings: &Settings) -> bool {
    match (&settings.kind, &settings.exec_mode) {
        (Some(Given { value: Kind::Port | Kind::None, .. }), _) => false,
        (_, Some(mode)) => mode.value == ExecMode::Cluster,
        (Some(_), None) => true,
        (None, None) => settings.instances.is_some(),
    }
}

/// pm2's mode.
pub(super) fn exec_mode(settings: &Settings, runtime: &Runtime) -> ExecMode {
    if let Some(given) = &settings.exec_mode {
        return given.value;
    }
    // A front door of one worker is one too.
    if settings.kind.as_ref().is_some_and(|kind| kind.value != Kind::None) {
        return ExecMode::Cluster;
    }
    let Some(instances) = &settings.instances else { return ExecMode::Fork };
    let several = instances.value != Instances::Count(1);
    match runtime {
        // pm2 infers this for Node alone; programs that need nothing to run them are this cluster's natives.
        Runtime::Direct | Runtime::Node => ExecMode::Cluster,
        Runtime::Bun if several => ExecMode::Cluster,
        Runtime::Bun => ExecMode::Fork,
        // They can share a port only if there is one to share.
        Runtime::Deno | Runtime::Shell | Runtime::Other(_) | Runtime::Unknown(_)
            if several && settings.port.is_some() =>
        {
            ExecMode::Cluster
        }
        Runtime::Deno | Runtime::Shell | Runtime::Other(_) | Runtime::Unknown(_) => ExecMode::Fork,
    }
}

/// What cannot be, and the setting it is about.
#[derive(Debug)]
pub(super) struct Cannot {
    pub(super) about: About,
    pub(super) diagnostic: Box<Diagnostic>,
}

/// The setting a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Kind,
    Program,
}

/// How connections reach the workers.
pub(super) fn kind(settings: &Settings, mode: ExecMode, runtime: &Runtime) -> Result<Kind, Cannot> {
    let port = settings.port.is_some();
    if let Some(given) = &settings.kind {
        let cannot = |found| Err(Cannot { about: About::Kind, diagnostic: Box::new(found) });
        return match (given.value, runtime) {
            (Kind::Native, Runtime::Node | Runtime::Bun | Runtime::Deno) => {
                let message = "a worker of kind native is a program with sundew::Listener";
                cannot(Diagnostic::new(message).hint("a program that Node.js runs is of kind \"node\""))
            }
            (Kind::Node, Runtime::Bun | Runtime::Deno | Runtime::Other(_) | Runtime::Shell) => {
                cannot(no_node(runtime, settings))
            }
            (Kind::Port, _) if !port => cannot(no_port("a worker of kind port", settings)),
            (kind, _) => Ok(kind),
        };
    }
    if mode == ExecMode::Fork {
        return Ok(Kind::None);
    }
    let cannot = |found| Err(Cannot { about: About::Program, diagnostic: Box::new(found) });
    match runtime {
        Runtime::Node => Ok(Kind::Node),
        Runtime::Direct => Ok(Kind::Native),
        _ if port => Ok(Kind::Port),
        // A shell script without a port is what starts a native program.
        Runtime::Shell => Ok(Kind::Native),
        Runtime::Bun | Runtime::Deno => cannot(no_node(runtime, settings)),
        Runtime::Other(name) => cannot(no_port(&format!("{name} in cluster mode"), settings)),
        Runtime::Unknown(name) => {
            let diagnostic = no_port(&format!("{name} in cluster mode"), settings);
            cannot(
                diagnostic
                    .note(format!("if {name} is Node.js, say so: \"sundew\": {{ \"kind\": \"node\" }}")),
            )
        }
    }
}

/// Why a program cannot be a worker of Node's cluster.
fn no_node(runtime: &Runtime, settings: &Settings) -> Diagnostic {
    let message = match runtime {
        Runtime::Bun => "Bun cannot be a worker of a Node.js cluster",
        Runtime::Deno => "Deno cannot be a worker of a Node.js cluster",
        _ => "only Node.js can be a worker of kind node",
    };
    let diagnostic = Diagnostic::new(message);
    let diagnostic = match runtime {
        Runtime::Bun => {
            diagnostic.note("Bun does not take connections over Node's channel (oven-sh/bun#34659)")
        }
        Runtime::Deno => diagnostic.note("Deno's node:cluster does nothing"),
        _ => diagnostic,
    };
    let port = port_of(settings);
    match runtime {
        Runtime::Bun | Runtime::Deno => diagnostic.hint(format!(
            "\"port\": {port} gives each instance a PORT of its own to listen on and serves them all on {port}; \"interpreter\": \"node\" makes it Node.js"
        )),
        _ => diagnostic.hint("leave `kind` out, or say \"port\""),
    }
}

fn no_port(what: &str, settings: &Settings) -> Diagnostic {
    let port = port_of(settings);
    let mode = match settings.exec_mode {
        Some(_) => "; \"exec_mode\": \"fork\" runs it supervised only",
        None => "",
    };
    Diagnostic::new(format!("{what} needs a `port`")).hint(format!(
        "\"port\": {port}: Sundew serves the app there, and each instance gets a PORT of its own to listen on{mode}"
    ))
}

/// The port the user has in mind, or an example.
fn port_of(settings: &Settings) -> u16 {
    let env = settings.env.iter().find(|(name, _)| name == "PORT").and_then(|(_, port)| port.parse().ok());
    settings.port.or(env).unwrap_or(8000)
}

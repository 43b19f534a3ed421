//! What an app's settings come to: defaults, inference, the environment, absolute paths. Nothing is parsed here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cluster;
use super::coerce::{Given, Instances, Reader};
use super::config::{AppConfig, ExecMode, Kind, LogFile, LogFormat};
use super::context::Context;
use super::diagnostic::Span;
use super::direct;
use super::kind::{self, About, Cannot};
use super::options::SundewOptions;
use super::runtime;
use super::settings::{FilterEnv, Settings};
use super::started::{App, Started, put_before, started};

/// The most instances of an app: the place of a worker is one byte of its session ids.
pub const MAX_INSTANCES: u32 = 256;

/// What `time: true` stands for.
const TIME_FORMAT: &str = "YYYY-MM-DDTHH:mm:ss";

/// Longer than any name, shorter than a file name may be with what is added to it.
const MAX_NAME: usize = 100;

/// Resolves one app. `None` if it cannot run; then there is an error in the report.
pub(super) fn resolve(
    settings: Settings,
    app_at: Option<Span>,
    errors_before: usize,
    context: &Context,
    reader: &mut Reader<'_>,
) -> Option<AppConfig> {
    let folder = reader.source.map(|source| folder_of(&source.file, context));
    let folder = folder.as_deref();
    let Some(script) = &settings.script else {
        let message = match &settings.name {
            Some(name) => format!("the app `{}` has no `script`", name.value),
            None => "this app has no `script`".to_owned(),
        };
        // What stands there and is wrong has been reported.
        if reader.report.errors.len() == errors_before {
            let hint = "name the program to run: \"script\": \"./target/release/server\"";
            let diagnostic = reader.about("script", app_at, message).hint(hint);
            reader.report.error(diagnostic);
        }
        return None;
    };
    let name = name(&settings, script, context, reader)?;
    let cwd = working_folder(settings.cwd.as_ref(), folder, context, reader)?;
    let app = App { name: &name, script, cwd: &cwd, folder };
    let Started { program, args, env: own_env, bins, cwd: runs_in } =
        started(&app, &settings, context, reader)?;
    let exec_mode = kind::exec_mode(&settings, &program.runtime);
    let kind = match kind::kind(&settings, exec_mode, &program.runtime) {
        Ok(kind) => kind,
        Err(Cannot { about, diagnostic }) => {
            let (key, at) = match (about, &settings.kind, &settings.interpreter) {
                (About::Kind, Some(given), _) => (&given.key, given.at),
                (_, _, Some(given)) => (&given.key, given.at),
                _ => (&script.key, script.at),
            };
            app.fails(key, at, *diagnostic, reader);
            return None;
        }
    };
    unused(&settings, kind, &program.interpreter, reader);
    let instances = instances(settings.instances.as_ref(), context, reader)?;
    if !direct::fits(&settings, kind != Kind::None, instances, reader) {
        return None;
    }
    let mut env =
        environment(&settings.env, &settings.env_named, settings.filter_env.as_ref(), settings.port, context);
    env.extend(own_env);
    put_before(&mut env, &bins);
    let asks = kind == Kind::Node && settings.sundew.port.is_none();
    if let Some(port) = env.get("PM2_PORT").filter(|port| asks && !matches!(port.parse::<u16>(), Ok(1..))) {
        let message = format!("app `{name}`: PM2_PORT is {port:?}, which is no port and has no effect");
        let warning = reader.about("env", script.at, message);
        reader.report.warn(warning);
    }
    let tls = match &settings.tls {
        Some(tls) => Some(tls.resolve(&cwd, folder, context, reader)?),
        None => None,
    };
    let access_log_file = settings.access_log_file.as_ref().map(|given| context.path(&given.value, &cwd));
    let fork = exec_mode == ExecMode::Fork && settings.instances.is_none();
    let disabled = settings.disable_logs == Some(true);
    let log = |given: &Option<Given<String>>| match given {
        _ if disabled => LogFile::Off,
        Some(given) if matches!(given.value.as_str(), "NULL" | "/dev/null") => LogFile::Off,
        Some(given) => LogFile::Path(context.path(&given.value, &cwd)),
        None => LogFile::Default,
    };
    let time = settings.time.unwrap_or(false).then(|| TIME_FORMAT.to_owned());
    Some(AppConfig {
        env,
        namespace: settings.namespace.map_or_else(|| "default".to_owned(), |given| given.value),
        file: reader.source.map(|source| context.cwd.join(&source.file)),
        script: program.script,
        interpreter: program.interpreter,
        args,
        exec_mode,
        kind,
        instances,
        instance_var: settings
            .instance_var
            .map_or_else(|| "NODE_APP_INSTANCE".to_owned(), |given| given.value),
        port: settings.port,
        autorestart: settings.autorestart.unwrap_or(true),
        max_restarts: settings.max_restarts.unwrap_or(16),
        min_uptime: settings.min_uptime.unwrap_or(1000),
        restart_delay: settings.restart_delay.unwrap_or(0),
        exp_backoff_restart_delay: settings.exp_backoff_restart_delay.unwrap_or(0),
        stop_exit_codes: settings.stop_exit_codes.unwrap_or_default(),
        kill_timeout: settings.kill_timeout.unwrap_or(1600),
        shutdown_with_message: settings.shutdown_with_message.unwrap_or(false),
        wait_ready: settings.wait_ready.unwrap_or(false),
        // pm2's 3 s would be too short: there a program that is late counts as ready, here as failed.
        listen_timeout: settings.listen_timeout.unwrap_or(10_000),
        treekill: settings.treekill.unwrap_or(true),
        out_file: log(&settings.out_file),
        error_file: log(&settings.error_file),
        merge_logs: settings.merge_logs.unwrap_or(fork),
        log_date_format: settings.log_date_format.map(|given| given.value).or(time),
        log_format: settings.log_format.unwrap_or(LogFormat::Raw),
        sundew: SundewOptions { tls, access_log_file, ..settings.sundew },
        cwd: runs_in,
        name,
    })
}

/// Warns of what only Node.js programs have.
fn unused(settings: &Settings, kind: Kind, interpreter: &[String], reader: &mut Reader<'_>) {
    if let (Kind::None, Some(tls)) = (kind, &settings.tls) {
        let Given { key, at, .. } = tls.given();
        let message = format!("`{key}` has no effect: the app is supervised only, nothing is routed to it");
        let warning = reader.about(&key, at, message);
        reader.report.warn(warning);
    }
    let why = match kind {
        Kind::Node => return,
        Kind::None if runtime::is_node(interpreter) => return,
        Kind::Port => "workers of kind port have no channel",
        Kind::Native | Kind::None => "it is about Node.js programs",
    };
    for given in &settings.node_only {
        let message = format!("`{}` has no effect: {why}", given.key);
        let warning = reader.about(&given.key, given.at, message);
        reader.report.warn(warning);
    }
}

/// The folder a file is in; for standard input the shell's.
fn folder_of(file: &Path, context: &Context) -> PathBuf {
    let file = context.cwd.join(file);
    file.parent().map_or_else(|| context.cwd.clone(), Path::to_owned)
}

fn name(
    settings: &Settings,
    script: &Given<String>,
    context: &Context,
    reader: &mut Reader<'_>,
) -> Option<String> {
    let given = settings.name.as_ref().unwrap_or(script);
    let mut name = match &settings.name {
        Some(name) => name.value.clone(),
        // `..` has no last part; it will be found to be no program.
        None => {
            let stem = Path::new(&script.value).file_stem().and_then(|stem| stem.to_str());
            stem.unwrap_or(&script.value).to_owned()
        }
    };
    if let Some(prefix) = &settings.name_prefix {
        name = format!("{}:{name}", prefix.value);
    }
    if let (Some(true), Some(env)) = (settings.append_env_to_name, &context.env_name) {
        name = format!("{name}-{env}");
    }
    let wrong = if name == "all" {
        "\"all\" cannot be an app's name: it means all of them".to_owned()
    } else if name.chars().any(char::is_control) {
        format!("{name:?} cannot be an app's name: it has control characters")
    } else if name.len() > MAX_NAME {
        format!("an app's name can have {MAX_NAME} bytes, this one has {}", name.len())
    } else {
        return Some(name);
    };
    let diagnostic = reader.about(&given.key, given.at, wrong).hint("give it another `name`");
    reader.report.error(diagnostic);
    None
}

/// pm2 takes `cwd` from the shell's folder. Where that leads nowhere, the file's folder is tried, as for scripts.
fn working_folder(
    given: Option<&Given<String>>,
    folder: Option<&Path>,
    context: &Context,
    reader: &mut Reader<'_>,
) -> Option<PathBuf> {
    let Some(given) = given else { return Some(context.cwd.clone()) };
    let first = context.path(&given.value, &context.cwd);
    let second = folder.map(|folder| context.path(&given.value, folder)).filter(|second| *second != first);
    let tried: Vec<PathBuf> = std::iter::once(first).chain(second).collect();
    if let Some(found) = tried.iter().find(|path| path.is_dir()) {
        return Some(found.clone());
    }
    let message = format!("`{}` of `{}` is not a directory", given.value, given.key);
    let mut diagnostic = reader.about(&given.key, given.at, message);
    for path in &tried {
        diagnostic = diagnostic.note(format!("looked for {}", path.display()));
    }
    reader.report.error(diagnostic);
    None
}

fn instances(given: Option<&Given<Instances>>, context: &Context, reader: &mut Reader<'_>) -> Option<u32> {
    let Some(given) = given else { return Some(1) };
    let cpus = i64::from(context.cpus);
    let count = match given.value {
        Instances::Max => cpus.min(i64::from(MAX_INSTANCES)),
        Instances::Count(count) if count < 0 => cpus.saturating_add(count).max(1),
        Instances::Count(count) => count,
    };
    if count > i64::from(MAX_INSTANCES) {
        let message = format!("`{}` is {count}, and an app can have at most {MAX_INSTANCES}", given.key);
        let diagnostic = reader.about(&given.key, given.at, message);
        reader.report.error(
            diagnostic
                .hint(format!("\"max\" starts one per CPU: {} here", cpus.min(i64::from(MAX_INSTANCES)))),
        );
        return None;
    }
    u32::try_from(count).ok()
}

/// pm2's order: the shell's, then `env`, then `env_NAME`; the last one wins.
fn environment(
    env: &[(String, String)],
    named: &BTreeMap<String, Vec<(String, String)>>,
    filter: Option<&FilterEnv>,
    port: Option<u16>,
    context: &Context,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = match filter {
        Some(FilterEnv::All) => BTreeMap::new(),
        _ => context.env.clone(),
    };
    // The daemon's, and nobody else's.
    all.remove(cluster::SECRET);
    match filter {
        Some(FilterEnv::One(name)) => {
            all.remove(name);
        }
        Some(FilterEnv::Containing(parts)) => {
            all.retain(|name, _| !parts.iter().any(|part| name.contains(part)));
        }
        _ => {}
    }
    all.extend(env.iter().cloned());
    all.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
    if let Some(variables) = context.env_name.as_ref().and_then(|name| named.get(name)) {
        all.extend(variables.iter().cloned());
    }
    all
}

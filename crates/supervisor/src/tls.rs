//! TLS of an app: its sockets, its certificates, and the watch over their files.
//!
//! New certificates are taken when their files change; connections that exist go on with the old ones. Files that
//! cannot be used change nothing but what `describe` says. They are looked at every now and then rather than watched:
//! certificates are replaced in too many ways (renamed, linked anew, a whole folder exchanged) for anything cleverer.

use std::fs::Metadata;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sundew_router::{Certificates, Front, ListenerHandle, Listening, Serve, Site, Tls};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::api::TlsInfo;
use crate::bind::{self, Address, Refusal};
use crate::ecosystem::{TlsFiles, TlsOptions};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Files that change are left alone for so long: a certificate and its key are rarely written at once.
const SETTLE: Duration = Duration::from_millis(300);
/// The longest file.
const MAX_FILE: u64 = 1 << 20;

/// What an app does about TLS.
pub(crate) struct Secure {
    options: TlsOptions,
    tls: Tls,
    /// As they are bound. Whoever accepts from one has a duplicate.
    sockets: Vec<(SocketAddr, TcpListener)>,
    front: Front,
    /// Other apps may be there, too.
    site: Option<Site>,
    handles: Vec<ListenerHandle>,
    state: Arc<Mutex<State>>,
    /// To look at the files now.
    look: Arc<Notify>,
    watch: JoinHandle<()>,
}

/// How the files were when they were last looked at.
struct State {
    loaded: SystemTime,
    error: Option<String>,
}

impl Secure {
    /// Loads the certificates and opens the sockets, or goes on with those that are open. What they carry goes to `front`.
    /// `holder`: which app has a port.
    pub(crate) fn open<'a>(
        app: &str,
        options: &TlsOptions,
        (front, site): (&Front, Option<&Site>),
        before: Option<&Self>,
        holder: impl Fn(&Address) -> Option<&'a str>,
    ) -> Result<Self, Refusal> {
        // Before they are read: what changes meanwhile is seen as changed.
        let stamp = stamp(&options.files);
        let certificates = load(&options.files).map_err(Refusal::invalid)?;
        let tls = Tls::new(certificates).map_err(|error| Refusal::other(error.to_string()))?;
        let mut sockets = Vec::new();
        for listen in &options.listen {
            let addr = listen.address();
            let explain = |error: std::io::Error| {
                let address = Address::Tcp(addr);
                bind::explain(&address, &error, holder(&address))
            };
            let open = before.into_iter().flat_map(|before| &before.sockets).find(|(open, _)| *open == addr);
            let socket = match open {
                Some((_, socket)) => socket.try_clone(),
                None => bind::bind(addr, false),
            };
            let socket = socket.map_err(explain)?;
            let addr = socket.local_addr().map_err(explain)?;
            sockets.push((addr, socket));
        }
        let state = Arc::new(Mutex::new(State { loaded: SystemTime::now(), error: None }));
        let look = Arc::new(Notify::new());
        let watch = tokio::spawn(watch(
            app.to_owned(),
            options.files.clone(),
            stamp,
            tls.clone(),
            state.clone(),
            look.clone(),
        ));
        let (front, site) = (front.clone(), site.cloned());
        let mut secure = Self {
            options: options.clone(),
            tls,
            sockets,
            front,
            site,
            handles: Vec::new(),
            state,
            look,
            watch,
        };
        secure.listen().map_err(|error| Refusal::other(format!("cannot listen for TLS: {error}")))?;
        tracing::info!(app, addr = secure.info().listening.join(", "), "listening for TLS");
        Ok(secure)
    }

    fn listen(&mut self) -> std::io::Result<()> {
        let mut handles = Vec::new();
        for (_, socket) in &self.sockets {
            let socket = Listening::Tcp(socket.try_clone()?);
            let serve = Serve::Tls(self.tls.clone());
            handles.push(match &self.site {
                Some(site) => self.front.listen_at(site, socket, serve)?,
                None => self.front.listen(socket, serve)?,
            });
        }
        for old in std::mem::replace(&mut self.handles, handles) {
            old.stop();
        }
        Ok(())
    }

    /// New connections go to this front door. The sockets stay open meanwhile.
    pub(crate) fn move_to(&mut self, app: &str, front: &Front, site: Option<&Site>) {
        if self.front.is_same(front) && self.site.as_ref() == site {
            return;
        }
        self.site = site.cloned();
        let before = std::mem::replace(&mut self.front, front.clone());
        if let Err(error) = self.listen() {
            tracing::error!(app, %error, "cannot listen for TLS in another place");
            self.front = before;
        }
    }

    pub(crate) fn is(&self, options: &TlsOptions) -> bool {
        self.options == *options
    }

    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.sockets.iter().any(|(addr, _)| Address::Tcp(*addr).is_same_place(address))
    }

    /// It was to change, and cannot.
    pub(crate) fn stays(&self, why: String) {
        self.state.lock().error = Some(why);
    }

    /// Looks at the files now.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    pub(crate) fn info(&self) -> TlsInfo {
        let state = self.state.lock();
        let loaded = state.loaded.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        TlsInfo {
            listening: self.sockets.iter().map(|(addr, _)| addr.to_string()).collect(),
            loaded_at: u64::try_from(loaded.as_millis()).unwrap_or(u64::MAX),
            error: state.error.clone(),
        }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.watch.abort();
        self.handles.iter().for_each(ListenerHandle::stop);
    }
}

async fn watch(
    app: String,
    files: Vec<TlsFiles>,
    mut known: Vec<Stamp>,
    tls: Tls,
    state: Arc<Mutex<State>>,
    look: Arc<Notify>,
) {
    // A file system that hangs holds up this task and a blocking thread, and nothing else.
    let stamp_now = async || {
        let files = files.clone();
        tokio::task::spawn_blocking(move || stamp(&files)).await.unwrap_or_default()
    };
    loop {
        let _ = tokio::time::timeout(LOOK, look.notified()).await;
        let mut now = stamp_now().await;
        if now == known {
            continue;
        }
        loop {
            tokio::time::sleep(SETTLE).await;
            let later = stamp_now().await;
            if later == now {
                break;
            }
            now = later;
        }
        known = now;
        let files = files.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&files)).await;
        let loaded = loaded.unwrap_or_else(|error| Err(error.to_string()));
        let mut state = state.lock();
        match loaded {
            Ok(certificates) => {
                tls.replace(certificates);
                *state = State { loaded: SystemTime::now(), error: None };
                tracing::info!(app, "new certificates: connections made from now on get them");
            }
            Err(error) => {
                tracing::error!(app, "the new certificates are not used, the old ones stay: {error}");
                state.error = Some(error);
            }
        }
    }
}

fn load(files: &[TlsFiles]) -> Result<Certificates, String> {
    let mut certificates = Certificates::default();
    for TlsFiles { cert, key } in files {
        let (chain, secret) = (read(cert)?, read(key)?);
        certificates.add(&chain, &secret).map_err(|error| {
            let about = if error.is_about_the_key() { key } else { cert };
            format!("{}: {error}", about.display())
        })?;
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Tells whether a file was written or exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// None: it is not there.
    is: Option<(u64, u64, u64, i64, i64)>,
}

fn stamp(files: &[TlsFiles]) -> Vec<Stamp> {
    let is = |meta: Metadata| (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
    let paths = files.iter().flat_map(|files| [&files.cert, &files.key]);
    paths.map(|path| Stamp { path: path.clone(), is: std::fs::metadata(path).ok().map(is) }).collect()
}

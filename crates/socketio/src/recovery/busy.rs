//! Sessions on their way: asked for at another server, taken out of the store and not yet in their namespace, or leaving it
//! and not yet in the store. Whoever asks for one of them meanwhile waits, rather than to hear that there is none.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// By private id.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<Mutex<HashMap<Arc<str>, watch::Receiver<()>>>>);

/// Keeps others waiting until it is dropped.
pub(crate) struct OnItsWay {
    busy: Busy,
    pid: Arc<str>,
    /// Told by its end.
    _moving: watch::Sender<()>,
}

impl Busy {
    /// `None` if it is on its way already.
    pub(super) fn begin(&self, pid: &str) -> Option<OnItsWay> {
        let mut moving = self.0.lock();
        if moving.contains_key(pid) {
            return None;
        }
        let (sender, receiver) = watch::channel(());
        let pid: Arc<str> = pid.into();
        moving.insert(pid.clone(), receiver);
        Some(OnItsWay { busy: self.clone(), pid, _moving: sender })
    }

    pub(super) fn is(&self, pid: &str) -> bool {
        self.0.lock().contains_key(pid)
    }

    /// Waits until it is here, or nowhere.
    pub(super) async fn wait(&self, pid: &str) {
        loop {
            let Some(mut moving) = self.0.lock().get(pid).cloned() else { return };
            // Nothing is ever sent: this is the end.
            while moving.changed().await.is_ok() {}
        }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.busy.0.lock().remove(&self.pid);
    }
}

impl fmt::Debug for OnItsWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnItsWay").finish()
    }
}

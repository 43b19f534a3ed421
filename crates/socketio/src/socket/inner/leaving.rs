//! How a socket leaves: told to the app, kept for its client to come back, and let go of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sundew_engineio::{CloseReason, SendError};

use super::{GONE, Inner, KICKED, NEW, OPEN};
use crate::call::DisconnectCall;
use crate::handler::Erased;
use crate::link::Link;
use crate::namespace::Hold;
use crate::session::running::{Running, What, drop_apps};
use crate::{DisconnectReason, Socket};

/// That a socket which has left is still at work on it: counted at its connection, and its namespace stays.
struct Parting {
    link: Arc<Link>,
    _hold: Option<Hold>,
}

impl Parting {
    fn new(inner: &Inner) -> Parting {
        inner.link.parting.fetch_add(1, Ordering::Relaxed);
        Parting { link: inner.link.clone(), _hold: inner.hold.lock().as_ref().map(Hold::again) }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.link.parting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    /// From whichever state it is in. `None` if it was over already.
    fn end(&self, gone: u8) -> Option<u8> {
        let may = |state: u8| (state < GONE).then_some(gone);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, may).ok()
    }

    /// Leaves the namespace: `disconnecting` handlers (its rooms still there), rooms, acknowledgements, `disconnect`
    /// handlers. False if it had left before, or never entered.
    pub(crate) fn leave(self: &Arc<Self>, reason: DisconnectReason) -> bool {
        let _leaving = self.table.recovery.as_ref().and_then(|recovery| recovery.leaving(self));
        let gone = if reason == DisconnectReason::ServerNamespaceDisconnect { KICKED } else { GONE };
        if self.end(gone) != Some(OPEN) {
            return false;
        }
        let (nsp, peer) = (&*self.table.name, self.link.peer_addr);
        tracing::debug!(socket = &*self.id, nsp, ?peer, %reason, "disconnected");
        let socket = Socket::from(self.clone());
        // Its event handlers stay: events that wait for `on_connect` still run.
        let (own_disconnecting, own_disconnect) = match &mut *self.own.write() {
            Some(own) => (own.disconnecting.take(), own.disconnect.take()),
            None => (None, None),
        };
        let (disconnecting, disconnect) = self.table.disconnect_handlers();
        let mut parting = None;
        let mut run = |handler: Option<Erased<DisconnectCall>>, what: What| {
            if let Some(handler) = handler {
                let mut call = DisconnectCall { socket: socket.clone(), reason };
                Running::call(socket.clone(), what, || handler(&mut call))
                    .detach(|| parting.get_or_insert_with(|| Arc::new(Parting::new(self))).clone());
                drop_apps(&self.table.counters, handler);
            }
        };
        run(own_disconnecting, What::Disconnecting);
        run(disconnecting, What::Disconnecting);
        self.withdraw(Some(reason));
        run(own_disconnect, What::Disconnect);
        run(disconnect, What::Disconnect);
        if gone == KICKED {
            // Nothing of it begins any more, and its connection does not know yet.
            self.let_go();
        }
        true
    }

    /// Its connection was lost before it entered: nobody hears of it, and what it was before it may be again.
    pub(crate) fn abandon(&self, reason: DisconnectReason) {
        let waited = self.state.compare_exchange(NEW, GONE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if waited
            && reason.is_recoverable()
            && let Some(recovery) = &self.table.recovery
        {
            recovery.put_back(&self.table, self);
        }
        self.keep_out();
    }

    /// It does not enter: nothing of it is kept, however long somebody holds it, and nothing is sent to it any more.
    pub(crate) fn keep_out(&self) {
        self.end(GONE);
        let held = std::mem::take(&mut *self.held.lock());
        drop(held);
        self.close_acks();
        self.let_go();
        self.drop_handlers();
        if let Some(resume) = &self.resume {
            resume.forget();
        }
    }

    /// Its connection is done with it: its namespace may go if it is empty.
    pub(crate) fn let_go(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }

    /// Drops its own handlers, as they often hold the socket itself, and takes no others.
    pub(crate) fn drop_handlers(&self) {
        let own = {
            let mut own = self.own.write();
            self.bare.store(true, Ordering::Relaxed);
            own.take()
        };
        if let Some(own) = own {
            own.drop_each(&self.table.counters);
        }
    }

    /// Disconnects from this side.
    pub(crate) fn disconnect(self: &Arc<Self>, close: bool) {
        if self.is_gone()
            && let Some(recovery) = &self.table.recovery
        {
            match self.back() {
                Some(back) => back.inner().disconnect(close),
                None => recovery.end(self),
            }
        }
        // In middleware, it is told when that is done.
        let new = self.state.compare_exchange(NEW, KICKED, Ordering::AcqRel, Ordering::Acquire);
        if new == Err(OPEN) {
            self.release();
            let told = self.link.handle.send(self.table.codec.disconnect(&self.table.name));
            if matches!(told, Err(SendError::Full(_))) {
                // It would never learn of it.
                self.link.handle.close(CloseReason::ForcedClose);
            }
            self.leave(DisconnectReason::ServerNamespaceDisconnect);
        }
        if close {
            for other in self.link.sockets() {
                other.disconnect(false);
            }
            self.link.handle.close(CloseReason::ForcedClose);
        }
    }
}

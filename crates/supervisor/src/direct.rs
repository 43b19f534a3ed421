//! Ports of single workers, besides the app's: bound once per slot, for as long as the slot is there, so that a restart or
//! a reload of the worker does not close one.

use std::net::{SocketAddr, TcpListener};

use sundew_router::{Front, ListenerHandle, Listening as Socket};

use crate::bind::{self, Address};
use crate::dispatcher::State;
use crate::state::{App, Listening};
use crate::worker::{Stop, WorkerId};

/// The port of a slot.
pub(crate) struct OwnDoor {
    pub(crate) addr: SocketAddr,
    socket: TcpListener,
    handle: ListenerHandle,
    /// The front door its connections come to: that of the app's first address.
    front: Front,
}

impl State {
    /// A worker listens: its slot's own port is opened, if the app has such ports and this one is not open yet.
    ///
    /// # Errors
    /// Why it cannot be, naming slot and port.
    pub(crate) fn open_own_door(&mut self, name: &str, id: WorkerId) -> Result<(), String> {
        let slot = self.apps.get(name).and_then(|app| app.worker(id)).map(|worker| worker.slot);
        slot.map_or(Ok(()), |slot| self.open_door_of(name, slot))
    }

    /// As [`State::open_own_door`], before there is a worker.
    pub(crate) fn open_door_of(&mut self, name: &str, slot: u16) -> Result<(), String> {
        let Some(app) = self.apps.get(name) else { return Ok(()) };
        let Some(direct) = &app.config.sundew.direct else { return Ok(()) };
        let Some(main) = app.listening.first().filter(|_| !app.doors.contains_key(&slot)) else {
            return Ok(());
        };
        let base = direct.base_port;
        let port = direct.port(slot).ok_or_else(|| {
            format!(
                "worker {slot} has no port of its own: sundew.direct.basePort ({base}) + {slot} is over 65535"
            )
        })?;
        let ip = direct.host.or_else(|| main.addr.tcp().map(|addr| addr.ip()));
        let addr = SocketAddr::new(ip.unwrap_or_else(|| bind::everywhere(port).ip()), port);
        let (front, serve) = (main.front.clone(), main.serve.clone());
        let explain = |error: std::io::Error| {
            let address = Address::Tcp(addr);
            let what = format!("the own port of worker {slot} (sundew.direct.basePort {base})");
            if error.kind() == std::io::ErrorKind::AddrInUse && app.holds(&address) {
                return format!(
                    "{what}: the app itself listens on port {port} already. Choose a basePort away from its other ports"
                );
            }
            format!("{what}: {}", bind::explain(&address, &error, self.holder(name, &address)).text)
        };
        let socket = bind::bind(addr, false).map_err(explain)?;
        let again = socket.try_clone().map_err(explain)?;
        let handle = front.listen_for(slot, Socket::Tcp(again), serve).map_err(explain)?;
        tracing::info!(app = name, slot, %addr, "the worker's own port");
        if let Some(app) = self.apps.get_mut(name) {
            app.doors.insert(slot, OwnDoor { addr, socket, handle, front });
        }
        Ok(())
    }

    /// A worker that cannot be served as configured: trying again would fail again.
    pub(crate) fn refuse_for_good(&mut self, name: &str, id: WorkerId, reason: String) {
        let Some(worker) = self.apps.get_mut(name).and_then(|app| app.worker_mut(id)) else { return };
        tracing::error!(app = name, slot = worker.slot, "{reason}");
        worker.fatal = Some(reason);
        worker.stop(Stop::Gently);
    }

    /// Which other app of this daemon has an address.
    pub(crate) fn holder(&self, name: &str, address: &Address) -> Option<&str> {
        let holder = self.apps.iter().find(|(other, app)| *other != name && app.holds(address));
        holder.map(|(name, _)| name.as_str())
    }
}

impl App {
    /// Nobody else can bind this while the app is up.
    fn holds(&self, address: &Address) -> bool {
        self.listening.iter().any(|here| here.addr.is_same_place(address))
            || self.secure.as_ref().is_some_and(|secure| secure.is_at(address))
            || self.doors.values().any(|door| Address::Tcp(door.addr).is_same_place(address))
    }

    /// Closes the ports of slots that are no more. Sessions of a worker that was scaled away keep theirs until it is gone.
    pub(crate) fn close_spare_doors(&mut self) {
        let (slots, leaving) = (&self.slots, &self.leaving);
        self.doors.retain(|slot, door| {
            let keep = slots.contains_key(slot) || leaving.iter().any(|one| one.worker.slot == *slot);
            if !keep {
                tracing::info!(slot, addr = %door.addr, "the worker is gone: its own port is closed");
                door.handle.stop();
            }
            keep
        });
    }

    /// The app's first address may be another one now, with another front door: the workers' ports lead there.
    pub(crate) fn move_doors(&mut self) {
        let Some(Listening { front, serve, .. }) = self.listening.first() else { return };
        for (slot, door) in self.doors.iter_mut().filter(|(_, door)| !door.front.is_same(front)) {
            let moved = door
                .socket
                .try_clone()
                .and_then(|socket| front.listen_for(*slot, Socket::Tcp(socket), serve.clone()));
            match moved {
                Ok(handle) => {
                    std::mem::replace(&mut door.handle, handle).stop();
                    door.front = front.clone();
                }
                Err(error) => tracing::error!(slot, %error, "a worker's own port leads nowhere now"),
            }
        }
    }

    pub(crate) fn close_doors(&mut self) {
        std::mem::take(&mut self.doors).values().for_each(|door| door.handle.stop());
    }
}

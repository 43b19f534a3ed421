//! What every event goes through, in and out: observers of all events, middleware for events, listeners to what is sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sundew_engineio::Frames;

use super::Table;
use crate::Socket;
use crate::call::EventCall;
use crate::handler::Erased;
use crate::packet::{Args, EmitArgs, Kind, Packet};

/// What every incoming event goes through.
#[derive(Default, Clone)]
pub(crate) struct Watch {
    /// They hear of it first.
    pub(crate) any: Vec<Erased<EventCall>>,
    /// Then these decide, one after the other.
    pub(crate) middleware: Vec<Erased<EventCall>>,
}

impl Watch {
    pub(super) fn add(&mut self, other: &Watch) {
        self.any.extend_from_slice(&other.any);
        self.middleware.extend_from_slice(&other.middleware);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.middleware.is_empty()
    }
}

/// Hears what is sent to a socket.
pub(crate) type Listener = Arc<dyn Fn(&Socket, &str, &Args) + Send + Sync>;

/// Those who hear what is sent, and one event that is.
pub(crate) struct Listening {
    event: String,
    args: Args,
    listeners: Vec<Listener>,
}

impl Listening {
    /// None if nobody listens.
    pub(crate) fn new(table: &Table, packet: &Packet) -> Option<Listening> {
        if !table.is_listened() {
            return None;
        }
        let (event, args) = packet.to_event()?;
        Some(Listening { event, args, listeners: table.gathered(|handlers| handlers.listeners.clone()) })
    }

    /// The event was handed on for `socket`.
    pub(crate) fn tell(&self, socket: &Socket) {
        let own = socket.inner().own.read().as_ref().map(|own| own.listeners.clone());
        for listener in self.listeners.iter().chain(own.iter().flatten()) {
            let call = AssertUnwindSafe(|| listener(socket, &self.event, &self.args));
            if catch_unwind(call).is_err() {
                // Whoever emits has nothing to do with it.
                tracing::error!(event = self.event, "a listener of on_any_outgoing panicked");
            }
        }
    }
}

impl Table {
    /// An event for one socket, and those who hear of it.
    pub(crate) fn encode(
        &self,
        ack: Option<u64>,
        name: &str,
        args: impl EmitArgs,
    ) -> Result<(Frames, Option<Listening>), serde_json::Error> {
        if !self.is_listened() {
            return Ok((self.codec.event(&self.name, ack, name, args)?, None));
        }
        let packet = Packet::event(name, args)?;
        let frames = self.codec.frames(Kind::Event, &self.name, ack, &packet)?;
        Ok((frames, Listening::new(self, &packet)))
    }
}

//! A session that another server kept: given away there, taken up here.
//!
//! Each server has its own order of events, so an offset of one means nothing to another; but every event that was sent to
//! all has a mark, and each server knows which marks it has had. Who gives a session away says what its client has missed,
//! and which events it has had itself, once every server has said what it had published until then and that is delivered. Who
//! takes it waits for the same: then it has had whatever the other one had, and what it has besides is what the client has
//! missed too. If it has not, because the namespace came to be here only after an event was published, the client starts anew.
//! The events missed become its own log's, for that socket alone, so that the session is one of its own from then on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::{StreamExt, stream};

use super::busy::OnItsWay;
use super::live::Live;
use super::{Elsewhere, Logged, Mark, Offset, Recipients, SavedSession, Seen, Stay};
use crate::DisconnectReason;
use crate::adapter::{Request, Response};
use crate::namespace::{Hold, Table};
use crate::packet::Packet;
use crate::socket::Inner;

/// How long a private id is, of any server.
const PID: usize = 20;

/// What a client that comes back says in its CONNECT packet.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Wanted {
    pub(super) pid: String,
    /// None before the first event. What is no text is no offset of anybody's, as in Node's server.
    offset: Option<String>,
}

const MOST_OFFSET: usize = 64;

impl Wanted {
    /// `auth` is the payload of CONNECT.
    pub(super) fn read(auth: &str) -> Option<Wanted> {
        if !auth.contains("\"pid\"") {
            return None;
        }
        serde_json::from_str(auth).ok()
    }

    pub(super) fn offset(&self) -> Option<&str> {
        // None of a server's is longer. It is kept for as long as the session.
        self.offset.as_deref().filter(|offset| offset.len() <= MOST_OFFSET)
    }
}

/// Looks for the session a client wants to take up where it is not here but may be elsewhere. When the task ends it is here,
/// or nowhere. Once others are asked it goes on if nobody waits for it any more: a session that is on its way must not be
/// lost. Before that, a client that is gone is not to have what another connection of its own has taken up since.
pub(crate) fn look_for(hold: &Hold, auth: &str) -> Option<impl Future<Output = ()> + Send + use<>> {
    let table = hold.table();
    let live = table.recovery.as_ref()?;
    let wanted = Wanted::read(auth).filter(|wanted| wanted.pid.len() == PID)?;
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let alone = table.adapter.server_count() <= 1 && !live.store().is_shared();
    if !live.busy.is(&wanted.pid) && (alone || live.knows(table, &wanted.pid)) {
        return None;
    }
    let (table, hold) = (table.clone(), hold.again());
    let waiting = Arc::new(());
    let waits = Arc::downgrade(&waiting);
    let looking = runtime.spawn(async move {
        // What it finds is for this namespace, whether or not its client still waits.
        let _hold = hold;
        let Some(live) = &table.recovery else { return };
        let timeout = live.settings.recovery.lookup_timeout;
        let looked = match live.busy.begin(&wanted.pid) {
            Some(_on_its_way) => tokio::time::timeout(timeout, live.bring(&table, &wanted, &waits)).await,
            // The client has asked for it before, on another connection.
            None => tokio::time::timeout(timeout, live.busy.wait(&wanted.pid)).await.map(Some),
        };
        if !matches!(looked, Ok(Some(()))) {
            tracing::debug!(nsp = &*table.name, "not recovered: no server has the session as a whole");
        }
    });
    Some(async move {
        // It does not fail but with the runtime: the client starts anew.
        let _ = looking.await;
        drop(waiting);
    })
}

impl Live {
    fn knows(&self, table: &Table, pid: &str) -> bool {
        self.pids.lock().contains_key(pid) || self.store().holds(&table.name, pid, Live::now())
    }

    async fn bring(&self, table: &Table, wanted: &Wanted, waits: &Weak<()>) -> Option<()> {
        let _permit = self.settings.lookups.acquire().await.ok()?;
        if waits.strong_count() == 0 {
            return None;
        }
        let from = self.store().last(&table.name);
        let found = match self.ask(table, wanted).await {
            Some(found) => found,
            None => self.store().fetch(&table.name, &wanted.pid, wanted.offset()).await?,
        };
        let published = self.catch_up(table).await?;
        self.import(table, wanted, found, from, &published)
    }

    /// Asks the other servers.
    async fn ask(&self, table: &Table, wanted: &Wanted) -> Option<Elsewhere> {
        if table.adapter.server_count() <= 1 {
            return None;
        }
        let request =
            Request::TakeSession { pid: wanted.pid.clone(), offset: wanted.offset().map(str::to_owned) };
        let mut answers = table.request(request, self.settings.recovery.lookup_timeout);
        let mut found: Option<(Elsewhere, u64)> = None;
        // Servers that do not answer do not matter once it is found.
        while let Some(answer) = answers.next().await {
            match (answer, &mut found) {
                (Ok(Response::Session { id, rooms, data, seen, missed }), None) => {
                    let seen = seen.into_iter().collect();
                    found =
                        Some((Elsewhere { id: id.into(), rooms, data, missed: Vec::new(), seen }, missed));
                }
                (Ok(Response::Missed(packet)), Some((session, _))) => session.missed.push(Arc::new(packet)),
                _ => {}
            }
            if found.as_ref().is_some_and(|(session, missed)| session.missed.len() as u64 == *missed) {
                break;
            }
        }
        // With some of what it missed lost on the way it is none.
        found.filter(|(session, missed)| session.missed.len() as u64 == *missed).map(|(session, _)| session)
    }

    /// Keeps the session as if it had left here. `from`: the last event before it was looked for. `published`: what has to
    /// have been heard since, here or where it was.
    fn import(
        &self,
        table: &Table,
        wanted: &Wanted,
        found: Elsewhere,
        from: Offset,
        published: &Seen,
    ) -> Option<()> {
        let _order = self.order.lock();
        let Elsewhere { id, rooms, data, mut missed, seen } = found;
        let heard = self.store().seen(&table.name);
        let is_heard = |mark: Mark| seen.of(mark.origin).max(heard.of(mark.origin)) >= Some(mark.number);
        // What came before the namespace was here is not in its log.
        if !published.marks().all(|mark| mark.number == 0 || is_heard(mark)) {
            return None;
        }
        let start = self.store().last(&table.name);
        let pid: Arc<str> = wanted.pid.as_str().into();
        let epoch = self.settings.epoch.clone();
        let said = Some(wanted.offset().unwrap_or_default().into());
        let until = Live::now() + self.settings.recovery.window;
        let (sent, left, replayed) = (start, start, None);
        let lull = (start, start.next());
        let stays = rooms.into_iter().map(|room| (room, vec![Stay::default()])).collect();
        let mut session = SavedSession {
            id,
            pid,
            stays,
            forgotten: Default::default(),
            data,
            epoch,
            said,
            start,
            sent,
            left,
            lull,
            until,
            replayed,
        };
        let more = self.store().unseen(&table.name, &seen, from, &session)?;
        missed.extend(more.into_iter().map(|event| event.packet));
        for packet in missed {
            session.sent = self.store().last(&table.name).next();
            let to = Recipients { socket: Some(session.id.clone()), ..Recipients::default() };
            self.append(table, Logged { offset: session.sent, packet, mark: None }, to);
        }
        session.left = session.sent;
        self.save(table, session);
        Some(())
    }

    /// Gives a session to another server, if it is here and nothing its client has missed is lost. `published`: what had been
    /// delivered here when it was asked for.
    fn give(&self, table: &Table, pid: &str, offset: Option<&str>, published: Seen) -> Option<Elsewhere> {
        let _order = self.order.lock();
        let session = self.store().take(&table.name, pid, Live::now())?;
        if let Some(gone) = self.away.lock().take(pid) {
            // What is sent to its handles here from now on reaches nobody.
            gone.store(true, Ordering::Relaxed);
        }
        let missed = self.missed(table, &session, offset)?;
        Some(Elsewhere {
            rooms: session.rooms(),
            id: session.id,
            data: session.data,
            missed: missed.into_iter().map(|event| event.packet).collect(),
            // Of an origin that has been silent since the namespace was here, nothing is missing.
            seen: published.marks().chain(self.store().seen(&table.name).marks()).collect(),
        })
    }

    /// A client that asks for its session has lost a connection that may still look alive from here.
    pub(super) fn end_if_alive(&self, pid: &str) {
        let old = self.pids.lock().get(pid).and_then(Weak::upgrade);
        if let Some(old) = old {
            old.leave(DisconnectReason::TransportClose);
            old.link.handle.close(sundew_engineio::CloseReason::TransportClose);
        }
    }

    /// A socket begins to leave: whoever asks for its session waits until it has.
    pub(crate) fn leaving(&self, socket: &Inner) -> Option<OnItsWay> {
        self.busy.begin(&socket.resume.as_ref()?.pid)
    }

    /// The last event that was published here. It has been handed on: what is said to another server after it comes behind it.
    pub(crate) fn published(&self) -> Mark {
        let _order = self.order.lock();
        Mark { origin: self.origin, number: self.published.load(Ordering::Relaxed) }
    }

    /// Waits until all that any server had published is delivered here. `None` if one of them does not say.
    async fn catch_up(&self, table: &Table) -> Option<Seen> {
        // Servers where the child is not there have published to it all the same, by their parent.
        let asked = || [Some(table), table.parent.as_deref()].into_iter().flatten();
        let limit = self.settings.recovery.lookup_timeout;
        let mut others = stream::select_all(asked().map(|table| table.request(Request::CatchUp, limit)));
        let own = asked().filter_map(|table| table.recovery.as_ref());
        let mut published: Vec<_> = own.map(Live::published).collect();
        while let Some(answer) = others.next().await {
            if let Response::Published(mark) = answer.ok()? {
                published.push(mark);
            }
        }
        Some(published.into_iter().collect())
    }
}

/// Answers [`Request::TakeSession`] for this server.
pub(crate) async fn give(table: Arc<Table>, pid: String, offset: Option<String>) -> Vec<Response> {
    let Some(live) = &table.recovery else { return Vec::new() };
    if !live.busy.is(&pid) && !live.knows(&table, &pid) {
        return Vec::new();
    }
    let limit = live.settings.recovery.lookup_timeout;
    let ended = async {
        let published = live.catch_up(&table).await?;
        loop {
            live.busy.wait(&pid).await;
            live.end_if_alive(&pid);
            // It may have been leaving already, in another task.
            if !live.busy.is(&pid) {
                return Some(published);
            }
        }
    };
    let Ok(Some(published)) = tokio::time::timeout(limit, ended).await else { return Vec::new() };
    live.give(&table, &pid, offset.as_deref(), published).map(answers).unwrap_or_default()
}

fn answers(given: Elsewhere) -> Vec<Response> {
    let Elsewhere { id, rooms, data, missed, seen } = given;
    let session = Response::Session {
        id: id.to_string(),
        rooms,
        data,
        seen: seen.marks().collect(),
        missed: missed.len() as u64,
    };
    let packet = |packet: Arc<Packet>| Response::Missed(Arc::unwrap_or_clone(packet));
    std::iter::once(session).chain(missed.into_iter().map(packet)).collect()
}

//! Carries one request to a worker and its response back, both at once if need be. No queue: who is slow is waited for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;

use crate::backend::Leg;
use crate::client::Client;
use crate::config::Limits;
use crate::front::Shared;
use crate::http::body::Body;
use crate::http::chunked::Malformed;
use crate::http::response::Asked;
use crate::learn::Learner;
use crate::leg::Lease;
use crate::members::{InFlight, Member, Placed};
use crate::scratch::{self, Scratch};
use crate::sids::Session;

/// Who ends its side of the connection this soon after its request waits for the answer all the same (`nc -N` does so).
/// Later, it has gone: a browser that closes a tab looks no different.
const ENDED_WITH_REQUEST: Duration = Duration::from_millis(20);
/// Reads in a row before others get their turn.
const ROUNDS: u32 = 32;

/// What is remembered of a request while a worker works on it.
pub(crate) struct About {
    pub(crate) asked: Asked,
    pub(crate) sid: bool,
    /// A poll that waits for packets: GET, with a sid.
    pub(crate) poll: bool,
    pub(crate) eio3: bool,
    pub(crate) jsonp: Option<u32>,
    pub(crate) safe: bool,
    /// It was sent in one piece, so small that the worker has read all of it or nothing.
    pub(crate) atomic: bool,
    /// It opens a session.
    pub(crate) placed: Option<Placed>,
    /// Socket.IO's websocket, through a leg.
    pub(crate) websocket: bool,
    /// The session of that websocket, where it is another node's and may come over.
    pub(crate) follows: Option<Box<str>>,
    /// The learned session it belongs to.
    pub(crate) session: Option<Arc<Session>>,
    /// The client closes that session by it.
    pub(crate) closes: bool,
    pub(crate) origin: Option<Box<[u8]>>,
}

/// How far a request was sent.
pub(crate) struct Sent {
    /// What of its body is still to come.
    pub(crate) body: Body,
    /// Bytes of it that are still unread in the client's socket.
    pub(crate) unconsumed: usize,
    /// What was written and has not gone out.
    pub(crate) to_leg: Vec<u8>,
    pub(crate) pending: Option<Pending>,
    /// The session it opens is to be learned.
    pub(crate) learns: bool,
}

/// A session's poll that waits for the first byte of its answer. Until then it can be ended from elsewhere.
pub(crate) struct Pending {
    session: Arc<Session>,
    leg: Arc<Leg>,
}

impl Pending {
    /// None: the session is over.
    pub(crate) fn new(session: &Arc<Session>, leg: &Arc<Leg>) -> Option<Self> {
        session.begin_poll(leg).then(|| Self { session: session.clone(), leg: leg.clone() })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.session.end_poll(&self.leg);
    }
}

/// A request on its way.
pub(crate) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(crate) about: About,
    pub(super) pending: Option<Pending>,
    /// The answer teaches a session: it is held back until it has.
    pub(super) learner: Option<Learner>,
    pub(super) held: Vec<u8>,
    /// Bytes of the request that are still unread in the client's socket; 0 once they were taken.
    pub(crate) unconsumed: usize,
    pub(super) upstream: Option<(Lease, InFlight)>,
    /// What of the request's body is still to come.
    pub(super) body: Body,
    pub(super) to_leg: Vec<u8>,
    /// The worker reads no more of this request. It may still answer.
    pub(super) deaf: bool,
    pub(super) response: Response,
    pub(super) leg_stays: bool,
    /// How long the leg can be used for another request.
    pub(super) leg_life: Option<Duration>,
    pub(super) to_client: Vec<u8>,
    began: Instant,
    /// For how long the request's body was waited for, and how much of it came.
    waited: Duration,
    came: u64,
}

pub(super) enum Response {
    /// Its head, as far as it came.
    Head(Vec<u8>),
    Body {
        body: Body,
        unchunk: bool,
        status: u16,
    },
    Done,
    Switched,
}

/// How an exchange ended.
pub(crate) enum End {
    /// The client has its response.
    Answered {
        /// Its connection stays open.
        keep_alive: bool,
    },
    /// The worker agreed to the upgrade.
    Switched(Lease, InFlight),
    /// The worker went away, or spoke no HTTP, before the client got anything.
    NoResponse {
        /// On a leg that had carried requests before.
        reused: bool,
        /// The worker had not read all that was sent when it closed the leg.
        unread: bool,
        /// It said something, but no HTTP.
        invalid: bool,
        /// The request's body is complete, so that the connection can go on.
        complete: bool,
    },
    /// The worker went away amid its response.
    Cut,
    ClientGone,
    /// The client does not send what it announced, or does not take what it asked for.
    Stalled {
        /// Nothing of a response has gone out.
        silent: bool,
    },
    /// The request's body is malformed.
    Malformed {
        /// Nothing of a response has gone out.
        silent: bool,
    },
}

/// Why nothing moves.
struct Wait {
    client: Option<Interest>,
    leg: Option<Interest>,
    /// Only the client can change that, and ought to soon.
    on_client: bool,
}

impl<'a> Exchange<'a> {
    /// After the head, and what there was of the body, was written to the leg.
    pub(crate) fn new(shared: &'a Shared, about: About, upstream: (Lease, InFlight), sent: Sent) -> Self {
        let Sent { body, unconsumed, to_leg, pending, learns } = sent;
        Self {
            shared,
            about,
            pending,
            learner: learns.then(Learner::default),
            held: Vec::new(),
            unconsumed,
            upstream: Some(upstream),
            body,
            to_leg,
            deaf: false,
            response: Response::Head(Vec::new()),
            leg_stays: false,
            leg_life: None,
            to_client: Vec::new(),
            began: Instant::now(),
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// Carries on until the end.
    pub(crate) async fn run(&mut self, client: &mut Client, limits: &Limits) -> End {
        loop {
            let step = scratch::with(0, |scratch| self.step(client, scratch));
            let wait = match step {
                Err(end) => return end,
                Ok(None) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Some(wait)) => wait,
            };
            if !wait.on_client {
                if self.wait(client, &wait).await.is_err() {
                    return End::ClientGone;
                }
                continue;
            }
            let body = self.wants_body().then(Instant::now);
            let patience = match body {
                Some(_) => limits.stall_timeout.min(self.left_for_body(limits)),
                None => limits.stall_timeout,
            };
            match tokio::time::timeout(patience, self.wait(client, &wait)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::ClientGone,
                Err(_) => return End::Stalled { silent: self.is_silent() },
            }
            self.waited += body.map(|since| since.elapsed()).unwrap_or_default();
        }
    }

    /// How much longer the rest of the body may be waited for. Only waiting counts: a worker that reads slowly is not the
    /// client's fault.
    fn left_for_body(&self, limits: &Limits) -> Duration {
        let Some(earned) = self.came.checked_div(limits.body_rate) else { return Duration::MAX };
        (limits.body_timeout + Duration::from_secs(earned)).saturating_sub(self.waited)
    }

    /// For how long it has been under way.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The worker, until it has answered.
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.upstream.as_ref().map(|(_, in_flight)| &in_flight.0)
    }

    /// The request's body was read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        self.body.is_done()
    }

    fn is_silent(&self) -> bool {
        matches!(self.response, Response::Head(_))
    }

    /// Waits for what `wait` names. An error when the client is gone.
    async fn wait(&self, client: &mut Client, wait: &Wait) -> io::Result<()> {
        let leg = async {
            match (&self.upstream, wait.leg) {
                (Some((lease, _)), Some(interest)) => lease.leg().ready(interest).await.map(|_| ()),
                _ => std::future::pending().await,
            }
        };
        let theirs = async {
            match wait.client {
                Some(interest) => client.ready(interest).await.map(Some),
                None => std::future::pending().await,
            }
        };
        let ready = tokio::select! {
            biased;
            // What is wrong with the leg shows when it is read.
            _ = leg => None,
            ready = theirs => ready?,
        };
        let Some(ready) = ready else { return Ok(()) };
        if ready.is_read_closed() && !self.wants_body() && !client.half_closed {
            if self.began.elapsed() > ENDED_WITH_REQUEST {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            client.half_closed = true;
        }
        if ready.is_readable() && !self.wants_body() {
            // The next request, already: it has to wait.
            client.look_later();
        }
        Ok(())
    }

    fn wants_body(&self) -> bool {
        !self.body.is_done() && self.to_leg.is_empty() && !self.deaf
    }

    /// Moves what can be moved. `None` when others should get their turn first.
    fn step(&mut self, client: &mut Client, scratch: &mut Scratch) -> Result<Option<Wait>, End> {
        for _ in 0..ROUNDS {
            let sent = self.step_request(client, scratch)?;
            let received = self.step_response(client, scratch)?;
            if !sent && !received {
                return Ok(Some(self.what_to_wait_for(client)));
            }
        }
        Ok(None)
    }

    fn what_to_wait_for(&self, client: &Client) -> Wait {
        let mut interest = None;
        let mut add = |wanted: bool, what: Interest| {
            if wanted {
                interest = Some(interest.map_or(what, |interest: Interest| interest.add(what)));
            }
        };
        let body = self.wants_body();
        add(body || !client.half_closed, Interest::READABLE);
        add(!self.to_client.is_empty(), Interest::WRITABLE);
        let client_interest = interest.take();
        let mut add = |wanted: bool, what: Interest| {
            if wanted {
                interest = Some(interest.map_or(what, |interest: Interest| interest.add(what)));
            }
        };
        add(!self.to_leg.is_empty() && !self.deaf, Interest::WRITABLE);
        add(self.to_client.is_empty(), Interest::READABLE);
        // That a half-closed one has gone altogether would not show.
        let on_client = !self.to_client.is_empty() || body || client.half_closed;
        Wait { client: client_interest, leg: interest, on_client }
    }

    /// Whether anything moved towards the worker.
    fn step_request(&mut self, client: &mut Client, scratch: &mut Scratch) -> Result<bool, End> {
        let Some((lease, _)) = &self.upstream else { return Ok(false) };
        if self.deaf || (self.to_leg.is_empty() && self.body.is_done()) {
            return Ok(false);
        }
        if !self.to_leg.is_empty() {
            return match lease.leg().write(&self.to_leg) {
                Ok(0) => Ok(false),
                Ok(written) => {
                    self.to_leg.drain(..written);
                    if self.to_leg.is_empty() {
                        self.to_leg = Vec::new();
                    }
                    Ok(true)
                }
                Err(_) => {
                    self.deaf = true;
                    Ok(true)
                }
            };
        }
        let taken = match take_body(client, &mut self.body, scratch) {
            Ok(0) => return Err(End::ClientGone),
            Ok(taken) => taken,
            Err(TakeError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(TakeError::Io(_)) => return Err(End::ClientGone),
            Err(TakeError::Malformed) => return Err(End::Malformed { silent: self.is_silent() }),
        };
        self.came += taken as u64;
        let bytes = &scratch.input[..taken];
        match lease.leg().write(bytes) {
            Ok(written) => self.to_leg.extend_from_slice(&bytes[written..]),
            Err(_) => self.deaf = true,
        }
        Ok(true)
    }
}

enum TakeError {
    Io(io::Error),
    Malformed,
}

impl From<io::Error> for TakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the next part of a request's body into `scratch.input`, and nothing behind its end.
fn take_body(client: &mut Client, body: &mut Body, scratch: &mut Scratch) -> Result<usize, TakeError> {
    let room = scratch.input.len();
    if let Body::Length(left) = body {
        let room = room.min(usize::try_from(*left).unwrap_or(usize::MAX));
        let taken = client.read(&mut scratch.input[..room])?;
        *left -= taken as u64;
        return Ok(taken);
    }
    // Where a chunked body ends is known only after it was looked at.
    let seen = client.peek(&mut scratch.input)?;
    let taken = body.feed(&scratch.input[..seen], |_| {}).map_err(|Malformed| TakeError::Malformed)?;
    client.discard(taken, &mut scratch.leg)?;
    client.left_unread(seen > taken || seen == room);
    Ok(taken)
}

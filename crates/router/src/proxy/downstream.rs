//! The response's half of an exchange: from the leg to the client.

use std::io;
use std::time::Duration;

use super::exchange::{End, Exchange, Response};
use crate::backend::Leg;
use crate::client::Client;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::response::{self, Asked, Meaning};
use crate::scratch::Scratch;

/// The longest response head, in bytes.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// The longest answer that can mean the end of a session, in bytes.
const SHORT: usize = 128;

impl Exchange<'_> {
    /// Whether anything moved towards the client.
    pub(super) fn step_response(&mut self, client: &mut Client, scratch: &mut Scratch) -> Result<bool, End> {
        if !self.to_client.is_empty() {
            let written = client.write(&self.to_client).map_err(|_| End::ClientGone)?;
            self.to_client.drain(..written);
            if !self.to_client.is_empty() {
                return Ok(written > 0);
            }
            self.to_client = Vec::new();
            self.end_if_done()?;
            return Ok(true);
        }
        let Some((lease, _)) = &self.upstream else { return Ok(false) };
        let read = match lease.leg().read(&mut scratch.leg) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => {
                // A unix socket tells whether its peer closed it without having read everything. Over TCP the same error
                // can have been made on purpose.
                let unread = error.kind() == io::ErrorKind::ConnectionReset
                    && matches!(&**lease.leg(), Leg::Unix(_) | Leg::Node(..));
                return self.leg_ended(client, unread).map(|()| true);
            }
            Ok(0) => return self.leg_ended(client, false).map(|()| true),
            Ok(read) => read,
        };
        scratch.out.clear();
        // Out of `scratch` for the time both are borrowed.
        let leg = std::mem::take(&mut scratch.leg);
        let result = match self.response {
            Response::Head(_) => self.response_head(client, scratch, &leg[..read]),
            Response::Body { .. } => self.response_body(client, scratch, &leg[..read]),
            Response::Done | Response::Switched => Ok(()),
        };
        scratch.leg = leg;
        result?;
        self.end_if_done()?;
        Ok(true)
    }

    fn leg_ended(&mut self, client: &Client, unread: bool) -> Result<(), End> {
        match &self.response {
            Response::Head(partial) => {
                let invalid = !partial.is_empty();
                let reused = self.upstream.as_ref().is_some_and(|(lease, _)| lease.reused);
                Err(End::NoResponse { reused, unread, invalid, complete: self.body.is_done() })
            }
            Response::Body { body: Body::UntilEnd, .. } => {
                self.leg_stays = false;
                self.response = Response::Done;
                self.pass(client, &[])?;
                self.end_if_done()
            }
            // It was held back: the client has had nothing yet.
            _ if self.learner.is_some() => Err(End::NoResponse {
                reused: false,
                unread: false,
                invalid: false,
                complete: self.body.is_done(),
            }),
            _ => Err(End::Cut),
        }
    }

    fn response_head(&mut self, client: &mut Client, scratch: &mut Scratch, read: &[u8]) -> Result<(), End> {
        self.pending = None;
        if self.unconsumed > 0 {
            // The worker has it: now it is ours to take.
            let count = std::mem::take(&mut self.unconsumed);
            client.discard(count, &mut scratch.input).map_err(|_| End::ClientGone)?;
        }
        let Response::Head(partial) = &mut self.response else { return Ok(()) };
        let mut kept = std::mem::take(partial);
        let mut input = if kept.is_empty() {
            read
        } else {
            kept.extend_from_slice(read);
            &kept[..]
        };
        let asked =
            Asked { keep_alive: self.about.asked.keep_alive && self.body.is_done(), ..self.about.asked };
        let invalid =
            End::NoResponse { reused: false, unread: false, invalid: true, complete: self.body.is_done() };
        loop {
            match response::translate(input, asked, &mut scratch.out) {
                Err(response::Invalid) => return Err(invalid),
                Ok(None) if input.len() > MAX_RESPONSE_HEAD => return Err(invalid),
                Ok(None) => {
                    self.response = Response::Head(input.to_vec());
                    break;
                }
                Ok(Some((end, Meaning::Interim))) => input = &input[end..],
                Ok(Some((end, Meaning::Switched))) => {
                    self.response = Response::Switched;
                    scratch.out.extend_from_slice(&input[end..]);
                    break;
                }
                Ok(Some((
                    end,
                    Meaning::Final { body, leg_stays, client_stays, unchunk, status, closes_after },
                ))) => {
                    self.leg_stays = leg_stays;
                    self.leg_life =
                        closes_after.map(|secs| Duration::from_secs(secs.saturating_sub(1).into()));
                    self.about.asked.keep_alive = client_stays;
                    self.response = Response::Body { body, unchunk, status };
                    if status != 200 {
                        self.learner = None;
                    }
                    return self.response_body(client, scratch, &input[end..]);
                }
            }
        }
        self.flush(client, &scratch.out)
    }

    /// Passes on what of `read` belongs to the response, behind what `scratch.out` holds already.
    fn response_body(&mut self, client: &mut Client, scratch: &mut Scratch, read: &[u8]) -> Result<(), End> {
        let Response::Body { body, unchunk, status } = &mut self.response else { return Ok(()) };
        let out = &mut scratch.out;
        let begins = !out.is_empty();
        let learner = &mut self.learner;
        let fed = body.feed(read, |data| {
            if *unchunk {
                out.extend_from_slice(data);
            }
            if let Some(learner) = learner {
                learner.feed(data);
            }
        });
        let Ok(taken) = fed else { return Err(End::Cut) };
        // Bytes behind the response are nobody's.
        self.leg_stays &= taken == read.len();
        let (done, unchunk, status) = (body.is_done(), *unchunk, *status);
        if done {
            self.response = Response::Done;
            if begins && taken <= SHORT {
                self.note_end(status, &read[..taken]);
            }
        }
        if !unchunk {
            if out.is_empty() {
                return self.pass(client, &read[..taken]);
            }
            out.extend_from_slice(&read[..taken]);
        }
        self.pass(client, &scratch.out)
    }

    /// Forgets the session if this answer, or the request, says that it is over.
    fn note_end(&mut self, status: u16, body: &[u8]) {
        let Some(session) = &self.about.session else { return };
        let over = answer::is_over(status, body, self.about.poll, self.about.eio3);
        if over || (self.about.closes && status == 200) {
            self.shared.sids.forget(session);
        }
    }

    /// Passes on to the client, unless there is something to be learned first: it may use what it reads at once.
    fn pass(&mut self, client: &Client, bytes: &[u8]) -> Result<(), End> {
        let Some(learner) = &self.learner else { return self.flush(client, bytes) };
        self.held.extend_from_slice(bytes);
        let Ok(learned) = learner.look(matches!(self.response, Response::Done)) else { return Ok(()) };
        if let (Some(learned), Some((_, in_flight))) = (learned, &self.upstream) {
            let owner = &in_flight.0.owner;
            self.shared.sids.learn(&learned.sid, owner, learned.ttl, self.shared.now());
            self.shared.counters.learned.add();
            // It is known now, and needs no place kept.
            self.about.placed = None;
        }
        self.learner = None;
        let held = std::mem::take(&mut self.held);
        self.flush(client, &held)
    }

    fn flush(&mut self, client: &Client, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = client.write(bytes).map_err(|_| End::ClientGone)?;
        self.to_client.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn end_if_done(&mut self) -> Result<(), End> {
        match self.response {
            Response::Done => {
                // A slow client holds no leg.
                if let Some((lease, _)) = self.upstream.take()
                    && self.leg_stays
                    && self.body.is_done()
                    && self.to_leg.is_empty()
                    && !self.deaf
                {
                    lease.give_back(self.shared.config.limits.idle_legs, self.leg_life);
                }
                if self.to_client.is_empty() {
                    return Err(End::Answered { keep_alive: self.about.asked.keep_alive });
                }
            }
            Response::Switched if self.to_client.is_empty() => {
                if let Some((lease, in_flight)) = self.upstream.take() {
                    return Err(End::Switched(lease, in_flight));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

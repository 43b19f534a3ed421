//! The fields of a message we may want, whatever its spelling: both readers fill this table. What they mean together is
//! `decode.rs`'s business.

use super::v8::Scalar;

/// The fields by name; the same name may mean different things in different messages.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) cmd: Scalar<'a>,
    pub(super) act: Scalar<'a>,
    pub(super) seq: Scalar<'a>,
    pub(super) ack: Scalar<'a>,
    pub(super) accepted: Scalar<'a>,
    pub(super) key: Scalar<'a>,
    pub(super) address: Scalar<'a>,
    pub(super) port: Scalar<'a>,
    pub(super) address_type: Scalar<'a>,
    pub(super) fd: Scalar<'a>,
    pub(super) index: Scalar<'a>,
    pub(super) backlog: Scalar<'a>,
    pub(super) flags: Scalar<'a>,
    pub(super) http: Scalar<'a>,
    pub(super) server: Scalar<'a>,
    pub(super) total: Scalar<'a>,
    pub(super) source: Scalar<'a>,
    pub(super) kind: Scalar<'a>,
    pub(super) uid: Scalar<'a>,
    pub(super) nsp: Scalar<'a>,
    pub(super) requester_uid: Scalar<'a>,
    /// `data` is an object.
    pub(super) data_given: bool,
    pub(super) ticket_keys: Scalar<'a>,
    pub(super) worker_id: Scalar<'a>,
}

/// A message.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Scalar(Scalar<'a>),
    Object(Box<Fields<'a>>),
}

impl<'a> Fields<'a> {
    /// Where the field of this name goes. `None`: nobody wants it.
    pub(super) fn slot(&mut self, name: &str) -> Option<&mut Scalar<'a>> {
        Some(match name {
            "cmd" => &mut self.cmd,
            "act" => &mut self.act,
            "seq" => &mut self.seq,
            "ack" => &mut self.ack,
            "accepted" => &mut self.accepted,
            "key" => &mut self.key,
            "address" => &mut self.address,
            "port" => &mut self.port,
            "addressType" => &mut self.address_type,
            "fd" => &mut self.fd,
            "index" => &mut self.index,
            "backlog" => &mut self.backlog,
            "flags" => &mut self.flags,
            "http" => &mut self.http,
            "server" => &mut self.server,
            "total" => &mut self.total,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "uid" => &mut self.uid,
            "nsp" => &mut self.nsp,
            "requesterUid" => &mut self.requester_uid,
            _ => return None,
        })
    }

    /// Where the field of this name in `data` goes.
    pub(super) fn data_slot(&mut self, name: &str) -> Option<&mut Scalar<'a>> {
        Some(match name {
            "ticketKeys" => &mut self.ticket_keys,
            "workerId" => &mut self.worker_id,
            _ => return None,
        })
    }
}

impl Scalar<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn owned(&self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match *self {
            // Beyond that JavaScript itself has no integers.
            Scalar::Number(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
                Some(number as i64)
            }
            _ => None,
        }
    }

    /// As `integer`, and a text of digits: UDP ports come as the program wrote them, often out of its environment.
    pub(super) fn port(&self) -> Option<i64> {
        self.integer().or_else(|| self.text()?.trim().parse::<u16>().ok().map(i64::from))
    }

    pub(super) fn unsigned(&self) -> Option<u64> {
        self.integer().and_then(|number| u64::try_from(number).ok())
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self, Scalar::Bool(true))
    }
}

//! The system calls on the channel's socket. Never blocks. Every descriptor that comes in is closed here.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::deframe::Deframer;
use super::outbox::READ;

/// What the kernel holds of what we wrote and the worker has not read: less than the worker reads at once.
///
/// Node 18, and 20 and 22 without the mend of nodejs/node#55834, take in no message any more once a read has ended
/// within the four bytes of a frame's length. A frame begins with its own write; when all that waits fits into one read, reads end where
/// writes do. The kernel doubles this number and lets one write go beyond it.
const SEND_BUFFER: usize = 16 * 1024;

/// How many descriptors may come at once. Node sends one; the kernel drops what is beyond.
const DESCRIPTORS: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    /// 0: the channel has ended.
    pub(super) bytes: usize,
    /// Those that came with it, and are closed.
    pub(super) descriptors: usize,
}

#[derive(Debug)]
pub(super) enum SendFailed {
    /// The socket is full.
    Blocked,
    /// Too many descriptors are on their way, of all sockets of this user. No event tells when there are fewer.
    Crowded,
    Ended(io::Error),
}

thread_local! {
    /// One per thread that reads channels, not one per channel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn prepare(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)?;
    Ok(())
}

pub(super) fn recv(socket: BorrowedFd<'_>, into: &mut Deframer) -> io::Result<Read> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(READ as usize, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => continue,
                // The worker died with our messages unread: the end, not a fault.
                Err(Errno::CONNRESET) => return Ok(Read { bytes: 0, descriptors: 0 }),
                Err(error) => return Err(error.into()),
            }
        };
        let mut descriptors = 0;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors += fds.map(drop).count();
            }
        }
        into.push(&buffer[..received.bytes]);
        Ok(Read { bytes: received.bytes, descriptors })
    })
}

pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> Result<usize, SendFailed> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(SendFailed::Ended(io::Error::other("no room for a descriptor beside the message")));
        }
    }
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(written) => return Ok(written),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(SendFailed::Blocked),
            Err(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => return Err(SendFailed::Crowded),
            Err(error) => return Err(SendFailed::Ended(error.into())),
        }
    }
}

//! Takes over the channel's end that the supervisor left open for this process. The only `unsafe` of the workspace.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::io::FdFlags;

/// The environment variable that names a worker's end of its channel: `<fd>:<socket inode>`.
pub const ENV: &str = "SUNDEW_CHANNEL";

/// Why the channel named by the environment could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// The variable is there, but is not `<fd>:<inode>`.
    #[error(
        "{ENV}={value:?} is not `<fd>:<inode>`: only the sundew supervisor sets this variable, unset it to run alone"
    )]
    Malformed {
        /// What the variable holds.
        value: String,
    },
    /// The channel was already taken over in this process.
    #[error("the supervisor's channel was already taken by this process: it can be taken once")]
    Taken,
    /// The system refused.
    #[error("cannot take over the supervisor's channel: {0}")]
    Io(#[from] std::io::Error),
}

static TAKEN: Mutex<bool> = Mutex::new(false);

/// The value of [`ENV`] for a child that inherits `socket` as descriptor `fd`.
pub(crate) fn env_value(socket: BorrowedFd<'_>, fd: RawFd) -> std::io::Result<String> {
    Ok(format!("{fd}:{}", rustix::fs::fstat(socket)?.st_ino))
}

/// Takes the channel named by [`ENV`]. `None` when this process has none: the variable is missing, or the descriptor
/// is not that very socket (a grandchild inherits the variable, but never the descriptor).
pub(crate) fn take() -> Result<Option<OwnedFd>, InheritError> {
    match std::env::var(ENV) {
        Ok(value) => take_value(&value),
        Err(_) => Ok(None),
    }
}

fn take_value(value: &str) -> Result<Option<OwnedFd>, InheritError> {
    let malformed = || InheritError::Malformed { value: value.to_owned() };
    let (fd, inode) = value.split_once(':').ok_or_else(malformed)?;
    let fd: RawFd = fd.parse().map_err(|_| malformed())?;
    let inode: u64 = inode.parse().map_err(|_| malformed())?;
    // 0, 1 and 2 belong to std, which writes to them without asking.
    if fd <= 2 {
        return Err(malformed());
    }
    // Held over check and take, so that two threads cannot both become the owner.
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !is_socket(fd, inode) {
        return Ok(None);
    }
    if *taken {
        return Err(InheritError::Taken);
    }
    // SAFETY: `fd` is open and is the socket with the inode the supervisor named. It made that socket for this process
    // alone and left it open across exec for us to own; no code of this process opened it, so nobody else here closes
    // it, and `TAKEN` makes us the only one to own it. Inodes of live sockets are unique, so no descriptor opened since
    // can be mistaken for it.
    #[allow(unsafe_code)]
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    *taken = true;
    rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    Ok(Some(owned))
}

/// Whether `fd` is open now and is the socket with this inode.
fn is_socket(fd: RawFd, inode: u64) -> bool {
    // `/proc` rather than fstat: looking must not need a descriptor that may not be open.
    if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{fd}")) {
        return target.to_str() == Some(&format!("socket:[{inode}]"));
    }
    // No /proc (a minimal container, macOS).
    // SAFETY: `fd` is not -1, and the borrow ends before this function does. Were it not open, fstat answers EBADF.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(borrowed.as_fd()).is_ok_and(|stat| {
        stat.st_ino == inode && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket()
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_named_socket_is_taken_and_only_once() {
        let (ours, other) = UnixStream::pair().unwrap();
        let value = env_value(ours.as_fd(), ours.as_raw_fd()).unwrap();
        let inode = value.split_once(':').unwrap().1.to_owned();

        for bad in ["", "7", "x:1", "7:y", "1:5", "-1:5"] {
            assert!(matches!(take_value(bad), Err(InheritError::Malformed { .. })), "{bad}");
        }
        // The number is right, the socket behind it is not: what a grandchild sees.
        assert!(take_value(&format!("{}:{inode}", other.as_raw_fd())).unwrap().is_none());
        assert!(take_value(&format!("999999:{inode}")).unwrap().is_none());

        rustix::io::fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        let raw = ours.into_raw_fd();
        let owned = take_value(&value).unwrap().unwrap();
        assert_eq!(owned.as_raw_fd(), raw);
        assert_eq!(rustix::io::fcntl_getfd(&owned).unwrap(), FdFlags::CLOEXEC);
        assert!(matches!(take_value(&value), Err(InheritError::Taken)));
    }
}

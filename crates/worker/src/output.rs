//! Standard output and error once the supervisor, who reads them, is gone.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::FileType;

/// Lets this process write on, to nowhere: `println!` panics on a pipe that nobody reads, and the worker still has sessions to
/// let go of. What is no pipe is left as it is.
pub(crate) fn abandon() {
    let Ok(nowhere) = File::options().write(true).open("/dev/null") else { return };
    if is_pipe(std::io::stdout()) {
        // An error would leave things as they are.
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
    if is_pipe(std::io::stderr()) {
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}

fn is_pipe(stream: impl AsFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

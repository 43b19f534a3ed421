//! How a connection that no HTTP library drives becomes something else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Recovered;

/// What a connection is from then on: it lives as long as this does.
pub type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

type Begin = Box<dyn FnOnce(Recovered) -> Option<Life> + Send>;

/// A request extension, where the server loop is Sundew's own: takes the place of hyper's `OnUpgrade`. Whoever answers the
/// request with a 101 says what the connection becomes, and the same task goes on with that.
#[derive(Clone, Default)]
pub struct TakeOver(Arc<Mutex<Option<Begin>>>);

impl TakeOver {
    /// `begin` gets the connection if the answer is a 101. The head of it is not written yet: it is in
    /// [`Recovered::unwritten`]. Without a life, the connection ends.
    pub fn then(&self, begin: impl FnOnce(Recovered) -> Option<Life> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(begin));
    }

    /// For the server loop, once the request has been answered: begins what the connection becomes. `None` if nobody took it
    /// over, or it ends.
    pub fn begin(&self, connection: Recovered) -> Option<Life> {
        let begin = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        begin.and_then(|begin| begin(connection))
    }
}

impl fmt::Debug for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeOver").finish_non_exhaustive()
    }
}

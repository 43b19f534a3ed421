//! A program with a port, as its front door sees it: every instance listens on a port of its own (`PORT`), and whatever is
//! sent to it goes over connections to that.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sundew_router::{Abilities, Backend, BackendId, Front, HandOff, Leg};
use tokio::sync::mpsc;

use crate::api::Sessions;
use crate::dispatcher::Input;
use crate::worker::{Report, WorkerId};

/// Between two looks whether a program listens already.
const KNOCK: Duration = Duration::from_millis(50);

/// The supervisor's side of one such process.
pub(crate) struct Port {
    id: BackendId,
    address: SocketAddr,
    front: Front,
}

impl Port {
    /// With a port that is free now.
    pub(crate) fn new(id: BackendId, front: Front) -> io::Result<Arc<Self>> {
        // Free again at once: the program is to bind it. Somebody else could come first; then the program ends, and the
        // next one gets another port.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Arc::new(Self { id, address, front }))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn load(&self) -> Sessions {
        let Some(load) = self.front.load_of(self.id) else { return Sessions::default() };
        let (polling, websocket) = (load.learned, load.relayed);
        Sessions { total: polling.saturating_add(websocket), polling, websocket }
    }
}

impl Backend for Port {
    fn id(&self) -> BackendId {
        self.id
    }

    fn abilities(&self) -> Abilities {
        Abilities { takes_connections: false, tells_sessions: false, transparent: false }
    }

    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        Err(connection)
    }

    fn open_leg(&self) -> io::Result<Leg> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.address) {
            // On the loopback interface a connection is made within the call, and reported as being made.
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(Leg::Tcp(tokio::net::TcpStream::from_std(socket)?))
    }

    fn sessions(&self) -> u32 {
        0
    }

    fn placements_seen(&self) -> u64 {
        0
    }
}

/// Waits until the program listens. Ends with the daemon, or when nobody waits for it any more.
pub(crate) async fn knock(
    id: WorkerId,
    port: Arc<Port>,
    mut phase: tokio::sync::watch::Receiver<crate::worker::Phase>,
    inputs: mpsc::Sender<Input>,
) {
    let open = async {
        while tokio::net::TcpStream::connect(port.address).await.is_err() {
            tokio::time::sleep(KNOCK).await;
        }
    };
    let over = async {
        let _ = phase.wait_for(|phase| matches!(phase, crate::worker::Phase::Over(_))).await;
    };
    tokio::select! {
        () = open => drop(inputs.send(Input::Report(id, Report::Ready)).await),
        () = over => {}
    }
}
